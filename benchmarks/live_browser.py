"""`metaportrait live` in a real browser: headless Chromium with a file as its camera.

    python -m benchmarks.live_browser [--seconds 20] [--minutes 10] [--weights bundled]

The camera's file is the sample's driver at 640 × 480 and 30 frames a second, each with its number
drawn into it as black and white squares. What the page shows of it is read back: a picture's
latency is the age of the frame it was made of when it is drawn, by the browser's own capture times
and by the number in the frame that the camera's view shows at that moment. Prints a table: pictures
a second, latency, two pages at once, a page closed in the midst, a source changed while running, a
camera that stops, recording; with `--minutes` the memory of server and page over time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.sync.client import connect

from benchmarks.animate import PROGRAM, ROOT, resident_mb
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.media.reader import open_frames

RATE, SIZE, BITS, SQUARE = 30, (640, 480), 12, 16

# Runs before the page's own script. Frames are known by the stamp that the page sends with them.
SPY = """
const spy = window.spy = { shown: [], clocks: new Map(), ages: new Map(), waiting: [], now: null };
const eye = document.createElement("canvas");
eye.width = BITS * SQUARE; eye.height = SQUARE;
const look = source => {
  const context = eye.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  const pixels = context.getImageData(0, 0, eye.width, eye.height).data;
  let number = 0;
  for (let bit = 0; bit < BITS; bit++)
    number += (pixels[4 * (SQUARE / 2 * eye.width + bit * SQUARE + SQUARE / 2)] > 127) << bit;
  return number;
};
const Plain = WebSocket;
window.WebSocket = class extends Plain {
  constructor(address) {
    super(address);
    this.addEventListener("message", ({ data }) => {
      if (typeof data !== "string") spy.waiting.push(new DataView(data).getFloat64(1));
    });
  }
  send(data) {
    if (data instanceof Uint8Array && data[0] === 1) {
      const stamp = new DataView(data.buffer).getFloat64(1);
      spy.clocks.set(stamp, spy.sent); spy.ages.set(stamp, spy.captured);
    }
    super.send(data);
  }
};
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (source, ...rest) {
  draw.call(this, source, ...rest);
  if (this.canvas === eye) return;
  if (source instanceof HTMLVideoElement) {
    spy.sent = look(this.canvas); spy.captured = spy.now?.captureTime;
  } else if (this.canvas.id === "picture") {
    const stamp = spy.waiting.shift(), video = document.getElementById("camera");
    if (!spy.clocks.has(stamp)) return;
    const time = performance.now();
    spy.shown.push([time, time - stamp, time - spy.ages.get(stamp),
                    (look(video) - spy.clocks.get(stamp) + PERIOD) % PERIOD]);
    spy.clocks.delete(stamp); spy.ages.delete(stamp);
  }
};
const request = HTMLVideoElement.prototype.requestVideoFrameCallback;
HTMLVideoElement.prototype.requestVideoFrameCallback = function (callback) {
  return request.call(this, (now, about) => { spy.now = about; callback(now, about); });
};
"""


def camera_file(folder: Path) -> tuple[Path, int]:
    """The driver as a camera sees it, forth and back, with numbered frames; and how many."""
    with open_frames(ROOT / "samples" / "driver.mp4") as frames:
        pictures = [_as_seen(frame.image) for frame in itertools.islice(frames, 150)]
    pictures += pictures[::-1]
    path = folder / "camera.y4m"
    command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}", "-r", str(RATE), "-i", "-"]
    child = subprocess.Popen(
        [*command, "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", str(path)], stdin=subprocess.PIPE
    )
    assert child.stdin is not None  # noqa: S101  asked for above
    for number, picture in enumerate(pictures):
        for bit in range(BITS):
            colour = 255 * (number >> bit & 1)
            picture[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = colour
        child.stdin.write(picture.tobytes())
    child.stdin.close()
    if child.wait():
        raise SystemExit("ffmpeg can't write the camera's file")
    return path, len(pictures)


def _as_seen(image: np.ndarray) -> np.ndarray:
    width, height = SIZE
    side = height - 2 * SQUARE
    shown = np.full((height, width, 3), 90, np.uint8)
    left, top = (width - side) // 2, SQUARE + SQUARE // 2
    shown[top : top + side, left : left + side] = cv2.resize(
        image, (side, side), interpolation=cv2.INTER_AREA
    )
    return shown


class Page:
    """One tab, by Chromium's DevTools protocol."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser, self.target, self.session = browser, target, session

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        return self.browser.do(method, session=self.session, **parameters)

    def ask(self, expression: str) -> Any:
        """What JavaScript makes of an expression; promises are waited for."""
        told = self.do(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        if "exceptionDetails" in told:
            raise RuntimeError(f"{expression}: {json.dumps(told['exceptionDetails'])[:400]}")
        return told["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> float:
        """Until it is true; how long that took."""
        began = time.monotonic()
        while not self.ask(expression):
            if time.monotonic() - began > seconds:
                raise RuntimeError(f"not within {seconds} s: {expression}; {self.told()}")
            time.sleep(0.1)
        return time.monotonic() - began

    def told(self) -> str:
        """What the page says."""
        return self.ask("['state', 'numbers', 'error'].map(id => by(id).textContent).join(' | ')")

    def start(self) -> None:
        """Its camera; until pictures come."""
        self.ask("by('start').click()")
        self.wait("stats.shown > 20")

    def close(self) -> None:
        """The tab, in the midst of whatever it does."""
        self.browser.do("Target.closeTarget", targetId=self.target)


class Browser:
    """Headless Chromium that has a file as camera."""

    def __init__(self, program: str, camera: Path, period: int, folder: Path) -> None:
        self._spy = SPY.replace("BITS", str(BITS)).replace("SQUARE", str(SQUARE))
        self._spy = self._spy.replace("PERIOD", str(period))
        self.child = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
                # A tab that is not in front is throttled, and two are shown at once here.
                "--disable-background-timer-throttling",
                "--disable-backgrounding-occluded-windows",
                "--disable-renderer-backgrounding",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.child.stderr is not None  # noqa: S101  asked for above
        for line in self.child.stderr:
            if found := re.search(r"ws://\S+", line):
                self._held = ExitStack()
                self._socket = self._held.enter_context(connect(found[0], max_size=None))
                break
        else:
            raise SystemExit(f"{program} does not start")
        self._number = itertools.count(1)
        self.complaints: list[str] = []
        """What pages wrote to their consoles as errors"""

    def do(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._number)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps({**message, **({"sessionId": session} if session else {})}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(said["params"])[:300])
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]

    def page(self, address: str) -> Page:
        """A new tab, spied on, at an address."""
        # A window of its own: what is behind another tab sends no frames.
        target = self.do("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "DOM", "Log", "Performance"):
            page.do(f"{domain}.enable")
        page.do("Page.addScriptToEvaluateOnNewDocument", source=self._spy)
        page.do("Page.navigate", url=address)
        page.wait("document.readyState === 'complete' && socket.readyState === 1")
        return page

    def close(self) -> None:
        """All of it."""
        self._held.close()
        self.child.terminate()
        self.child.wait()


@contextmanager
def live(*more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, serving; gives the page's address."""
    command = [*PROGRAM, "live", str(ROOT / "samples" / "portrait.png"), *more]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None  # noqa: S101  asked for above
        address = child.stdout.readline().strip()
        if not address:
            raise SystemExit(f"{' '.join(command)}: no address")
        yield address, child
    finally:
        child.terminate()
        child.wait()


def watched(pages: list[Page], seconds: float) -> list[str]:
    """Pictures a second and latencies of pages over so many seconds, each in a line."""
    for page in pages:
        page.ask("void (spy.shown.length = 0)")
    time.sleep(seconds)
    lines = []
    for page in pages:
        shown = page.ask("spy.shown")
        if not shown:
            lines.append(f"nothing shown; {page.told()}")
            continue
        passed = (shown[-1][0] - shown[0][0]) / 1000 if len(shown) > 1 else seconds
        own, whole, frames = zip(*(row[1:] for row in shown), strict=True)
        whole = [age for age in whole if age is not None] or [float("nan")]
        by_clock = [1000 * count / RATE for count in frames]
        lines.append(
            f"{(len(shown) - 1) / passed:.1f} pictures/s; from frame to picture {_spread(own)} ms,"
            f" from capture {_spread(whole)} ms, by the clock {_spread(by_clock)} ms"
        )
    return lines


def _spread(values: list[float] | tuple[float, ...]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.0f} (95 %: {ordered[int(0.95 * (len(ordered) - 1))]:.0f})"


def _cpu_seconds(process: int) -> float:
    spent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


def _average(page: Page) -> np.ndarray:
    """The picture's colours, coarsely."""
    return np.array(
        page.ask(
            "(() => { const c = document.createElement('canvas'); c.width = c.height = 8;"
            " const x = c.getContext('2d'); x.drawImage(by('picture'), 0, 0, 8, 8);"
            " return Array.from(x.getImageData(0, 0, 8, 8).data); })()"
        ),
        float,
    )


def story(browser: Browser, more: list[str], seconds: float) -> Iterator[tuple[str, str]]:
    """What happens, and what came of it."""
    with live(*more) as (address, server):
        page = browser.page(address)
        page.start()
        page.wait("by('state').textContent === 'live'")
        before = _cpu_seconds(server.pid)
        (line,) = watched([page], seconds)
        spent = 1000 * (_cpu_seconds(server.pid) - before) / max(1, page.ask("spy.shown.length"))
        yield f"one page, {seconds:g} s", f"{line}; {spent:.0f} CPU-ms a picture; {page.told()}"

        page.ask("by('record').click()")
        page.wait("by('record').textContent === 'Stop'")
        time.sleep(3)
        page.ask("by('record').click()")
        page.wait("by('recordings').querySelector('a') !== null")
        link = page.ask("by('recordings').querySelector('a').href")
        with urllib.request.urlopen(link, timeout=20) as answer:  # noqa: S310  our own
            yield "recorded for 3 s, downloaded", f"{len(answer.read()) / 1000:.0f} kB"

        plain, was = _average(page), page.ask("stats.shown")
        root = page.do("DOM.getDocument")["root"]["nodeId"]
        node = page.do("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        other = str(ROOT / "samples" / "tight.jpg")
        page.do("DOM.setFileInputFiles", nodeId=node, files=[other])
        began = time.monotonic()
        while np.abs(_average(page) - plain).mean() < 12 and time.monotonic() - began < 30:
            time.sleep(0.05)
        took, came = time.monotonic() - began, page.ask("stats.shown") - was
        yield "source changed while running", f"{took:.1f} s, {came} pictures meanwhile"
        page.do("DOM.setFileInputFiles", nodeId=node, files=[str(ROOT / "README.md")])
        page.wait("by('error').textContent.includes('not a picture')")
        yield "a source that is no picture", page.ask("by('error').textContent")

        second = browser.page(address)
        second.start()
        yield "two pages, 10 s", " / ".join(watched([page, second], 10))
        second.close()
        time.sleep(1)
        yield "one closed in the midst", watched([page], 5)[0]
        yield "camera that stops", stopped(page)
        page.close()


def stopped(page: Page) -> str:
    """What the page says when its camera stops, and whether it can be started again."""
    page.ask(
        "(() => { const t = by('camera').srcObject.getVideoTracks()[0]; t.stop();"
        " t.dispatchEvent(new Event('ended')); })()"
    )
    time.sleep(3)
    told = page.told()
    page.ask("void (stats.shown = 0)")
    if page.ask("by('start').hidden"):
        return f"{told}; no way to start it again"
    page.start()
    return f"{told}; started again: {watched([page], 3)[0]}"


def of_this_machine(browser: Browser, more: list[str]) -> Iterator[tuple[str, str]]:
    """Pages that watch a clip which the server itself reads, until it ends."""
    clip = str(ROOT / "samples" / "driver.mp4")
    with live(*more, "--camera", clip) as (address, _):
        pages = [browser.page(address) for _ in range(2)]
        for page in pages:
            page.wait("stats.shown > 20", 60)
        counts = [page.ask("stats.shown") for page in pages]
        time.sleep(5)
        rates = [(p.ask("stats.shown") - n) / 5 for p, n in zip(pages, counts, strict=True)]
        yield "a clip as camera, two pages", f"{rates[0]:.1f} and {rates[1]:.1f} pictures/s"
    time.sleep(1)
    yield "server ended", pages[0].told()
    for page in pages:
        page.close()


def memory(browser: Browser, more: list[str], minutes: float) -> Iterator[tuple[str, str]]:
    """Of server and page while pictures are shown."""
    with live(*more) as (address, server):
        page = browser.page(address)
        page.start()
        began = time.monotonic()
        rows: list[tuple[float, float, float]] = []
        while time.monotonic() - began < 60 * minutes:
            time.sleep(min(30.0, 20 * minutes))
            metrics = {m["name"]: m["value"] for m in page.do("Performance.getMetrics")["metrics"]}
            heap = metrics["JSHeapUsedSize"] / 1e6
            page.ask("void (spy.shown.length = 0, spy.clocks.clear(), spy.ages.clear())")
            rows.append(((time.monotonic() - began) / 60, resident_mb(server.pid), heap))
            yield f"memory at {rows[-1][0]:.1f} min", f"{rows[-1][1]:.0f} MB, page {heap:.1f} MB"
        half = rows[len(rows) // 2 :]
        grown = np.polyfit([row[0] for row in half], [row[1] for row in half], 1)[0]
        yield "growth in the second half", f"{grown:.2f} MB a minute; {page.told()}"
        page.close()


def main() -> None:
    """Prints what came of it as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--memory-only", action="store_true")
    chosen = parser.parse_args()
    more = [] if chosen.weights == "bundled" else ["--weights", chosen.weights]
    with tempfile.TemporaryDirectory() as name:
        camera, period = camera_file(Path(name))
        browser = Browser(chosen.chromium, camera, period, Path(name))
        try:
            parts: list[Iterator[tuple[str, str]]] = []
            if not chosen.memory_only:
                parts += [story(browser, more, chosen.seconds), of_this_machine(browser, more)]
            parts += [memory(browser, more, chosen.minutes)] if chosen.minutes else []
            for what, came in itertools.chain(*parts):
                print(f"| {what} | {came} |", flush=True)
            print(f"| errors on pages' consoles | {len(browser.complaints)} |")
            for complaint in browser.complaints[:5]:
                print(complaint, file=sys.stderr)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
