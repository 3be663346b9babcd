"""The exact command lines, without running them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from metaportrait_cli.media.arguments import (
    CONTAINERS,
    Audio,
    mux_arguments,
    reader_arguments,
    writer_arguments,
)
from metaportrait_cli.media.encoding import muxer_for
from metaportrait_cli.media.info import AudioTrack, VideoInfo, sized_within
from metaportrait_cli.media.process import telling_line

INFO = VideoInfo(
    path=Path("/clips/-odd 'name'.mp4"),
    width=640,
    height=360,
    rate=Fraction(25),
    frames=10,
    duration=Fraction(2, 5),
    start=Fraction(0),
    variable_rate=False,
    audio=(),
    bit_depth=8,
    has_alpha=False,
    rotation=0,
    codec="h264",
    index=1,
    time_base=Fraction(1, 12800),
)
SOUND = Audio(
    path=Path("/clips/a.mkv"),
    tracks=(AudioTrack(1, "aac", None), AudioTrack(3, "pcm_s16le", None)),
    delay=Fraction(-1, 4),
    duration=Fraction(2),
)


GUARDED = ("-format_whitelist", CONTAINERS)


def reading(info: VideoInfo, *, tone_map: bool = False, rough: bool = False) -> list[str]:
    return reader_arguments(
        info,
        binary="ff",
        width=info.width,
        height=info.height,
        tone_map=tone_map,
        rough=rough,
    )


def test_reader_arguments() -> None:
    assert reading(INFO) == [
        *("ff", *GUARDED, "-protocol_whitelist", "file", "-i", "file:/clips/-odd 'name'.mp4"),
        "-filter_complex",
        "[0:1]setpts=PTS-STARTPTS[s0];"
        r"[s0]scale=if(eq(iw\,640)*eq(ih\,360)\,640\,max(1\,trunc(iw*sar*min(640/(iw*sar)\,360/ih)))):"
        r"if(eq(iw\,640)*eq(ih\,360)\,360\,max(1\,trunc(ih*min(640/(iw*sar)\,360/ih)))):"
        "flags=bilinear+accurate_rnd+full_chroma_int[s1];"
        "[s1]format=rgb24[s2];[s2]pad=640:360:(ow-iw)/2:(oh-ih)/2:color=0x030003[s3]",
        *("-map", "[s3]", "-f", "nut", "-c:v", "rawvideo", "-enc_time_base", "1/12800"),
        *("-fps_mode", "passthrough", "-pix_fmt", "rgb24", "pipe:1"),
        *("-nostdin", "-v", "error"),
    ]
    as_stored = " ".join(reading(INFO, rough=True))
    assert "flags=bilinear:out_range=tv" in as_stored
    assert "-pix_fmt yuv420p" in as_stored
    assert reading(replace(INFO, width=639), rough=True)[-6:] == reading(INFO)[-6:]


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 480), "bt601"), ((720, 576), "bt601"), ((1280, 720), "bt709"), ((720, 1280), "bt709")],
)
def test_untagged_video_is_read_as_players_do(size: tuple[int, int], matrix: str) -> None:
    info = replace(INFO, untagged=True, width=size[0], height=size[1])
    assert f"in_color_matrix={matrix}" in " ".join(reading(info))


def test_vp9_with_alpha_needs_its_own_decoder() -> None:
    arguments = reading(replace(INFO, codec="vp9", has_alpha=True))
    assert arguments[1:3] == ["-c:v", "libvpx-vp9"]
    assert arguments[arguments.index("-pix_fmt") + 1] == "rgba"


def test_tone_mapping_says_what_comes_in() -> None:
    graph = " ".join(reading(replace(INFO, transfer="hlg"), tone_map=True))
    assert "transferin=arib-std-b67" in graph
    assert "tonemap=hable" in graph


def test_writer_arguments_with_sound() -> None:
    arguments = writer_arguments(
        Path("/out/.x.partial.mp4"),
        binary="ff",
        width=640,
        height=360,
        rate=Fraction(30000, 1001),
        audio=SOUND,
        comment="made by AI",
    )
    assert arguments == [
        *("ff", "-f", "rawvideo", "-framerate", "30000/1001", "-pix_fmt", "rgb24"),
        *("-s", "640x360", "-i", "pipe:0"),
        *(*GUARDED, "-protocol_whitelist", "file", "-ss", "0.250000", "-t", "2.000000"),
        *("-i", "file:/clips/a.mkv", "-filter_complex"),
        "[0:v]scale=flags=bicubic+accurate_rnd+full_chroma_inp:out_color_matrix=bt709:out_range=tv"
        "[s0];[s0]format=yuv420p[s1];"
        "[s1]setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv[s2]",
        *("-map", "[s2]", "-map", "1:1", "-map", "1:3", "-f", "mp4", "-b:a:1", "192k"),
        *("-c:a:0", "copy", "-c:a:1", "aac", "-c:v", "libx264"),
        *("-color_primaries", "bt709", "-color_range", "tv", "-color_trc", "bt709"),
        *("-colorspace", "bt709", "-copypriorss:a:0", "0", "-crf", "17"),
        *("-fps_mode", "passthrough"),
        *("-map_chapters", "-1", "-map_metadata:g", "-1", "-metadata", "comment=made by AI"),
        *("-movflags", "+faststart", "-preset", "veryfast", "file:/out/.x.partial.mp4"),
        *("-y", "-nostdin", "-v", "error"),
    ]


def test_the_encoder_looks_less_far_ahead_where_pictures_are_large() -> None:
    sized = [
        writer_arguments(
            Path("a.mp4"), binary="ff", width=w, height=h, rate=Fraction(25), audio=None, comment=""
        )
        for w, h in ((4096, 2160), (8192, 4320))
    ]
    assert ["-x264-params" in arguments for arguments in sized] == [False, True]


def test_mux_arguments_copy_the_picture() -> None:
    late = replace(SOUND, delay=Fraction(1, 2), tracks=SOUND.tracks[1:])
    arguments = mux_arguments(
        Path("/out/b.mkv"),
        binary="ff",
        video=Path("/out/a.mkv"),
        audio=late,
        length=Fraction(2),
        comment="",
    )
    assert arguments == [
        *("ff", "-i", "file:/out/a.mkv", *GUARDED, "-itsoffset", "0.500000"),
        *("-protocol_whitelist", "file", "-i", "file:/clips/a.mkv", "-map", "0:v:0", "-map", "1:3"),
        *("-f", "matroska", "-c:a:0", "copy", "-c:v", "copy"),
        *("-copypriorss:a:0", "0"),
        *("-map_chapters", "-1", "-map_metadata:g", "-1", "-t", "2.000000", "file:/out/b.mkv"),
        *("-y", "-nostdin", "-v", "error"),
    ]


def test_muxers() -> None:
    assert muxer_for(Path("a.MP4")) == "mp4"
    assert muxer_for(Path("a.avi")) is None


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((1920, 1080), None, (1920, 1080)),
        ((1920, 1080), 480, (480, 270)),
        ((1080, 1920), 480, (270, 480)),
        ((100, 50), 480, (100, 50)),
        ((5000, 1), 100, (100, 1)),
    ],
)
def test_sized_within(size: tuple[int, int], limit: int | None, expected: tuple[int, int]) -> None:
    assert sized_within(*size, limit) == expected


def test_telling_line_skips_addresses_and_epilogues() -> None:
    messages = "[mov @ 0x55] [dec @ 0x5] moov atom not found\n\nConversion failed!\n"
    assert telling_line(messages) == "moov atom not found"
    assert telling_line("") == ""
    full = "av_interleaved_write_frame(): No space left on device\nError muxing a packet\n"
    assert "No space left" in telling_line(full)
