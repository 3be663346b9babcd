"""What is said of a file before it is read, and what is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from metaportrait_cli.errors import FfmpegError, MediaError
from metaportrait_cli.media import binaries
from metaportrait_cli.media.probe import probe

MakeClip = Callable[..., Path]
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def refused(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_plain(plain: Path) -> None:
    info = probe(plain)
    assert (info.width, info.height, info.rate, info.frames) == (96, 64, 25, 20)
    assert (info.duration, info.start) == (Fraction(4, 5), 0)
    assert not info.variable_rate
    assert info.audio == ()
    assert (info.bit_depth, info.has_alpha, info.rotation, info.codec) == (8, False, 0, "h264")
    assert info.untagged


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001"])
def test_fractional_rates(make_clip: MakeClip, rate: str, suffix: str) -> None:
    source = f"testsrc2=s=64x48:r={rate}:d=1"
    info = probe(make_clip(f"{rate[:2]}.{suffix}", "-f", "lavfi", "-i", source, *H264))
    assert info.rate == Fraction(rate)
    assert not info.variable_rate


def test_uneven_times(uneven: Path) -> None:
    info = probe(uneven)
    assert info.variable_rate
    assert info.frames == 40
    assert info.rate == 30


def test_sound_tracks(talking: Path) -> None:
    tracks = probe(talking).audio
    assert [(track.index, track.codec) for track in tracks] == [(1, "aac"), (2, "aac")]
    lengths = [track.duration for track in tracks]
    assert lengths[0] is not None
    assert abs(lengths[0] - 3) < Fraction(1, 10)


def test_square_pixels(make_clip: MakeClip) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:d=0.2", "-vf")
    wide = probe(make_clip("wide.mp4", *source, "setsar=4/3", *H264))
    tall = probe(make_clip("tall.mp4", *source, "setsar=2/3", *H264))
    assert (wide.width, wide.height) == (128, 64)
    assert (tall.width, tall.height) == (96, 96)


def test_an_animated_image(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (36, 24), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 40, 60])
    info = probe(path)
    assert (info.width, info.height, info.frames, info.rate) == (36, 24, 3, 25)
    assert info.variable_rate
    assert info.audio == ()


def test_missing_empty_folder(tmp_path: Path) -> None:
    assert "doesn't exist" in refused(tmp_path / "no.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "is empty" in refused(tmp_path / "empty.mp4")
    assert "folder" in refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        os.urandom(20_000),
        b"one, two, three\n" * 300,
        b"\0" * 5000,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n",
        b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    ],
    ids=["random", "text", "zeros", "playlist", "subtitles"],
)
def test_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    refused(path)


def test_a_list_of_files_is_not_followed(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{plain.name}'\n")
    (tmp_path / plain.name).write_bytes(plain.read_bytes())
    assert "list" in refused(path)


def test_a_header_that_is_cut_off(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(plain.read_bytes()[:3000])  # the index of frames is at the end
    assert refused(path).endswith("or no video file")
    path = path.rename(path.with_suffix(".psd"))
    assert refused(path).endswith("or no video file; save a picture as JPEG or PNG")


def test_a_name_that_is_not_utf8(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(plain.read_bytes())
    with pytest.raises(MediaError, match="rename") as caught:
        probe(path)
    assert str(caught.value).isascii()


def test_sound_alone(make_clip: MakeClip) -> None:
    path = make_clip("sound.m4a", "-f", "lavfi", "-t", "0.2", "-i", "sine", "-c:a", "aac")
    assert "only sound" in refused(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.mp4"])
def test_a_still_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (36, 24)).save(path, format="PNG" if name != "a.jpg" else "JPEG")
    assert "still image" in refused(path)


def test_the_ffmpeg_on_path_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries.shutil, "which", lambda name: f"/opt/{name}")
    assert binaries.ffmpeg_binary() == "/opt/ffmpeg"


def test_without_ffmpeg_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(binaries.shutil, "which", lambda name: None)
    assert "imageio_ffmpeg" in binaries.ffmpeg_binary()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FfmpegError, match="install ffmpeg"):
        binaries.ffmpeg_binary()
    with pytest.raises(FfmpegError, match="can't be run"):
        binaries.has_filter(str(tmp_path / "none"), "scale")
