"""Every frame once, upright, in the right colours, at its exact time."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import FfmpegError, MediaError, UsageError
from metaportrait_cli.media import reader
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.reader import Frame, VideoReader, open_frames
from metaportrait_cli.media.span import WHOLE, Span

MakeClip = Callable[..., Path]
Decode = Callable[[Path], list[tuple[Fraction, NDArray[np.uint8]]]]
LOSSLESS = ("-c:v", "libx264rgb", "-preset", "ultrafast", "-qp", "0")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def frames_of(path: Path, *, max_side: int | None = None) -> list[Frame]:
    with open_frames(path, max_side=max_side) as source:
        return list(source)


def flat(colour: str, **more: str) -> tuple[str, ...]:
    options = "".join(f":{key}={value}" for key, value in more.items())
    return ("-f", "lavfi", "-i", f"color=c={colour}:s=96x64:r=25:d=0.2{options}")


def distance(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int(np.abs(image.astype(int) - colour).max())


@pytest.mark.usefixtures("binary")
def test_frames_and_times(talking: Path, decode: Decode) -> None:
    expected = decode(talking)
    found = frames_of(talking)
    assert [frame.index for frame in found] == list(range(30))
    assert [frame.time for frame in found] == [time for time, _ in expected]
    assert found[1].time == Fraction(1001, 30000)
    for frame, (_, image) in zip(found, expected, strict=True):
        assert frame.image.shape == (64, 96, 3)
        assert frame.image.flags.c_contiguous
        assert np.abs(frame.image.astype(int) - image).mean() < 10  # chroma is enlarged otherwise


@pytest.mark.usefixtures("binary")
def test_uneven_times_are_kept(uneven: Path, decode: Decode) -> None:
    expected = [time for time, _ in decode(uneven)]
    assert len(expected) == 40
    assert [frame.time for frame in frames_of(uneven)] == [t - expected[0] for t in expected]


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_phone_held_upright(make_clip: MakeClip, tmp_path: Path, turn: int) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = (250, 20, 20)
    picture[32:, 48:] = (20, 20, 250)
    Image.fromarray(picture).save(tmp_path / "a.png")
    coded = make_clip("coded.mp4", "-i", tmp_path / "a.png", *H264)
    rotated = tmp_path / "rotated.mp4"
    turned = _rotated(coded.read_bytes(), turn)
    rotated.write_bytes(turned)

    info = probe(rotated)
    assert info.rotation == turn
    assert (info.width, info.height) == ((96, 64) if turn == 180 else (64, 96))
    (frame,) = frames_of(rotated)
    assert distance(frame.image, (0, 0, 0)) > 200
    difference = frame.image.astype(int) - np.rot90(picture, turn // 90)
    assert np.abs(difference).mean() < 12


def _rotated(content: bytes, turn: int) -> bytes:
    """An MP4 with the display matrix of its video track turned, as cameras write it.

    The matrix is the nine numbers in the track header; options of ffmpeg for it differ between
    versions.
    """
    one, none, last = 0x10000, 0, 0x40000000
    a, b = {90: (none, -one), 180: (-one, none), 270: (none, one)}[turn]
    matrix = [a, b, none, -b, a, none, none, none, last]
    start = content.index(b"tkhd") + 4 + 40
    encoded = b"".join(value.to_bytes(4, signed=True) for value in matrix)
    return content[:start] + encoded + content[start + 36 :]


@pytest.mark.usefixtures("binary")
def test_pixels_become_square(make_clip: MakeClip) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:d=0.2", "-vf", "setsar=4/3")
    assert frames_of(make_clip("wide.mp4", *source, *H264))[0].image.shape == (64, 128, 3)


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_the_stream_says_its_colours(make_clip: MakeClip, matrix: str) -> None:
    path = make_clip(
        f"{matrix}.mp4",
        *flat("0xC81E0A"),
        *("-vf", f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv444p"),
        *("-c:v", "libx264", "-colorspace", matrix),
    )
    assert not probe(path).untagged
    assert distance(frames_of(path)[0].image, (0xC8, 0x1E, 0x0A)) <= 3


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("span", [WHOLE, Span(start=Fraction(1, 10))])
def test_a_clip_that_has_begun_to_decode_is_the_same(make_clip: MakeClip, span: Span) -> None:
    path = make_clip("begun.mp4", "-f", "lavfi", "-i", "testsrc2=s=96x64:d=0.4", *H264)
    with open_frames(path, span=span) as source:
        source.begin()
        begun = list(source)
    with open_frames(path, span=span) as source:
        plain = list(source)
    assert [frame.time for frame in begun] == [frame.time for frame in plain]
    for one, other in zip(begun, plain, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    with open_frames(path) as source:
        source.begin()  # and it is left before a frame is asked for


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize("size", ["96x64", "97x63"])
def test_rough_colours_are_nearly_the_right_ones(
    make_clip: MakeClip, size: str, levels: str
) -> None:
    path = make_clip(
        f"skin{size}{levels}.mp4",
        *("-f", "lavfi", "-i", f"color=c=0xC89682:s={size}:r=25:d=0.2"),
        *("-vf", f"scale=out_color_matrix=bt709:out_range={levels},format=yuv444p"),
        *("-c:v", "libx264", "-colorspace", "bt709", "-color_range", levels),
    )
    with open_frames(path, rough=True) as source:
        rough = list(source)
    exact = frames_of(path)
    assert [frame.time for frame in rough] == [frame.time for frame in exact]
    assert rough[0].image.shape == exact[0].image.shape
    assert distance(rough[0].image, (0xC8, 0x96, 0x82)) <= 8


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(("size", "matrix"), [("96x64", "bt601"), ("1280x720", "bt709")])
def test_untagged_colours(make_clip: MakeClip, size: str, matrix: str) -> None:
    path = make_clip(
        f"untagged{size}.mp4",
        *("-f", "lavfi", "-i", f"color=c=0xC81E0A:s={size}:r=25:d=0.08"),
        *(
            "-vf",
            f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv444p,setparams=colorspace=unknown",
        ),
        *("-c:v", "libx264", "-preset", "ultrafast"),
    )
    assert probe(path).untagged
    assert distance(frames_of(path)[0].image, (0xC8, 0x1E, 0x0A)) <= 3


@pytest.mark.usefixtures("binary")
def test_ten_bits(make_clip: MakeClip) -> None:
    path = make_clip(
        "ten.mp4",
        *flat("0xC81E0A"),
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p10le"),
        *("-c:v", "libx265", "-x265-params", "log-level=none", "-colorspace", "bt709"),
    )
    assert probe(path).bit_depth == 10
    assert distance(frames_of(path)[0].image, (0xC8, 0x1E, 0x0A)) <= 3


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_high_dynamic_range(make_clip: MakeClip, transfer: str) -> None:
    path = make_clip(
        f"{transfer}.mp4",
        *flat("0x808080"),
        *("-vf", "format=yuv420p10le", "-c:v", "libx265", "-x265-params"),
        f"log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer={transfer}",
    )
    assert probe(path).transfer == {"arib-std-b67": "hlg", "smpte2084": "pq"}[transfer]
    image = frames_of(path)[0].image
    assert np.ptp(image[30, 40].astype(int)) <= 3
    assert 20 < image.mean() < 235


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("kind", ["prores", "vp9"])
def test_alpha(make_clip: MakeClip, kind: str) -> None:
    fade = ("-vf", "format=rgba,geq=r=200:g=30:b=10:a=255*gt(X\\,47)")
    if kind == "prores":
        name, codec = "alpha.mov", ("-c:v", "prores_ks", "-profile:v", "4444")
        codec = (*codec, "-pix_fmt", "yuva444p10le")
    else:
        name, codec = "alpha.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
    path = make_clip(name, *flat("white"), *fade, *codec)
    assert probe(path).has_alpha
    frames = frames_of(path)
    assert len(frames) == 5
    alpha = frames[0].alpha
    assert alpha is not None
    assert alpha.shape == (64, 96)
    assert alpha[:, :40].max() < 10
    assert alpha[:, 60:].min() > 245
    assert frames[0].image.shape == (64, 96, 3)


@pytest.mark.usefixtures("binary")
def test_names_that_shells_dislike(tmp_path: Path, plain: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i.mp4", "a b'\"$HOME`.mp4", "日本語.mp4", "http:x.mp4", "%03d.mp4", "a\nb.mp4"):
        Path(name).write_bytes(plain.read_bytes())
        assert len(frames_of(Path(name))) == 20


@pytest.mark.usefixtures("binary")
def test_one_frame_and_odd_size(make_clip: MakeClip) -> None:
    one = ("-f", "lavfi", "-i", "testsrc=s=97x63:r=25", "-frames:v", "1")
    path = make_clip("one.mp4", *one, *LOSSLESS)
    (frame,) = frames_of(path)
    assert (frame.index, frame.time, frame.image.shape) == (0, 0, (63, 97, 3))


@pytest.mark.usefixtures("binary")
def test_max_side(plain: Path) -> None:
    with VideoReader(probe(plain), max_side=48) as source:
        assert (source.width, source.height) == (48, 32)
        assert {frame.image.shape for frame in source} == {(32, 48, 3)}


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_that_breaks_off(make_clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", *H264, "-g", "5")
    fast = ("-movflags", "+faststart") if suffix == "mp4" else ()
    whole = make_clip(f"long.{suffix}", *source, *fast)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_frames(path) as source:
        count = len(list(source))
    assert 10 < count < 50
    assert source.warning is not None
    assert "ends early" in source.warning
    assert "\n" not in source.warning


@pytest.mark.usefixtures("binary")
def test_a_whole_clip_has_no_warning(plain: Path) -> None:
    with open_frames(plain) as source:
        assert len(list(source)) == 20
    assert source.warning is None


@pytest.mark.usefixtures("binary")
def test_a_clip_that_vanishes(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(plain.read_bytes())
    info = probe(path)
    path.unlink()
    with VideoReader(info) as source, pytest.raises(MediaError, match="no frame") as caught:
        next(source)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("binary")
def test_leaving_early_ends_the_child(make_clip: MakeClip) -> None:
    long = ("-f", "lavfi", "-i", "testsrc2=s=640x480:r=25:d=4", *H264)
    open_before = len(os.listdir("/proc/self/fd"))
    with open_frames(make_clip("large.mp4", *long)) as source:
        assert isinstance(source, VideoReader)
        next(source)
        assert source._child is not None
        child = source._child.process
        assert child.poll() is None  # held back by the full pipe: it doesn't run ahead
    assert child.poll() is not None
    assert list(source) == []
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.usefixtures("binary")
def test_a_killed_child_is_not_an_end(make_clip: MakeClip) -> None:
    long = ("-f", "lavfi", "-i", "testsrc2=s=640x480:r=25:d=4", *H264)
    with VideoReader(probe(make_clip("large.mp4", *long))) as source:
        next(source)
        assert source._child is not None
        source._child.process.kill()
        with pytest.raises(FfmpegError, match="killed by signal 9"):
            list(source)


def test_a_missing_binary(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "ffmpeg_binary", lambda: "/nowhere/ffmpeg")
    with pytest.raises(FfmpegError, match="can't be run"):
        frames_of(plain)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animated_image(tmp_path: Path, suffix: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (36, 24), colour) for colour in colours]
    path = tmp_path / f"a.{suffix}"
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[100, 40, 60], lossless=True
    )
    frames = frames_of(path)
    assert [frame.time for frame in frames] == [0, Fraction(1, 10), Fraction(7, 50)]
    assert [distance(f.image, c) for f, c in zip(frames, colours, strict=True)] == [0, 0, 0]
    assert frames_of(path, max_side=12)[2].image.shape == (8, 12, 3)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.new("RGB", (36, 24), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    with open_frames(tmp_path, folder_rate=Fraction(30000, 1001)) as source:
        frames = list(source)
        assert (source.width, source.height, source.frames) == (36, 24, 3)
        assert source.rate == source.info.rate == Fraction(30000, 1001)
        assert source.audio == ()
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert frames[2].time == Fraction(1001, 15000)


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no images"):
        open_frames(tmp_path)
    with pytest.raises(UsageError, match="0 frames"):
        open_frames(tmp_path, folder_rate=Fraction(0))
    Image.new("RGB", (36, 24)).save(tmp_path / "1.png")
    Image.new("RGB", (24, 36)).save(tmp_path / "2.png")
    with open_frames(tmp_path) as source, pytest.raises(MediaError, match=r"2\.png is 24x36"):
        list(source)
