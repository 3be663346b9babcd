"""A clip in pieces: the same as one that was never broken, whatever broke in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.errors import FfmpegError
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.segments import Segments

Decode = Callable[[Path], list[tuple[Fraction, NDArray[np.uint8]]]]
NTSC = Fraction(30000, 1001)
FRAMES = 27


def pictures(start: int = 0, stop: int = FRAMES) -> Iterator[NDArray[np.uint8]]:
    for number in range(start, stop):
        rows, columns = np.mgrid[:64, :96]
        yield np.stack([rows * 2, columns * 2, np.full_like(rows, 9 * number)], -1).astype(np.uint8)


def pieces(folder: Path) -> Segments:
    folder.mkdir(exist_ok=True)
    return Segments(folder, length=8, rate=NTSC)


@pytest.mark.usefixtures("binary")
def test_broken_and_unbroken_are_the_same(tmp_path: Path, talking: Path, decode: Decode) -> None:
    whole, broken = pieces(tmp_path / "whole"), pieces(tmp_path / "broken")
    assert sum(whole.write(pictures(), first=0)) == FRAMES
    writing = broken.write(pictures(), first=0)
    for _ in range(19):
        next(writing)
    writing.close()  # in the third piece
    assert broken.closed() == 2
    assert sorted(path.name for path in broken.folder.iterdir()) == ["000000.mp4", "000001.mp4"]
    list(broken.write(pictures(16), first=2))
    results = []
    for segments in (whole, broken):
        output = segments.folder.with_suffix(".mp4")
        segments.join(output, frames=FRAMES, audio_from=talking, comment="made by AI")
        info = probe(output)
        assert (info.rate, info.start, info.frames) == (NTSC, 0, FRAMES)
        assert len(info.audio) == 2
        results.append(decode(output))
    assert [time for time, _ in results[0]] == [n / NTSC for n in range(FRAMES)]
    for (time, picture), (other_time, other) in zip(*results, strict=True):
        assert time == other_time
        np.testing.assert_array_equal(picture, other)
    assert abs(int(results[0][20][1][..., 2].mean()) - 180) < 8  # in order


@pytest.mark.usefixtures("binary")
def test_a_damaged_piece_is_made_again(tmp_path: Path) -> None:
    segments = pieces(tmp_path / "a")
    list(segments.write(pictures(), first=0))
    second = segments.path(1)
    second.write_bytes(second.read_bytes()[:300])
    assert segments.closed() == 1
    assert [path.name for path in segments.folder.iterdir()] == ["000000.mp4"]


def test_a_missing_piece_is_no_whole_clip(tmp_path: Path) -> None:
    segments = pieces(tmp_path / "a")
    list(segments.write(pictures(0, 8), first=0))
    with pytest.raises(FfmpegError, match="only 8 of 9 frames"):
        segments.join(tmp_path / "a.mp4", frames=9, audio_from=None, comment="")
    assert not (tmp_path / "a.mp4").exists()
