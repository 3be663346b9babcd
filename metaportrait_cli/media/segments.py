"""Finished pieces of a clip that is being made, and the clip that they become.

A piece is a closed file of whole groups of pictures: what is in it doesn't depend on what follows,
so that a run that goes on after another makes the same clip as one that was never broken.
"""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.arguments import address, mux_arguments
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.media.encoding import USUAL, Encoding
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.process import run
from metaportrait_cli.media.writer import Seal, VideoWriter, check_whole, packets_in, sound_of

SUFFIX = ".mp4"
"""Of pieces: exact times, and the codecs that a clip of any kind may be joined from."""
PIECE_CODECS = {"h264", "h265"}
_JOINED = "joined.mp4"
_NOTE = ".npz"


@dataclass(frozen=True)
class Segments:
    """Pieces of `length` pictures each, the last of fewer, numbered in a folder."""

    folder: Path
    length: int
    rate: Fraction
    noted: bool = False
    """Whether a piece after the first can be gone on with only where there is a note of it"""

    def path(self, number: int) -> Path:
        """Of a piece, from 0."""
        return self.folder / f"{number:06}{SUFFIX}"

    def hold(self, encoding: Encoding, output: Path) -> bool:
        """Whether a file of this kind can be joined of pieces."""
        return encoding.resolved(output)[0] in PIECE_CODECS

    def closed(self) -> int:
        """How many whole pieces there are; what is damaged, and what follows it, is removed."""
        number = 0
        while self.path(number).is_file() and packets_in(self.path(number)) == self.length:
            number += 1
        while self.noted and number and self.note(number) is None:
            number -= 1
        for path in self.folder.glob(f"*{SUFFIX}"):
            if not path.stem.isdecimal() or int(path.stem) >= number:
                path.unlink()
        return number

    def note(self, number: int) -> dict[str, NDArray[np.generic]] | None:
        """What it takes to go on with a piece, if that is known."""
        try:
            with np.load(self.folder / f"{number:06}{_NOTE}", allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def leave(self, number: int, note: Mapping[str, Any]) -> None:
        """Keeps a note for whoever goes on with a piece."""
        with atomic_output(self.folder / f"{number:06}{_NOTE}") as partial:
            np.savez(partial, **note)

    def write(
        self, pictures: Iterable[NDArray[np.uint8]], *, first: int, encoding: Encoding = USUAL
    ) -> Generator[int, None, None]:
        """Writes pictures (H, W, 3) from piece number `first` on; yields 1 after each of them."""
        pictures = iter(pictures)
        number = first
        for picture in pictures:
            height, width = picture.shape[:2]
            with VideoWriter(
                self.path(number), width=width, height=height, rate=self.rate, encoding=encoding
            ) as writer:
                piece = chain([picture], islice(pictures, self.length - 1))
                del picture  # it may be large, and each next one takes its time
                for each in piece:
                    writer.write(each)
                    del each
                    yield 1
            number += 1

    def join(
        self,
        output: Path,
        *,
        frames: int,
        audio_from: Path | None,
        audio_offset: Fraction = Fraction(0),
        comment: str,
        seal: Seal | None = None,
    ) -> None:
        """Makes all pieces the clip `output`, of so many frames, with the sound of another
        moved as by `VideoWriter`.

        Raises `FfmpegError` if it doesn't come out whole; the pieces stay in any case.
        """
        pieces = [self.path(number) for number in range(-(-frames // self.length))]
        length = frames / self.rate
        joined = self.folder / _JOINED
        _join([piece for piece in pieces if piece.exists()], joined, shift=self.length / self.rate)
        with atomic_output(output) as partial:
            arguments = mux_arguments(
                partial,
                binary=ffmpeg_binary(),
                video=joined,
                audio=sound_of(audio_from, audio_offset, length),
                length=length,
                comment=comment,
            )
            run(arguments, task=f"writing {output}")
            check_whole(partial, frames, task=f"writing {output}")
            if seal is not None:
                seal(partial)


def _join(pieces: Sequence[Path], output: Path, *, shift: Fraction) -> None:
    """The pictures of all pieces in one file, each piece `shift` seconds after the one before."""
    with av.open(address(output), "w") as joined:
        stream = None
        for number, piece in enumerate(pieces):
            with av.open(address(piece)) as source:
                video = source.streams.video[0]
                stream = stream or joined.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:  # the end
                        continue
                    ticks = round(number * shift / packet.time_base)
                    packet.pts += ticks
                    packet.dts += ticks
                    packet.stream = stream
                    joined.mux(packet)
