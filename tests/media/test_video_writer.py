"""Written clips, looked at with PyAV."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.errors import FfmpegError, MediaError, UsageError
from metaportrait_cli.media import encoding, writer
from metaportrait_cli.media.encoding import Encoding
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import VideoWriter

MakeClip = Callable[..., Path]
Decode = Callable[[Path], list[tuple[Fraction, NDArray[np.uint8]]]]
NTSC = Fraction(30000, 1001)
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def picture(width: int = 96, height: int = 64, level: int = 0) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    red = np.full_like(rows, level)
    return np.stack([red, rows * 2, columns * 2], axis=-1).astype(np.uint8)


def write(path: Path, count: int, *, rate: Fraction = NTSC, **options) -> Path:
    with VideoWriter(path, width=96, height=64, rate=rate, **options) as out:
        for number in range(count):
            out.write(picture(level=number))
    return path


def seconds(ticks: int | None, base: Fraction | None) -> float:
    assert ticks is not None
    assert base is not None
    return float(ticks * base)


def sound_spans(path: Path) -> list[tuple[float, float]]:
    """(first, last) second of each sound track, by its packets."""
    with av.open(str(path)) as container:
        spans = []
        for number in range(len(container.streams.audio)):
            container.seek(0)
            packets = [p for p in container.demux(audio=number) if p.pts is not None]
            first, last = packets[0], packets[-1]
            end = seconds(last.pts, last.time_base) + seconds(last.duration or 0, last.time_base)
            spans.append((seconds(first.pts, first.time_base), end))
        return spans


def loud_from(path: Path) -> float:
    """Second at which the first sound track stops being silent."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray()).max(axis=0) > 0.02
            if loud.any():
                start = seconds(frame.pts, frame.time_base)
                return start + int(loud.argmax()) / frame.sample_rate
    raise AssertionError("the track is silent")


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_rate_and_tags(tmp_path: Path, decode: Decode, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", 30, comment="made by AI")
    frames = decode(path)
    assert len(frames) == 30
    info = probe(path)
    assert (info.width, info.height, info.rate, info.start) == (96, 64, NTSC, 0)
    assert not info.untagged
    assert os.listdir(tmp_path) == [path.name]
    with av.open(str(path)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["comment"] == "made by AI"
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)) == (1,) * 3


@pytest.mark.usefixtures("binary")
def test_red_is_the_red_of_bt709(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 255
    with VideoWriter(path, width=96, height=64, rate=Fraction(25)) as out:
        out.write(red)
    with av.open(str(path)) as container:
        luma = next(container.decode(video=0)).to_ndarray()[:64]
    assert abs(float(luma.mean()) - 63) <= 1


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("colour", [(200, 30, 10), (12, 180, 90), (128, 128, 128), (250, 240, 5)])
def test_colours_come_back(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    image = np.empty((64, 96, 3), np.uint8)
    image[:] = colour
    path = tmp_path / "a.mp4"
    with VideoWriter(
        path, width=96, height=64, rate=Fraction(25), encoding=Encoding(crf=10)
    ) as out:
        out.write(image)
    with open_frames(path) as source:
        (frame,) = source
    assert np.abs(frame.image.astype(int) - colour).max() <= 3


@pytest.mark.usefixtures("binary")
def test_odd_sizes_are_continued(tmp_path: Path, decode: Decode) -> None:
    path = tmp_path / "a.mp4"
    image = np.full((63, 97, 3), 200, np.uint8)
    with VideoWriter(path, width=97, height=63, rate=Fraction(25)) as out:
        out.write(image)
    ((_, found),) = decode(path)
    assert found.shape == (64, 98, 3)
    assert np.abs(found.astype(int) - 200).max() <= 4


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("known", [True, False])
def test_longer_and_shorter_sound(
    tmp_path: Path, talking: Path, decode: Decode, *, known: bool
) -> None:
    length = 30 / NTSC
    path = tmp_path / "a.mp4"
    write(path, 30, audio_from=talking, duration=length if known else None)
    assert len(decode(path)) == 30
    (_, trimmed), (_, short) = sound_spans(path)
    assert abs(trimmed - float(length)) < 0.05
    assert abs(short - 0.5) < 0.05
    assert [track.codec for track in probe(path).audio] == ["aac", "aac"]
    assert os.listdir(tmp_path) == ["a.mp4"]
    with av.open(str(path)) as container:
        assert {"title", "location"}.isdisjoint(container.metadata)


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("expected", [Fraction(1, 2), Fraction(60)])
def test_a_wrong_expectation_is_put_right(
    tmp_path: Path, talking: Path, decode: Decode, expected: Fraction
) -> None:
    path = write(tmp_path / "a.mp4", 30, audio_from=talking, duration=expected)
    assert len(decode(path)) == 30
    assert abs(sound_spans(path)[0][1] - float(30 / NTSC)) < 0.05


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mov", "pcm_s16le")])
def test_uncompressed_sound(tmp_path: Path, make_clip: MakeClip, suffix: str, codec: str) -> None:
    source = make_clip(
        "pcm.mkv",
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=1", "-f", "lavfi", "-t", "1"),
        *("-i", "sine=r=48000", *H264, "-c:a", "pcm_s16le"),
    )
    path = write(tmp_path / f"a{suffix}", 20, rate=Fraction(25), audio_from=source)
    assert [track.codec for track in probe(path).audio] == [codec]
    assert abs(sound_spans(path)[0][1] - 0.8) < 0.05


@pytest.fixture(scope="module")
def late_picture(make_clip: MakeClip) -> Path:
    """Sound from 0 s with a tone from 1 s on; picture from 0.4 s on."""
    return make_clip(
        "late.mkv",
        *("-itsoffset", "0.4", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2"),
        *("-f", "lavfi", "-i", "aevalsrc='0.5*sin(2000*t)*gte(t,1)':s=48000:d=2.4"),
        *("-map", "0", "-map", "1", *H264, "-c:a", "pcm_s16le"),
    )


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("offset", [Fraction(0), Fraction(1, 4), Fraction(-1, 4)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sync_is_kept(
    tmp_path: Path, late_picture: Path, decode: Decode, offset: Fraction, suffix: str
) -> None:
    assert probe(late_picture).start == Fraction(2, 5)
    path = tmp_path / f"a{suffix}"
    write(path, 50, rate=Fraction(25), audio_from=late_picture, audio_offset=offset)
    assert len(decode(path)) == 50
    assert probe(path).start == 0
    assert abs(loud_from(path) - (0.6 + float(offset))) < 0.03


@pytest.mark.usefixtures("binary")
def test_sound_of_a_silent_clip(tmp_path: Path, plain: Path) -> None:
    assert probe(write(tmp_path / "a.mp4", 5, audio_from=plain)).audio == ()


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.mp4"
    out = VideoWriter(path, width=96, height=64, rate=Fraction(25))

    def fail_midway() -> None:
        with out:
            out.write(picture())
            raise error

    with pytest.raises(error):
        fail_midway()
    assert os.listdir(tmp_path) == []
    assert out._child is not None
    assert out._child.process.poll() is not None


@pytest.mark.usefixtures("binary")
def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises((MediaError, FfmpegError)) as caught:
        write(tmp_path / "a.mp4", 0)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(
    "name", ["-y.mp4", "a b'\"$HOME`.mp4", "日本語.mp4", "%03d.mp4", "x:y.mp4"]
)
def test_names_that_shells_dislike(tmp_path: Path, name: str, decode: Decode) -> None:
    write(tmp_path / name, 3)
    assert os.listdir(tmp_path) == [name]
    shutil.move(tmp_path / name, tmp_path / "plain.mp4")
    assert len(decode(tmp_path / "plain.mp4")) == 3


def test_what_can_be_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"\.mp4"):
        VideoWriter(tmp_path / "a.avi", width=96, height=64, rate=NTSC)
    with pytest.raises(UsageError, match="not UTF-8"):
        VideoWriter(tmp_path / os.fsdecode(b"\xe9.mp4"), width=96, height=64, rate=NTSC)
    with pytest.raises(UsageError, match="0x64"):
        VideoWriter(tmp_path / "a.mp4", width=0, height=64, rate=NTSC)
    with pytest.raises(MediaError, match="doesn't exist"):
        VideoWriter(tmp_path / "a.mp4", width=96, height=64, rate=NTSC, audio_from=tmp_path / "no")
    with pytest.raises(UsageError, match="doesn't exist"):
        write(tmp_path / "no" / "where" / "a.mp4", 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="read-only"):
        write(tmp_path / "a.mp4", 1)


def test_frames_of_another_shape(tmp_path: Path) -> None:
    out = VideoWriter(tmp_path / "a.mp4", width=96, height=64, rate=NTSC)
    with pytest.raises(ValueError, match="with"):
        out.write(picture())
    with pytest.raises(ValueError, match="expected uint8"), out:
        out.write(picture(64, 96))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or unmount is None or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small file system needs privileges")
    yield folder
    subprocess.run([unmount, str(folder)], check=True)


@pytest.mark.usefixtures("binary")
def test_a_full_disk(small_disk: Path) -> None:
    noise = np.random.default_rng(0)

    def fill() -> None:
        with VideoWriter(
            small_disk / "a.mp4", width=320, height=256, rate=NTSC, encoding=Encoding(crf=1)
        ) as out:
            for _ in range(60):
                out.write(noise.integers(0, 256, (256, 320, 3), np.uint8))

    with pytest.raises(FfmpegError, match="no space left") as caught:
        fill()
    assert "\n" not in str(caught.value)
    assert str(small_disk) in str(caught.value)
    assert os.listdir(small_disk) == []


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize("share", [0.3, 0.8, 0.97])
def test_a_disk_that_fills_at_the_very_end(small_disk: Path, share: float) -> None:
    """The last bytes are written when the encoder is done; ffmpeg then ends with status 0."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)

    def write_all(path: Path) -> None:
        with VideoWriter(path, width=96, height=64, rate=NTSC, encoding=Encoding(crf=22)) as out:
            for image in noise:
                out.write(image)

    write_all(small_disk / "whole.mp4")
    size = (small_disk / "whole.mp4").stat().st_size
    (small_disk / "whole.mp4").unlink()
    (small_disk / "filler").write_bytes(bytes(256 * 1024 - int(share * size)))
    with pytest.raises(FfmpegError, match=r"disk full|no space left"):
        write_all(small_disk / "a.mp4")
    assert os.listdir(small_disk) == ["filler"]


def test_an_encoder_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setitem(encoding._ENCODERS, "h264", {"c:v": "libx264", "preset": "none-such"})
        with pytest.raises(FfmpegError, match=r"writing .*a\.mp4: ffmpeg ended with status"):
            write(tmp_path / "a.mp4", 30)
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(writer, "ffmpeg_binary", lambda: "/nowhere/ffmpeg")
    with pytest.raises(FfmpegError, match="can't be run"):
        write(tmp_path / "a.mp4", 1)


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(
    ("name", "encoding", "codecs"),
    [
        ("a.webm", Encoding(), ["vp9", "opus", "opus"]),
        ("a.gif", Encoding(), ["gif"]),
        ("a.mp4", Encoding("h265", crf=30), ["hevc", "aac", "aac"]),
        ("a.mkv", Encoding("vp9"), ["vp9", "aac", "aac"]),
    ],
)
def test_other_kinds_of_files(
    tmp_path: Path, talking: Path, name: str, encoding: Encoding, codecs: list[str]
) -> None:
    path = write(tmp_path / name, 30, audio_from=talking, encoding=encoding)
    with av.open(str(path)) as container:
        streams = (*container.streams.video, *container.streams.audio)
        assert [stream.codec_context.name for stream in streams] == codecs
    with open_frames(path) as source:
        frames = [frame.image for frame in source]
    assert len(frames) == 30
    assert np.abs(frames[20].astype(int) - picture(level=20)).mean() < 6
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("a.webm", Encoding("h264"), "takes vp9"),
        ("a.mp4", Encoding("av1"), "takes h264 or h265"),
        ("a.mp4", Encoding(crf=60), "from 0 to 51"),
        ("a.gif", Encoding(crf=20), "means nothing"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, name: str, encoding: Encoding, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(tmp_path / name, 1, encoding=encoding)


def test_a_gif_is_not_too_fast(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at most 50 of 60"):
        write(tmp_path / "a.gif", 1, rate=Fraction(60))
