"""A clip of two minutes, killed at ten random instants and gone on with: are the frames the same?

    python benchmarks/resume.py                      (Linux; the bundled weights)
    python benchmarks/resume.py --weights none
    python benchmarks/resume.py --command upscale

The instants are random, a third of them within the pass over the driver.
With `--folder` it goes on itself where it was stopped, after `--budget` seconds or by a signal.
Tells for each kill how much of the clip was looked at, rendered or enhanced twice, and how much
processor time the next run took, beyond what any run takes, until it made something new.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import starmap
from pathlib import Path
from typing import Any

import av

from benchmarks.kills import begin
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.pipeline import sightings, work
from metaportrait_cli.render import face_stream

# What a command imports late, so that a run begins at once.
from metaportrait_cli.render.protocol import Driven, Rendered
from metaportrait_cli.render.super_resolution import CompactFaces  # noqa: F401
from metaportrait_cli.render.warped import WarpSession

SAMPLES = Path(__file__).parents[1] / "samples"
SECONDS = 120


@dataclass
class Run:
    """What a process told of the frames it worked on: `seen`, `made`."""

    events: list[tuple[str, int, float, float]] = field(default_factory=list)
    """What, which frame, when (s since the start), and the processor time until then (s)"""

    def until(self, done: set[tuple[str, int]]) -> float:
        """Processor seconds before anything that wasn't done."""
        for name, number, _, spent in self.events:
            if (name, number) not in done:
                return spent
        return 0.0


def telling(line: int) -> None:
    """In the process that is to be killed: tells of each frame that it works on."""

    def tell(what: str, number: int) -> None:
        times = os.times()
        spent = times.user + times.system + times.children_user + times.children_system
        os.write(line, f"{what} {number} {spent}\n".encode())

    known = [0]

    def earlier(self: work.Seen) -> Iterator[sightings.Glance]:
        for glance in was_earlier(self):
            known[0] += 1
            yield glance

    def glance(*args: Any, **kwargs: Any) -> sightings.Glance:
        found = was_glance(*args, **kwargs)
        tell("seen", known[0])
        known[0] += 1
        return found

    def render(self: WarpSession, driven: Driven) -> Rendered:
        rendered = was_render(self, driven)
        if len(driven) > 1 and probes:
            for number in driven.numbers.tolist():
                tell("made", number)
        probes.append(True)
        return rendered

    def patches(path: Any, *args: Any, first: int, **kwargs: Any) -> Any:
        for number, patch in enumerate(was_patches(path, *args, first=first, **kwargs), first):
            tell("made", number)
            yield patch

    probes: list[bool] = []
    """The first pictures that are rendered are none of the clip's."""
    was_earlier, was_glance, was_render = work.Seen.earlier, sightings._glance, WarpSession.render
    was_patches = face_stream.enhanced_patches
    work.Seen.earlier = earlier
    sightings._glance = glance
    WarpSession.render = render
    face_stream.enhanced_patches = patches


def run(arguments: list[str], log: Path, *, kill: Callable[[str, int], bool] | None) -> Run:
    """Runs a command, and kills it a moment after the first frame that `kill` names."""
    ours, theirs = os.pipe()
    started = time.monotonic()
    process = begin(arguments, log, prepare=lambda: telling(theirs))
    os.close(theirs)
    told = Run()
    with os.fdopen(ours) as lines:
        for line in lines:
            what, number, spent = line.split()
            told.events.append((what, int(number), time.monotonic() - started, float(spent)))
            if kill is not None and kill(what, int(number)):
                time.sleep(random.random() * 0.2)
                os.kill(process, signal.SIGKILL)
                kill = None
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(log.read_text())
    return told


def content(clip: Path) -> tuple[int, str]:
    """The number of frames, and a digest of them and of the sound's packets."""
    digest, count = sha256(), 0
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb24").tobytes())
            count += 1
    with av.open(str(clip)) as container:
        for packet in container.demux(audio=0):
            digest.update(bytes(packet))
    return count, digest.hexdigest()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--command", choices=("animate", "upscale"), default="animate")
    options.add_argument("--weights", default="compact")
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seconds", type=float, default=SECONDS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path)
    options.add_argument("--budget", type=float, default=1e9)
    asked = options.parse_args()
    random.seed(asked.seed)
    ends = time.monotonic() + asked.budget
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        trials = Trials(folder, asked)
        while trials.step():
            if time.monotonic() > ends:
                print("to be gone on with")
                return


class Trials:
    """A clip that is made at once, and one that is broken off; all that is known is in a folder."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        self.whole, self.broken = folder / "whole" / "o.mp4", folder / "broken" / "o.mp4"
        self.known = folder / "known.json"
        self.state: dict[str, Any] = {"straight": None, "runs": [], "targets": []}
        if self.known.exists():
            self.state = json.loads(self.known.read_text())
        clip = folder / "clip.mp4"
        if not clip.exists():
            make_clip(clip, asked.seconds)
        self.arguments = ["upscale", str(clip), "--quiet", "--resume"]
        if asked.command == "animate":
            self.arguments = ["animate", str(SAMPLES / "portrait.png"), str(clip), "--quiet"]
            self.arguments += ["--resume", "--weights", asked.weights, "--crop", "--size", "64"]

    def step(self) -> bool:
        """The next run; False after the last one."""
        state, log = self.state, self.folder / "log"
        if state["straight"] is None:
            self.whole.unlink(missing_ok=True)
            events = run([*self.arguments, "-o", str(self.whole)], log, kill=None).events
            state["straight"] = events
            frames, _ = content(self.whole)
            print(f"unbroken: {frames} frames, {events[-1][2]:.0f} s, {events[-1][3]:.0f} CPU s")
            chance = random.Random(self.asked.seed)
            edges = [events[0][2], next(e[2] for e in events if e[0] == "made"), events[-1][2]]
            passes = [edges[:2] if n % 3 == 0 else edges[1:] for n in range(self.asked.kills)]
            moments = sorted(starmap(chance.uniform, passes))
            state["targets"] = [next(e[:2] for e in events if e[2] >= each) for each in moments]
        else:
            number = len(state["runs"])
            target = tuple((*state["targets"], ())[number])
            told = run(
                [*self.arguments, "-o", str(self.broken)],
                log,
                kill=(lambda *event: event == target) if target else None,
            )
            if number:
                self._compare(told)
            state["runs"].append(told.events)
            if target:
                left = sorted(path.name for path in self.broken.parent.iterdir())
                print(f"killed when frame {target[1]} was {target[0]}; there: {', '.join(left)}")
            else:
                self._finish()
        self.known.write_text(json.dumps(state))
        return len(state["runs"]) <= self.asked.kills

    def _compare(self, told: Run) -> None:
        """What a run did that was done before."""
        done = {tuple(event[:2]) for events in self.state["runs"] for event in events}
        again = {event[:2] for event in told.events} & done
        spent = told.until(done) - self.state["straight"][0][3]
        seconds = len(again) * self.asked.seconds / self._frames()
        self.state["most"] = max(self.state.get("most", 0.0), seconds)
        print(f"  next run: {seconds:.2f} s of the clip again, {spent:+.1f} CPU s", flush=True)

    def _frames(self) -> int:
        return 1 + max(event[1] for event in self.state["straight"])

    def _finish(self) -> None:
        wanted, found = content(self.whole), content(self.broken)
        print(
            f"{found[0]} frames after {self.asked.kills} kills,"
            f" {'the same' if found == wanted else 'OTHER'} frames and sound;"
            f" at most {self.state['most']:.2f} s made twice;"
            f" left: {os.listdir(self.broken.parent)}"
        )


def make_clip(path: Path, seconds: float) -> None:
    """The sample, again and again."""
    source = ("-stream_loop", "-1", "-i", str(SAMPLES / "driver.mp4"), "-t", str(seconds))
    small = ("-vf", "scale=128:128", "-c:v", "libx264", "-crf", "14", "-c:a", "aac")
    subprocess.run(
        [ffmpeg_binary(), "-nostdin", "-v", "error", *source, *small, str(path)], check=True
    )


if __name__ == "__main__":
    main()
