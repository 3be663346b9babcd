"""Argument lists for ffmpeg: pure functions, no process is run and no file is touched.

Local paths are given as `file:` addresses, so that no name is taken for an option or an address.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import ffmpeg

from metaportrait_cli.media.encoding import MUXERS, USUAL, Encoding
from metaportrait_cli.media.info import AudioTrack, VideoInfo

_QUIET = ("-nostdin", "-v", "error")

CONTAINERS = ",".join(
    (
        *("mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv", "asf"),
        *("ogg", "nut", "mxf", "gxf", "ivf", "dv", "rm", "wtv", "yuv4mpegpipe", "mjpeg", "swf"),
        *("h264", "hevc", "av1", "obu", "vc1", "vvc", "gif", "apng"),
    )
)
"""Demuxers that are let near a file: those that read it alone, and nothing that it names."""
_INPUT = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
RawPixels = Literal["rgb24", "rgba", "yuv420p"]
"""What ffmpeg hands over, by its own names; yuv420p in limited range"""
PADDING = (3, 0, 3)
"""RGB around pictures that don't fill the first one's shape: black to the eye, and known again
even after a way through YUV."""
_ONE_THREAD_PIXELS = 8192 * 4320
"""Of larger pictures a decoder holds too many when it runs several threads."""

_LARGE_PIXELS = 4096 * 2304
"""Of larger pictures an encoder that looks far ahead, or has several in hand at a time, holds up
to two gigabytes."""

_COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"},
    "matroska": {
        *{"aac", "mp3", "ac3", "eac3", "alac", "opus", "vorbis", "flac", "dts"},
        *{"pcm_s16le", "pcm_s24le", "pcm_f32le"},
    },
    "webm": {"opus", "vorbis"},
}
"""Sound that a container takes as it is, and that players expect in it."""

_TRANSFER_NAMES = {"pq": "smpte2084", "hlg": "arib-std-b67"}
_PRIMARY_NAMES = {
    "bt709": "bt709",
    "bt2020": "bt2020",
    "smpte431": "smpte431",
    "smpte432": "smpte432",
}


@dataclass(frozen=True)
class Audio:
    """Sound to be put beside a video."""

    path: Path
    tracks: tuple[AudioTrack, ...]
    delay: Fraction
    """Seconds by which it starts later than the container it comes from; may be negative."""
    duration: Fraction | None
    """Seconds of it to use, as far as that is known; all if None."""


def can_be_named(path: Path) -> bool:
    """Whether ffmpeg-python can be told `path`: it takes no names that are not UTF-8."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def reader_arguments(
    info: VideoInfo,
    *,
    binary: str,
    width: int,
    height: int,
    tone_map: bool,
    rough: bool = False,
    start: Fraction = Fraction(0),
) -> list[str]:
    """Decode to raw frames of width x height in a NUT stream on stdout, of `raw_pixels`.

    NUT is the one pipe format that carries every frame's own timestamp beside raw pixels; the
    times begin at 0 and count in the ticks of the file. ffmpeg turns frames upright by itself,
    before the filters. It seeks to `start`, in seconds, rather than decode what lies before.
    """
    decoding: dict[str, Any] = dict(_INPUT)
    coded_width, coded_height = info.in_file
    if coded_width * coded_height > _ONE_THREAD_PIXELS:
        decoding["threads"] = 1
    if start:
        decoding["ss"] = f"{float(start):.6f}"
    if info.has_alpha and info.codec in {"vp8", "vp9"}:
        decoding["c:v"] = f"libvpx-{info.codec}" if info.codec == "vp9" else "libvpx"
    stream = ffmpeg.input(address(info.path), **decoding)[str(info.index)]
    stream = stream.filter("setpts", "PTS-STARTPTS")
    if info.interlaced:
        # Frames that don't say so themselves pass unchanged.
        stream = stream.filter("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    if tone_map:
        stream = _in_srgb_colours(stream, info)
    pixels = raw_pixels(info, width, height, rough=rough)
    # A graph is built anew where the size of the pictures changes; the first one's decides, and
    # what has another shape is fitted in.
    whole = f"eq(iw,{coded_width})*eq(ih,{coded_height})"
    fit = f"min({width}/(iw*sar),{height}/ih)"
    stream = (
        stream.filter(
            "scale",
            f"if({whole},{width},max(1,trunc(iw*sar*{fit})))",
            f"if({whole},{height},max(1,trunc(ih*{fit})))",
            **_scaling(info, width, height, tone_map=tone_map, pixels=pixels),
        )
        .filter("format", pixels)
        .filter(
            "pad",
            width,
            height,
            "(ow-iw)/2",
            "(oh-ih)/2",
            color="0x{:02x}{:02x}{:02x}".format(*PADDING),
        )
    )
    return _compiled(
        stream.output(
            "pipe:1",
            format="nut",
            pix_fmt=pixels,
            fps_mode="passthrough",
            enc_time_base=_ratio(info.time_base),
            **{"c:v": "rawvideo"},
        ),
        binary,
    )


def raw_bytes(width: int, height: int, pixels: RawPixels) -> int:
    """Of one frame."""
    return width * height * {"rgb24": 6, "rgba": 8, "yuv420p": 3}[pixels] // 2


def raw_pixels(info: VideoInfo, width: int, height: int, *, rough: bool) -> RawPixels:
    """How frames are handed over: RGB(A), or for `rough` colours as most videos store them.

    These take half of the bytes, and nobody converts them twice.
    """
    if info.has_alpha:
        return "rgba"
    return "yuv420p" if rough and width % 2 == height % 2 == 0 else "rgb24"


def _scaling(
    info: VideoInfo, width: int, height: int, *, tone_map: bool, pixels: RawPixels
) -> dict[str, str]:
    # Without these flags the conversion drops fractions and repeats chroma: darker by half a
    # level, and blocky at coloured edges. Bilinear is enough where only chroma is enlarged.
    resized = (width, height) != (info.width, info.height) or not info.square
    kernel = "bicubic" if resized else "bilinear"
    if pixels == "yuv420p":
        return {"flags": kernel, "out_range": "tv"}
    options = {"flags": f"{kernel}+accurate_rnd+full_chroma_int"}
    if info.untagged and not tone_map:
        # What players do: high definition is BT.709, everything smaller BT.601.
        high = max(info.width, info.height) >= 1280 or min(info.width, info.height) > 576
        options["in_color_matrix"] = "bt709" if high else "bt601"
    return options


def _in_srgb_colours(stream: Any, info: VideoInfo) -> Any:
    """What shows more colours or more light than an ordinary screen, as that shows it: BT.709."""
    if info.transfer == "sdr":
        return stream.filter(
            "zscale",
            transferin="bt709",
            matrixin="bt2020nc" if info.primaries == "bt2020" else "bt709",
            primariesin=_PRIMARY_NAMES[info.primaries],
            transfer="bt709",
            matrix="gbr",
            primaries="bt709",
            range="pc",
        ).filter("format", "gbrp")
    # Linear light, and a curve.
    return (
        stream.filter(
            "zscale",
            transferin=_TRANSFER_NAMES[info.transfer],
            matrixin="bt2020nc",
            primariesin="bt2020",
            transfer="linear",
            npl=100,
        )
        .filter("format", "gbrpf32le")
        .filter("zscale", primaries="bt709")
        .filter("tonemap", "hable", desat=0)
        .filter("zscale", transfer="bt709", matrix="bt709", range="tv")
        .filter("format", "yuv444p")
    )


def writer_arguments(
    output: Path,
    *,
    binary: str,
    width: int,
    height: int,
    rate: Fraction,
    audio: Audio | None,
    encoding: Encoding = USUAL,
    comment: str,
) -> list[str]:
    """Encode raw RGB frames of width x height (both even) from stdin to `output`.

    The colours are BT.709 in limited range, and say so: without the conversion ffmpeg uses
    BT.601, and without the tags players guess. A GIF has a palette for each picture.
    """
    codec, options = encoding.resolved(output)
    frames = ffmpeg.input(
        "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=_ratio(rate)
    )
    if codec == "gif":
        both = frames["v"].filter_multi_output("split")
        palette = both[1].filter("palettegen", stats_mode="single", reserve_transparent=0)
        video = ffmpeg.filter([both[0], palette], "paletteuse", new=1, dither="sierra2_4a")
        options |= {"fps_mode": "passthrough", "loop": 0}
        return _muxed(
            output, binary=binary, video=video, audio=None, options=options, comment=comment
        )
    video = (
        frames["v"]
        .filter(
            "scale",
            out_color_matrix="bt709",
            out_range="tv",
            flags="bicubic+accurate_rnd+full_chroma_inp",
        )
        .filter("format", "yuv420p")
        # Later versions take the tags from the frames rather than from the options below.
        .filter(
            "setparams",
            range="tv",
            color_primaries="bt709",
            color_trc="bt709",
            colorspace="bt709",
        )
    )
    options |= {
        "fps_mode": "passthrough",
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "color_range": "tv",
    }
    if codec == "h264" and width * height > _LARGE_PIXELS:
        options["x264-params"] = "rc-lookahead=2:sync-lookahead=0:bframes=0:sliced-threads=1"
    if codec == "h265" and MUXERS[output.suffix.lower()] != "matroska":
        options["tag:v"] = "hvc1"  # what Apple's players ask for
    return _muxed(output, binary=binary, video=video, audio=audio, options=options, comment=comment)


def mux_arguments(
    output: Path, *, binary: str, video: Path, audio: Audio | None, length: Fraction, comment: str
) -> list[str]:
    """Put `audio`, if any, beside the finished picture of `video`, which is copied.

    Both end after `length` seconds, which must be no less than the picture lasts.
    """
    picture = ffmpeg.input(address(video))["v:0"]
    options = {"c:v": "copy", "t": _seconds(length)}
    # A limit on the input would mean other things for copied and for converted sound.
    unlimited = None if audio is None else replace(audio, duration=None)
    return _muxed(
        output, binary=binary, video=picture, audio=unlimited, options=options, comment=comment
    )


def _muxed(
    output: Path,
    *,
    binary: str,
    video: Any,
    audio: Audio | None,
    options: dict[str, Any],
    comment: str,
) -> list[str]:
    muxer = MUXERS[output.suffix.lower()]
    # Chapters and tags of the clip that lends its sound (its place, its owner) stay behind.
    options = {**options, "map_metadata:g": "-1", "map_chapters": "-1"}
    if muxer in {"mp4", "mov"}:
        options["movflags"] = "+faststart"
    if comment:
        options["metadata"] = f"comment={comment}"
    sound: Sequence[Any] = ()
    if audio is not None:
        source = ffmpeg.input(address(audio.path), **_audio_timing(audio))
        sound = [source[str(track.index)] for track in audio.tracks]
        for number, track in enumerate(audio.tracks):
            copied = track.codec in _COPIED[muxer]
            encoder = "libopus" if muxer == "webm" else "aac"
            options[f"c:a:{number}"] = "copy" if copied else encoder
            if copied:
                # Packets from before the cut would move everything else out of place.
                options[f"copypriorss:a:{number}"] = 0
            else:
                options[f"b:a:{number}"] = "192k"
    return _compiled(
        ffmpeg.output(video, *sound, address(output), format=muxer, **options).overwrite_output(),
        binary,
    )


def _audio_timing(audio: Audio) -> dict[str, str]:
    timing = dict(_INPUT)
    if audio.delay > 0:
        timing["itsoffset"] = _seconds(audio.delay)
    elif audio.delay < 0:
        timing["ss"] = _seconds(-audio.delay)
    if audio.duration is not None:
        timing["t"] = _seconds(audio.duration)
    return timing


def _compiled(stream: Any, binary: str) -> list[str]:
    return stream.global_args(*_QUIET).compile(cmd=binary)


def address(path: Path) -> str:
    """How ffmpeg and its libraries are told a local file, so that they take no name for another
    thing."""
    return f"file:{os.path.abspath(path)}"


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _seconds(value: Fraction) -> str:
    return f"{float(value):.6f}"
