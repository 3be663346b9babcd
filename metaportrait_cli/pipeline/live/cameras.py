"""Cameras of this machine, and what can stand in for one: files, streams, the standard input."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, MetaPortraitError
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.native import native_stderr_closed
from metaportrait_cli.pipeline.live.newest import Newest
from metaportrait_cli.pipeline.live.stage import Shot

Image = NDArray[np.uint8]

SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "rtmp://", "udp://", "tcp://")
MOST_PIXELS = 720
"""Longer side of a frame that is looked at; the face needs no more."""


def frames_of(camera: str) -> Iterator[Image]:
    """RGB frames as they come: of a camera by its number, a file (again and again, at its own
    rate), a stream by its address, or `-`, a clip on the standard input.

    Raises `MediaError` at once for what can't be opened, and `FfmpegError` for a file without it.
    """
    if camera.isdecimal():
        return _device(int(camera))
    if camera == "-":
        return _piped()
    if camera.startswith(SCHEMES):
        return _stream(camera, camera)
    path = Path(camera)
    if not path.exists():
        raise MediaError(
            f"`camera` {camera}: neither a camera's number, a file, nor an address such as rtsp://…"
        )
    return _file(path)


class CameraThread(threading.Thread):
    """Puts a camera's frames where the newest one wins, until it ends or is stopped."""

    def __init__(self, camera: str, inbox: Newest[Shot]) -> None:
        super().__init__(name="camera", daemon=True)
        self._frames = frames_of(camera)
        self._inbox = inbox
        self._stopped = threading.Event()
        self.error: str | None = None

    def run(self) -> None:
        """Until the camera gives no more frames."""
        try:
            for frame in self._frames:
                if self._stopped.is_set():
                    return
                self._inbox.put(Shot(_limited(frame)))
            self.error = "the camera has ended"
        except (MetaPortraitError, av.FFmpegError, OSError) as error:
            self.error = str(error)

    def stop(self) -> None:
        """Takes effect with the next frame."""
        self._stopped.set()


def _device(number: int) -> Iterator[Image]:
    with native_stderr_closed():  # OpenCV tells there of all that it tries
        camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        raise MediaError(f"`camera` {number}: no such camera, or another program has it")
    return _frames(camera)


def _frames(camera: cv2.VideoCapture) -> Iterator[Image]:
    try:
        while True:
            there, frame = camera.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        camera.release()


def _piped() -> Iterator[Image]:
    # Opened when it is read: there may be nothing in it yet.
    yield from _stream(sys.stdin.buffer, "the standard input")


def _stream(source: Any, name: str) -> Iterator[Image]:
    try:
        container = av.open(source, timeout=10.0)
    except av.FFmpegError as error:
        raise MediaError(f"`camera`: {name} can't be opened: {error}") from None
    if not container.streams.video:
        container.close()
        raise MediaError(f"`camera`: {name} has no pictures")
    return _decoded(container)


def _decoded(container: InputContainer) -> Iterator[Image]:
    with container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _file(path: Path) -> Iterator[Image]:
    with open_frames(path) as frames:
        frames.begin()
    return _repeated(path)


def _repeated(path: Path) -> Iterator[Image]:
    while True:
        began = time.monotonic()
        with open_frames(path) as frames:
            for frame in frames:
                time.sleep(max(0.0, began + float(frame.time) - time.monotonic()))
                yield frame.image
            time.sleep(float(1 / frames.rate))  # the last one stands as long as others


def _limited(frame: Image) -> Image:
    scale = MOST_PIXELS / max(frame.shape[:2])
    if scale >= 1:
        return frame
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
