"""Parts of clips: the very frames, and the sound that belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.given import Clip
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.span import Span, Trimmed

NTSC = Fraction(30000, 1001)
SOURCE = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30000/1001:d=3")
SOUND = ("-f", "lavfi", "-t", "3", "-i", "sine=f=440:r=48000")
H264 = ("-c:v", "libx264", "-preset", "fast", "-bf", "3", "-g", "40", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("span.mp4", (*SOURCE, *SOUND, *H264, "-c:a", "aac")),
        ("span.mkv", (*SOURCE, *SOUND, *H264, "-c:a", "aac")),
        ("late.mp4", ("-itsoffset", "0.4", *SOURCE, *SOUND, *H264, "-c:a", "aac")),
        ("span.webm", (*SOURCE, "-c:v", "libvpx", "-deadline", "realtime")),
        ("span.ts", (*SOURCE, *H264)),
        ("span.gif", ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=3")),
    ],
)
def test_a_span_has_the_clips_own_frames(
    make_clip: Callable[..., Path], name: str, arguments: tuple[str, ...]
) -> None:
    path = make_clip(name, *arguments)
    with open_frames(path) as frames:
        whole, rate = list(frames), frames.rate
    with open_frames(path, span=Span.of(1.25, 2.0)) as frames:
        assert isinstance(frames, Trimmed)
        part, expected = list(frames), frames.info.frames
        begins = frames.begins
    first, stop = round(Fraction("1.25") * rate), round(2 * rate)
    assert begins == pytest.approx(first / rate, abs=1e-3)
    assert len(part) == stop - first == expected
    assert [frame.index for frame in part] == list(range(len(part)))
    for frame, original in zip(part, whole[first:stop], strict=True):
        np.testing.assert_array_equal(frame.image, original.image)
        assert frame.time == pytest.approx(original.time - whole[first].time, abs=1e-3)


def test_uneven_times_are_kept(uneven: Path) -> None:
    with open_frames(uneven) as frames:
        whole = [frame for frame in frames if 0.5 <= frame.time < 1.5]
    with open_frames(uneven, span=Span.of(0.5, 1.5)) as frames:
        part = list(frames)
        assert isinstance(frames, Trimmed)
    middle = [
        frame for frame in part if frame.image.tobytes() in {w.image.tobytes() for w in whole}
    ]
    assert len(part) - len(middle) <= 1  # the nearest to the start counts
    gaps = np.diff([float(frame.time) for frame in part[1:-1]])
    assert np.ptp(gaps) > 0.02


def test_spans_beyond_the_end_and_of_nothing(plain: Path) -> None:
    for start in (0.79, 0.8, 50):  # 20 frames: the last is the nearest to 0.76
        with pytest.raises(UsageError, match="beyond its end"):  # noqa: SIM117
            with open_frames(plain, span=Span.of(start, None)) as frames:
                next(frames)
    clip = Clip([np.zeros((8, 8, 3), np.uint8)] * 5)
    with pytest.raises(UsageError, match="beyond its end"):
        open_frames(clip, span=Span.of(3, None))
    with open_frames(clip, span=Span.of(0.1, 9)) as frames:
        assert len(list(frames)) == 2  # from 0.12 on
    for start, end, words in (
        (-1, None, "start"),
        (2, 2, "end"),
        (float("nan"), None, "in seconds"),
    ):
        with pytest.raises(UsageError, match=words):
            Span.of(start, end)
