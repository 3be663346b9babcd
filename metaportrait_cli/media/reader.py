"""Frames of a video file, upright, as RGB, each with its exact time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import FfmpegError, MediaError, UsageError
from metaportrait_cli.media.animation import AnimatedImage, ImageFolder
from metaportrait_cli.media.arguments import PADDING, raw_bytes, raw_pixels, reader_arguments
from metaportrait_cli.media.binaries import ffmpeg_binary, has_filter
from metaportrait_cli.media.frames import Frame, FrameSource
from metaportrait_cli.media.given import Clip, GivenFrames
from metaportrait_cli.media.info import VideoInfo
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.process import ENDED_FROM_OUTSIDE, GRACE_SECONDS, Child
from metaportrait_cli.media.span import WHOLE, Span, Trimmed
from metaportrait_cli.media.stills import is_animation

__all__ = ["Frame", "FrameSource", "VideoReader", "open_frames"]

_SOUGHT_IN = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Kinds of file in which a seek arrives at the very frame."""
_CUT_SHORT = ("partial file", "ended prematurely")
"""What ffmpeg says of MP4 and Matroska files that break off."""


def open_frames(
    path: Path | Clip,
    *,
    folder_rate: Fraction = Fraction(25),
    max_side: int | None = None,
    span: Span = WHOLE,
    rough: bool = False,
) -> FrameSource:
    """Frames of a video file, an animated image, a folder of images of one size, or of a program.

    A folder is taken to show `folder_rate` images a second. `rough` colours, at three quarters of
    the time, are a few levels off, and blocky at their edges: enough to look for faces.

    Raises:
        MediaError: `path` can't be read as any of these.
        UsageError: `folder_rate` is not positive, or the span begins after the end.
    """
    if folder_rate <= 0:
        raise UsageError(f"a folder can't be read at {folder_rate} frames per second")
    if not span.whole:
        return _trimmed(path, span, folder_rate=folder_rate, max_side=max_side, rough=rough)
    if isinstance(path, Clip):
        return GivenFrames(path, max_side=max_side)
    if path.is_dir():
        return ImageFolder(path, rate=folder_rate, max_side=max_side)
    if is_animation(path):
        return AnimatedImage(path, max_side=max_side)
    return VideoReader(probe(path), max_side=max_side, rough=rough)


def _trimmed(path: Path | Clip, span: Span, **reading: Any) -> Trimmed:
    """The span's frames; of what can be sought in, those before it aren't decoded."""
    seconds = Fraction(0)
    if isinstance(path, Path) and path.suffix.lower() in _SOUGHT_IN and path.is_file():
        info = probe(path)
        first, _ = span.frames(info.rate)
        # Only at a constant rate is it known which frame a seek arrives at: the next one.
        if not info.variable_rate and first > 0:
            seconds = first / info.rate
            lead = info.start - info.clock_start  # ffmpeg counts from the earliest stream
            reader = VideoReader(
                info,
                max_side=reading["max_side"],
                rough=reading["rough"],
                start=seconds - 1 / (2 * info.rate) + lead,
            )
            return Trimmed(reader, span, skipped=seconds)
    return Trimmed(open_frames(path, **reading), span)


class VideoReader(FrameSource):
    """Frames of a video file, decoded by one ffmpeg that runs a few frames ahead at most.

    Every frame that decodes is delivered once, whatever its time; a file that breaks off ends
    early and leaves a `warning`. Iterating raises MediaError if no frame decodes at all, and
    FfmpegError if ffmpeg is missing or killed.
    """

    def __init__(
        self,
        info: VideoInfo,
        *,
        max_side: int | None = None,
        rough: bool = False,
        start: Fraction = Fraction(0),
    ) -> None:
        """`info` comes from `probe`; nothing is started before the first frame is asked for.

        Frames before `start` (seconds) are skipped by seeking; indices and times count from there.
        """
        super().__init__(info, max_side=max_side)
        self._stored = info
        self._rough = rough
        self._start_at = start
        self._pixels = raw_pixels(info, self.width, self.height, rough=rough)
        self._child: Child | None = None
        self._stream: av.container.InputContainer | None = None
        self._delivered = 0
        self._resized_at: int | None = None
        self._ended = False

    def begin(self) -> None:
        """See `FrameSource`; raises FfmpegError if ffmpeg is missing."""
        self._decoder()

    def __next__(self) -> Frame:
        if self._ended:
            raise StopIteration
        child = self._decoder()
        packet = self._next_packet(child)
        if packet is None:
            self._end(child)
            raise StopIteration
        image, alpha = self._image(np.frombuffer(memoryview(packet), np.uint8))
        index = self._delivered
        self._delivered += 1
        if self._resized_at is None and _is_padded(image):
            self._resized_at = index
        time = index / self.rate if packet.pts is None else packet.pts * packet.time_base
        return Frame(index, Fraction(time), image, alpha)

    def close(self) -> None:
        """Kill the child if it still decodes."""
        self._ended = True
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._child is not None:
            self._child.close()

    def _decoder(self) -> Child:
        """The ffmpeg, which ends with the thread that asks first."""
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> Child:
        binary = ffmpeg_binary()
        ordinary = self.info.transfer == "sdr" and self.info.primaries == "bt709"
        tone_map = not ordinary and has_filter(binary, "zscale")
        arguments = reader_arguments(
            self._stored,
            binary=binary,
            width=self.width,
            height=self.height,
            tone_map=tone_map,
            rough=self._rough,
            start=self._start_at,
        )
        return Child(arguments, collect=True)

    def _next_packet(self, child: Child) -> av.Packet | None:
        """One raw frame; None when the stream is over, or breaks off within a frame."""
        try:
            if self._stream is None:
                assert child.process.stdout is not None  # noqa: S101  # asked for in _start
                # By its number rather than as a Python file: PyAV swallows a Ctrl-C that
                # arrives while it calls back into Python.
                self._stream = av.open(
                    f"pipe:{child.process.stdout.fileno()}",
                    format="nut",
                    options={"probesize": "32", "analyzeduration": "0"},
                    metadata_errors="replace",
                )
            packet = next(self._stream.demux(video=0))
        except (av.FFmpegError, StopIteration):
            return None
        whole = packet.size == raw_bytes(self.width, self.height, self._pixels)
        return packet if whole else None

    def _image(self, raw: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """A raw frame's RGB (H, W, 3), and (H, W) where it has transparency; both copies."""
        if self._pixels == "yuv420p":
            planes = raw.reshape(self.height * 3 // 2, self.width)
            return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420), np.uint8), None
        pixels = raw.reshape(self.height, self.width, -1)
        if self._pixels == "rgb24":
            return pixels.copy(), None
        return np.ascontiguousarray(pixels[:, :, :3]), pixels[:, :, 3].copy()

    def _end(self, child: Child) -> None:
        self._ended = True
        status, message = child.wait(GRACE_SECONDS), child.message()
        path = self.info.path
        if status < 0:
            raise FfmpegError(
                f"reading {path}: ffmpeg was killed by signal {-status} after "
                f"{self._delivered} frames: is the machine out of memory?"
            )
        if status == ENDED_FROM_OUTSIDE:
            raise FfmpegError(
                f"reading {path}: ffmpeg was ended from outside after {self._delivered} frames:"
                " run it again"
            )
        if self._delivered == 0:
            raise MediaError(f"no frame of {path} can be decoded: {message or 'it is damaged'}")
        if self._resized_at is not None:
            self.warning = (
                f"{path}: the shape of its pictures changes at frame {self._resized_at};"
                f" what follows is fitted into {self.width}x{self.height}"
            )
        missing = (self.info.frames or 0) - self._delivered
        cut = any(sign in message for sign in _CUT_SHORT)
        if status != 0 or cut or (message and missing > 0):
            expected = f" of {self.info.frames}" if missing > 0 else ""
            self.warning = (
                f"{path} ends early: {self._delivered}{expected} frames could be read"
                + (f" ({message})" if message else "")
            )


def _is_padded(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W, C) has the reader's own bars at two edges."""
    corner = pixels[0, 0, :3]
    if tuple(corner) != PADDING:
        return False
    return bool((pixels[0, :, :3] == corner).all() or (pixels[:, 0, :3] == corner).all())
