"""Video from RGB frames, with the sound of another clip beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import FfmpegError, MediaError, UsageError
from metaportrait_cli.media.arguments import (
    Audio,
    address,
    can_be_named,
    mux_arguments,
    writer_arguments,
)
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.media.encoding import USUAL, Encoding, muxer_for, suffixes
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.process import Child, failure, run

Seal = Callable[[Path], None]
"""Does the last thing to a finished file, in place, before it appears."""

_GIF = ".gif"
MOST_GIF_RATE = 50
"""Beyond, browsers show a picture for a tenth of a second."""
_LARGEST_RATIO = 1_000_000
"""ffmpeg rounds rates with larger terms."""


class VideoWriter:
    """Encodes frames at a constant rate; the file appears when the `with` block ends well.

    Sound runs as it does in `audio_from`: all its tracks, in sync with its picture, ended with
    the written video and never shortening it. Odd sizes are made even by repeating the last
    column or row. If the block raises, nothing is left behind.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        rate: Fraction,
        audio_from: Path | None = None,
        audio_offset: Fraction = Fraction(0),
        duration: Fraction | None = None,
        encoding: Encoding = USUAL,
        comment: str = "",
        seal: Seal | None = None,
    ) -> None:
        """Check everything that can be checked before the first frame.

        `width` and `height` in pixels, `rate` in frames per second. `audio_offset` moves the
        sound by so many seconds against the first picture of `audio_from` (positive = later):
        a result that begins at second 10 of the clip takes -10. `duration` is the expected
        length in seconds; where it proves wrong, the sound is muxed once more at the end. An
        `audio_from` without sound is no error. A GIF has no sound. `comment` is stored
        as the file's comment. `seal` has the last word on the finished file.

        Raises:
            UsageError: a suffix of another kind, or what the kind can't hold.
            MediaError: `audio_from` can't be read.
            FfmpegError: there is no ffmpeg.
        """
        check_video_name(path, encoding)
        if width < 1 or height < 1 or rate <= 0:
            raise UsageError(f"{path}: can't write {width}x{height} at {rate} frames per second")
        self._path = path
        self._shape = (height, width, 3)
        self._rate = _within_limits(rate)
        self._encoding, self._comment = encoding, comment
        self._seal = seal
        self._binary = ffmpeg_binary()
        check_rate(path, rate)
        silent = path.suffix.lower() == _GIF
        self._audio = None if silent else sound_of(audio_from, audio_offset, duration)
        self._even: NDArray[np.uint8] | None = None
        if width % 2 or height % 2:
            self._even = np.empty((height + height % 2, width + width % 2, 3), np.uint8)
        self._written = 0
        self._resources = ExitStack()
        self._partial: Path | None = None
        self._child: Child | None = None

    def __enter__(self) -> Self:
        """Start the encoder; raises UsageError if the folder of the output can't take it."""
        with ExitStack() as starting:
            self._partial = starting.enter_context(atomic_output(self._path))
            height, width = self._shape[:2] if self._even is None else self._even.shape[:2]
            arguments = writer_arguments(
                self._partial,
                binary=self._binary,
                width=width,
                height=height,
                rate=self._rate,
                audio=self._audio,
                encoding=self._encoding,
                comment=self._comment,
            )
            self._child = starting.enter_context(Child(arguments, feed=True))
            self._resources = starting.pop_all()
        return self

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append one (H, W, 3) RGB frame in [0, 255].

        Raises:
            FfmpegError: the encoder failed, or the disk is full.
            ValueError: another shape or type, or no `with` block around it.
        """
        if self._child is None or self._child.process.stdin is None:
            raise ValueError("write() needs a `with` block around the writer")
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(
                f"a frame is {image.dtype} {image.shape}, expected uint8 {self._shape}"
            )
        try:
            self._child.process.stdin.write(self._padded(image).data.cast("B"))
        except BrokenPipeError as error:
            raise self._failure(self._child) from error
        self._written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._resources as resources:
            if error is not None:
                # Hands the error to atomic_output, which then removes the partial file.
                resources.__exit__(kind, error, trace)
                return
            self._finish()

    def _finish(self) -> None:
        child, partial = self._child, self._partial
        if child is None or partial is None:
            return
        if child.wait() != 0:
            raise self._failure(child)
        if self._written == 0:
            raise MediaError(f"{self._path} is not written: there are no frames")
        length = self._written / self._rate
        audio = self._audio
        if audio is not None and (audio.duration != length or audio.delay > 0):
            self._mux_again(partial, audio, length)
        check_whole(partial, self._written, task=f"writing {self._path}")
        if self._seal is not None:
            self._seal(partial)

    def _mux_again(self, partial: Path, audio: Audio, length: Fraction) -> None:
        """Replace the sound by one that ends with the picture, now that its length is known."""
        with atomic_output(partial) as again:
            arguments = mux_arguments(
                again,
                binary=self._binary,
                video=partial,
                audio=audio,
                length=length,
                comment=self._comment,
            )
            run(arguments, task=f"writing {self._path}")

    def _padded(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._even is None:
            return np.ascontiguousarray(image)
        height, width = self._shape[:2]
        self._even[:height, :width] = image
        self._even[:height, width:] = image[:, -1:]
        self._even[height:] = self._even[height - 1 : height]
        return self._even

    def _failure(self, child: Child) -> FfmpegError:
        return failure(child, child.wait(), task=f"writing {self._path}")


def check_video_name(path: Path, encoding: Encoding = USUAL, *, or_folder: bool = True) -> None:
    """Make sure that a video can be written under this name, before any work is done for it.

    `or_folder`: a folder of pictures could be asked for in its place.

    Raises:
        UsageError: a suffix of another kind, another codec than it holds, or a name not in UTF-8.
    """
    if encoding.in_folder and path.suffix.lower() in {*suffixes(), ".png", ".jpg", ".jpeg"}:
        raise UsageError(f"{path}: with `codec` png the output is a folder: give a folder's name")
    if not encoding.in_folder and muxer_for(path) is None:
        else_folder = "; `codec` png gives a folder of pictures" if or_folder else ""
        raise UsageError(
            f"{path}: videos are written as {', '.join(suffixes())}: choose one of them"
            f"{else_folder}"
        )
    if not can_be_named(path):
        raise UsageError(f"{str(path)!r} is not UTF-8: choose another name for the output")
    try:
        encoding.resolved(path)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def check_rate(path: Path, rate: Fraction) -> None:
    """Make sure that a video under this name can show so many frames a second, before any work is
    done for it. Raises `UsageError`."""
    if path.suffix.lower() == _GIF and rate > MOST_GIF_RATE:
        raise UsageError(
            f"{path}: a GIF shows at most {MOST_GIF_RATE} of {float(rate):.0f} frames a second:"
            " write a .mp4 or .webm"
        )


def packets_in(path: Path) -> int:
    """How many pictures a video holds, none if it can't be read."""
    try:
        with av.open(address(path), metadata_errors="replace") as container:
            packets = container.demux(video=0)
            return sum(packet.size > 0 and not packet.is_corrupt for packet in packets)
    except (av.FFmpegError, IndexError):
        return 0


def check_whole(path: Path, frames: int, *, task: str) -> None:
    """Count what arrived: ffmpeg ends with status 0 although its last bytes found no space.

    Raises:
        FfmpegError: it is not so many frames; the line begins with `task`.
    """
    whole = packets_in(path)
    if whole != frames:
        raise FfmpegError(f"{task}: only {whole} of {frames} frames arrived; is the disk full?")


def sound_of(path: Path | None, offset: Fraction, duration: Fraction | None) -> Audio | None:
    """What is put beside a video: all sound tracks of `path` that can be decoded.

    Raises:
        MediaError: it can't be read.
    """
    if path is None:
        return None
    info = probe(path)
    tracks = tuple(track for track in info.audio if track.codec != "unknown")
    if not tracks:
        return None
    # ffmpeg counts from the earliest stream of a file, our video from its first picture.
    delay = offset - (info.start - info.clock_start)
    return Audio(path=path, tracks=tracks, delay=delay, duration=duration)


def _within_limits(rate: Fraction) -> Fraction:
    if rate.numerator <= _LARGEST_RATIO and rate.denominator <= _LARGEST_RATIO:
        return rate
    return rate.limit_denominator(1001)
