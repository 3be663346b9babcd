"""Clips and pictures as phones, browsers and others make them, the bad ones too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import FfmpegError, MediaError
from metaportrait_cli.media import stills
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.reader import VideoReader, open_frames
from metaportrait_cli.media.stills import is_still, read_still
from metaportrait_cli.media.timing import constant_rate, nominal_rate
from metaportrait_cli.media.writer import VideoWriter
from tests.media.conftest import H264

MakeClip = Callable[..., Path]
COLOUR = (200, 60, 40)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with open_frames(path) as frames:
        return [frame.image for frame in frames]


@pytest.mark.usefixtures("binary")
def test_a_phone_that_is_turned_while_streaming(make_clip: MakeClip, tmp_path: Path) -> None:
    """A square stays one, in bars; and it is said."""
    pieces = []
    for name, size in (("wide", "96x64"), ("tall", "64x96")):
        square = "drawbox=x=(iw-40)/2:y=(ih-40)/2:w=40:h=40:c=white:t=fill"
        source = ("-f", "lavfi", "-i", f"color=c=0x803020:s={size}:r=25:d=0.4", "-vf", square)
        pieces.append(make_clip(f"{name}.ts", *source, *H264).read_bytes())
    path = tmp_path / "turned.ts"
    path.write_bytes(b"".join(pieces))
    for rough in (True, False):
        with open_frames(path, rough=rough) as source:
            frames = [frame.image for frame in source]
        assert source.warning is not None
        assert "changes at frame 10" in source.warning
    assert len(frames) == 20
    assert {frame.shape for frame in frames} == {(64, 96, 3)}
    shown = frames[-1]
    assert shown[:, :20].max() <= 3
    assert shown[:, -20:].max() <= 3
    rows, columns = np.nonzero(shown.min(axis=2) > 200)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    with open_frames(make_clip("wide.ts")) as steady:
        list(steady)
    assert steady.warning is None


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(
    ("primaries", "matrix"), [("smpte432", "bt709"), ("bt2020", "bt2020nc"), ("bt709", "bt709")]
)
def test_wide_gamut_is_no_paler(make_clip: MakeClip, primaries: str, matrix: str) -> None:
    wide = f"zscale=pin=bt709:tin=bt709:min=gbr:rin=full:p={primaries}:t=bt709:m={matrix}:r=limited"
    path = make_clip(
        f"gamut-{primaries}.mp4",
        *("-f", "lavfi", "-i", "color=c=0xC83C28:s=96x64:r=25:d=0.1"),
        *("-vf", f"format=gbrp,{wide},format=yuv444p10le,setparams=color_primaries={primaries}"),
        *("-c:v", "libx264", "-qp", "0", "-color_primaries", primaries),
        *("-color_trc", "bt709", "-colorspace", matrix, "-color_range", "tv"),
    )
    for picture in pictures(path):
        assert np.abs(picture[30, 40].astype(int) - COLOUR).max() <= 3


@pytest.mark.usefixtures("binary")
def test_interlaced_clips_lose_their_combs(make_clip: MakeClip) -> None:
    moving = "testsrc2=s=192x128:r=50:d=0.6"
    weave = ("-vf", "tinterlace=interleave_top,setfield=tff", *H264[:4], "-x264opts", "tff=1")
    path = make_clip("combs.mp4", "-f", "lavfi", "-i", moving, *weave, "-pix_fmt", "yuv420p")
    flat = make_clip("flat.mp4", "-f", "lavfi", "-i", moving, "-r", "25", *H264)
    assert probe(path).interlaced
    assert not probe(flat).interlaced
    found = pictures(path)
    assert len(found) == 15

    def combs(frames: list[NDArray[np.uint8]]) -> float:
        rows = np.stack(frames)[..., 1].astype(int)
        middle = 2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]
        return float((np.abs(middle) > 120).mean())

    assert combs(found) < 1.2 * combs(pictures(flat)) + 0.002


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_decoder_ended_from_outside_is_no_end(
    make_clip: MakeClip, number: signal.Signals
) -> None:
    long = ("-f", "lavfi", "-i", "testsrc2=s=640x480:r=25:d=4", *H264)
    with VideoReader(probe(make_clip("large.mp4", *long))) as source:
        next(source)
        assert source._child is not None
        source._child.process.send_signal(number)
        with pytest.raises(FfmpegError, match="ended from outside"):
            list(source)


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile pipe\n", "#EXTM3U\n#EXTINF:1,\npipe\n"]
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_nothing_is_read_that_was_not_named(tmp_path: Path, text: str, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / name).write_text(text)
    for start in ("", " \n\n", "# a remark\n"):
        (tmp_path / name).write_text(start + text)
        with pytest.raises(MediaError, match=r"list\."):
            probe(tmp_path / name)
    with pytest.raises(MediaError, match="no regular file"):
        open_frames(tmp_path / "pipe")
    assert not is_still(tmp_path / "pipe")
    with pytest.raises(MediaError, match="no regular file"):
        read_still(tmp_path / "pipe")


def test_the_reader_itself_follows_no_list(tmp_path: Path, plain: Path) -> None:
    """A file that is changed after it was looked at."""
    path = tmp_path / "a.mp4"
    path.write_bytes(plain.read_bytes())
    info = probe(path)
    (tmp_path / "other.mp4").write_bytes(plain.read_bytes())
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with VideoReader(info) as source, pytest.raises(MediaError):
        list(source)


@pytest.mark.parametrize("rate", [Fraction(10**9), Fraction(10**6), Fraction(1, 3600)])
def test_absurd_rates_are_not_believed(rate: Fraction) -> None:
    times = [n / rate for n in range(20)]
    for found in (
        constant_rate(times, tick=Fraction(1, 10**12), declared=[rate]),
        nominal_rate(times),
        constant_rate(times[:1], tick=Fraction(1), declared=[rate, Fraction(0)]),
    ):
        assert Fraction(1, 1001) <= found <= 1000


def test_a_clip_of_an_absurd_size_or_shape(make_clip: MakeClip) -> None:
    thin = make_clip("thin.mkv", "-f", "lavfi", "-i", "color=s=16x1200:d=0.04", "-c:v", "ffv1")
    with pytest.raises(MediaError, match="16x1200: too narrow"):
        probe(thin)
    large = make_clip("wide.avi", "-f", "lavfi", "-i", "color=s=4200x160:d=0.04", "-c:v", "mjpeg")
    with open_frames(large) as source:
        assert (source.width, source.height) == (4096, 156)
        assert next(iter(source)).image.shape == (156, 4096, 3)


def test_a_large_photo_is_read_at_half_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120_000)
    monkeypatch.setattr(stills, "_PLENTY_PIXELS", 100_000)
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (640, 480))
    halves = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
    for name in ("a.jpg", "b.jpg", "c.png"):
        path = tmp_path / name
        exif = Image.Exif()
        exif[274] = 6  # turned
        Image.fromarray(picture).save(path, exif=exif, quality=95)
        if name == "c.png":
            with pytest.raises(MediaError, match="scale it down"):
                read_still(path)
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
        found = read_still(path).image
        assert found.shape == (320, 240, 3)
        assert np.abs(found.astype(int) - np.rot90(halves, -1)).mean() < 3


@pytest.mark.parametrize("start", [b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a"])
def test_jpeg_xl_is_named_with_its_cure(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "a.jxl"
    path.write_bytes(start + bytes(200))
    for look in (is_still, read_still, open_frames):
        with pytest.raises(MediaError, match="JPEG XL image: save it as JPEG"):
            look(path)


def test_narrow_pictures(tmp_path: Path) -> None:
    Image.new("L", (1, 5000)).save(tmp_path / "a.png")
    for look in (read_still, open_frames):
        with pytest.raises(MediaError, match="too narrow"):
            look(tmp_path / "a.png")


@pytest.mark.usefixtures("binary")
def test_names_with_colons(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("take-12:30.mp4").write_bytes(plain.read_bytes())
    frames = pictures(Path("take-12:30.mp4"))
    output = Path("face--take-12:30.mp4")
    with VideoWriter(output, width=96, height=64, rate=Fraction(25), audio_from=plain) as out:
        for frame in frames:
            out.write(frame)
    assert len(pictures(output)) == 20


@pytest.mark.usefixtures("binary")
def test_opus_becomes_aac_in_mp4(make_clip: MakeClip, tmp_path: Path) -> None:
    call = make_clip(
        "call.webm",
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.8", "-f", "lavfi", "-t", "0.8"),
        *("-i", "sine=f=440:r=48000", "-c:v", "libvpx", "-c:a", "libopus"),
    )
    output = tmp_path / "a.mp4"
    with VideoWriter(output, width=96, height=64, rate=Fraction(25), audio_from=call) as out:
        for frame in pictures(call):
            out.write(frame)
    assert [track.codec for track in probe(output).audio] == ["aac"]


def test_tags_from_before_utf_8(make_clip: MakeClip, tmp_path: Path) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.2", "-metadata", "title=ABCDEFGH")
    content = make_clip("tagged.mkv", *source, *H264).read_bytes()
    path = tmp_path / "a.mkv"
    path.write_bytes(content.replace(b"ABCDEFGH", b"Caf\xe9 \xff\x87!"))
    assert len(pictures(path)) == 5


def test_a_picture_whose_own_decoder_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object) -> None:
        raise RuntimeError("Decoding of color planes failed")  # as that of AVIF does

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(stills, "split_srgb", give_up)
    with pytest.raises(MediaError, match="can't be read as an image: Decoding"):
        read_still(tmp_path / "a.png")
