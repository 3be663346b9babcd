"""The threads between a camera and those who watch: one looks at the newest frame while another
draws the one before, and a third makes files of pictures."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.pipeline.live.newest import Newest
from metaportrait_cli.pipeline.live.performer import Performer, Posed
from metaportrait_cli.pipeline.live.recording import Recorder
from metaportrait_cli.stages import prefetched

Image = NDArray[np.uint8]

QUALITY = 88
LONGEST_PAUSE = 1.0
"""Seconds between two frames that count as passed, at most: filters don't know of longer ones."""
COUNTED_SECONDS = 2.0


@dataclass(frozen=True)
class Shot:
    """A camera's frame: RGB (H, W, 3), or a file's bytes as a browser sends it."""

    frame: Image | bytes
    stamp: bytes = b""
    """Whatever the sender wants to know the picture by."""


@dataclass(frozen=True)
class Looked:
    """What a frame shows, with its stamp, and when work on it began."""

    posed: Posed
    stamp: bytes
    began: float


@dataclass(frozen=True)
class Shown:
    """A picture as a JPEG file, with its frame's stamp."""

    jpeg: bytes
    stamp: bytes


class Stage(threading.Thread):
    """Takes the newest frame, shows a picture; frames that come meanwhile are left out."""

    def __init__(
        self,
        make_performer: Callable[[], Performer],
        publish: Callable[[Shown], None],
        *,
        size: int,
    ) -> None:
        """`publish` is called on this thread."""
        super().__init__(name="stage", daemon=True)
        self.inbox: Newest[Shot] = Newest()
        self._make_performer = make_performer
        self._publish = publish
        self._orders: deque[Callable[[Performer], None]] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._taking_tasks = threading.Lock()
        self._ended = False
        self._recorder = Recorder(size=size)
        self._times: deque[float] = deque()
        self._spent = 0.0
        self._state = "waiting for the camera"
        self.error: BaseException | None = None

    def order(self, what: Callable[[Performer], None]) -> None:
        """To be done with the performer before its next frame."""
        self._orders.append(what)

    def start_recording(self, path: Path) -> None:
        """From the next picture on, unless one is under way."""
        self._do(lambda: self._recorder.begin(path))

    def stop_recording(self, when_done: Callable[[Path | str], None]) -> None:
        """Calls back, from any thread, with the file or with why there is none."""
        self._do(lambda: when_done(self._recorder.end()))

    def status(self) -> dict[str, object]:
        """For those who watch: pictures a second, milliseconds for one, frames left out."""
        now = time.monotonic()
        recent = [moment for moment in list(self._times) if now - moment < COUNTED_SECONDS]
        return {
            "fps": round(len(recent) / COUNTED_SECONDS, 1),
            "ms": round(1000 * self._spent, 1),
            "dropped": self.inbox.dropped,
            "state": self._state,
            "recording": self._recorder.active,
        }

    def run(self) -> None:
        """Until the inbox is closed."""
        try:
            performer = self._make_performer()
            try:
                self._perform(performer)
            finally:
                performer.close()
        except BaseException as error:  # noqa: BLE001  told by whoever asks for the status
            self.error = error
            self._state = f"stopped: {error}"
        finally:
            with self._taking_tasks:
                self._ended = True
            for task in self._tasks:  # somebody waits for a recording
                task()
            self._recorder.give_up()

    def stop(self) -> None:
        """Ends the thread after the frame it is at."""
        self.inbox.close()
        self.join()

    def _do(self, task: Callable[[], None]) -> None:
        """On this thread between two pictures, or at once where it has ended."""
        with self._taking_tasks:
            if not self._ended:
                self._tasks.append(task)
                return
        task()

    def _perform(self, performer: Performer) -> None:
        with (
            closing(prefetched(self._looked(performer), depth=1)) as looked,
            closing(prefetched(_drawn(performer, looked), depth=1)) as pictures,
        ):
            for drawn in pictures:
                while self._tasks:
                    self._tasks.popleft()()
                if drawn is None:
                    continue
                picture, frame = drawn
                self._recorder.add(picture, frame.began)
                self._publish(Shown(encoded(picture), frame.stamp))
                self._count(frame.began)
                self._state = _state(performer)

    def _looked(self, performer: Performer) -> Generator[Looked | None, None, None]:
        """What the newest frames show; `None` now and then where there are none."""
        last = time.monotonic()
        while not self.inbox.closed:
            shot = self.inbox.take(0.2)
            while self._orders:
                self._orders.popleft()(performer)
            if shot is None:
                yield None
                continue
            began = time.monotonic()
            frame = shot.frame if isinstance(shot.frame, np.ndarray) else decoded(shot.frame)
            if frame is not None:
                posed = performer.look(frame, min(began - last, LONGEST_PAUSE))
                last = began
                yield Looked(posed, shot.stamp, began)

    def _count(self, began: float) -> None:
        now = time.monotonic()
        self._spent += 0.1 * (now - began - self._spent)
        self._times.append(now)
        while now - self._times[0] > COUNTED_SECONDS:
            self._times.popleft()


def _drawn(
    performer: Performer, looked: Iterable[Looked | None]
) -> Generator[tuple[Image, Looked] | None, None, None]:
    for frame in looked:
        yield None if frame is None else (performer.draw(frame.posed), frame)


def _state(performer: Performer) -> str:
    if not performer.face_seen:
        return "no face"
    return "look straight, at rest" if performer.waiting else "live"


def decoded(file: bytes) -> Image | None:
    """An RGB picture (H, W, 3) of a file's bytes; `None` for what is none."""
    data = np.frombuffer(file, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def encoded(picture: Image) -> bytes:
    """The RGB picture as a JPEG file."""
    swapped = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
