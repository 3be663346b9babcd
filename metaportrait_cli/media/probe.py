"""What a video file holds, read from its header, its first packets and its first frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from mimetypes import guess_type
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.animation import animation_info
from metaportrait_cli.media.arguments import CONTAINERS, address, can_be_named
from metaportrait_cli.media.info import AudioTrack, Primaries, Transfer, VideoInfo
from metaportrait_cli.media.stills import NARROWEST, is_animation, is_still
from metaportrait_cli.media.timing import constant_rate, is_variable, nominal_rate

__all__ = ["AudioTrack", "VideoInfo", "probe"]

PACKETS_READ = 2000
"""A minute of video: enough to tell a rate, and bounded for a clip of hours."""

MARK_START = "AI-"
"""How our results' comments begin."""

ADDRESSES = ("http:", "https:", "rtsp:", "ftp:", "file:")
"""How paths begin that are none."""
_LISTS = (b"ffconcat", b"#EXTM3U", b"<?xml", b"<MPD")
"""How texts begin that name other files or addresses to fetch."""
_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""ITU-T H.273 transfer characteristics of high dynamic range."""
_PRIMARIES: dict[int, Primaries] = {9: "bt2020", 11: "smpte431", 12: "smpte432"}
"""The same for primaries that show more colours than sRGB's."""
_UNSPECIFIED_MATRIX = 2
_MOST_PIXELS = 16384 * 8704
"""The largest picture of which a few can be held, as decoders do."""


def probe(path: Path) -> VideoInfo:
    """Describe the video file, or animated GIF, WebP, PNG or AVIF, at `path`.

    Raises:
        MediaError: it is missing, empty, a folder, unreadable, damaged beyond use, a still, or
            holds no video.
    """
    require_file(path)
    if is_animation(path):
        return animation_info(path)
    if is_still(path):
        raise MediaError(f"{path} is a still image where a video is expected")
    with path.open("rb") as file:
        if file.read(8).startswith(_LISTS):
            raise MediaError(f"{path} is a list, not a video: give the video file itself")
    try:
        with av.open(
            address(path),
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",  # tags from before UTF-8
        ) as container:
            return _describe(path, container)
    except (av.FFmpegError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        named, _ = guess_type(path.name)
        else_picture = (
            "" if (named or "").startswith("video/") else "; save a picture as JPEG or PNG"
        )
        raise MediaError(
            f"{path} can't be read as video ({reason}): it is damaged, cut off, or no video file"
            f"{else_picture}"
        ) from error


def require_file(path: Path) -> None:
    """Raise `MediaError` unless `path` is a file that can be opened, and isn't empty."""
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder where a video file is expected")
        if not path.exists():
            if path.parts and path.parts[0] in ADDRESSES:
                raise MediaError(f"{path}: addresses are not opened: download the file first")
            raise MediaError(f"{path} doesn't exist: check the path")
        if not path.is_file():
            raise MediaError(f"{path} is no regular file: copy it to one first")
        if not can_be_named(path):
            raise MediaError(f"{str(path)!r} has a name that is not UTF-8: rename it")
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty: copy or download it again")
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(f"{path} can't be opened: {error.strerror}") from error


@dataclass
class _Packets:
    """The first packets of a video stream."""

    times: list[Fraction] = field(default_factory=list)
    """Seconds on the container's clock, ascending."""
    complete: bool = True
    """Whether these are all packets of the file."""
    frame: VideoFrame | None = None
    """The first frame that decodes."""


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    packets = _Packets()
    seen = 0
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            seen += 1
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                packets.times.append(stamp * packet.time_base)
        if packets.frame is None:
            packets.frame = _first_frame(packet)
        if seen >= PACKETS_READ:
            packets.complete = False
            break
    packets.times.sort()
    return packets


def _first_frame(packet: av.Packet) -> VideoFrame | None:
    try:
        return next((f for f in packet.decode() if isinstance(f, VideoFrame)), None)
    except av.FFmpegError:  # a damaged packet: a later one may do
        return None


def _describe(path: Path, container: InputContainer) -> VideoInfo:
    stream = _main_stream(path, container)
    if stream.width * stream.height > _MOST_PIXELS:
        raise MediaError(f"{path} is {stream.width}x{stream.height}: scale it down first")
    packets = _read_packets(container, stream)
    frame = packets.frame
    if frame is None:
        raise MediaError(f"no frame of {path} can be decoded: it is damaged or cut off")

    tick = Fraction(stream.time_base or Fraction(1, 1000))
    duration = _duration(container, stream, packets)
    declared = stream.frames or None
    variable = is_variable(packets.times, tick=tick)
    if variable:
        rate = nominal_rate(packets.times)
        pace = (len(packets.times) - 1) / (packets.times[-1] - packets.times[0])
    else:
        rates = [stream.base_rate, stream.average_rate, stream.guessed_rate]
        if len(packets.times) < 2:  # a bare stream without times: the base counts fields
            rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
        pace = rate = constant_rate(packets.times or [Fraction(0)], tick=tick, declared=rates)

    sample_aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    rotation = round(frame.rotation) % 360
    width, height = _upright(frame.width, frame.height, sample_aspect, rotation)
    if max(width, height) > NARROWEST * min(width, height):
        raise MediaError(f"{path} is {width}x{height}: too narrow for a picture of a face")
    first = frame.pts if frame.pts is not None else (stream.start_time or 0)
    components = frame.format.components
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rate=rate,
        frames=_frame_count(declared, pace * duration if duration else None, packets),
        duration=duration,
        start=first * tick,
        variable_rate=variable,
        audio=_audio_tracks(container),
        bit_depth=max((component.bits for component in components), default=8),
        has_alpha=_has_alpha(stream, frame),
        rotation=rotation,
        codec=stream.codec_context.name,
        index=stream.index,
        time_base=tick,
        square=sample_aspect == 1,
        transfer=_TRANSFERS.get(int(frame.color_trc), "sdr"),
        primaries=_PRIMARIES.get(int(frame.color_primaries), "bt709"),
        coded=(frame.height, frame.width) if rotation in {90, 270} else (frame.width, frame.height),
        interlaced=bool(frame.interlaced_frame),
        untagged=int(frame.colorspace) == _UNSPECIFIED_MATRIX and _is_yuv(frame),
        clock_start=Fraction(container.start_time or 0, av.time_base),
        mark=_mark(container),
    )


def _mark(container: InputContainer) -> str:
    tags = {key.lower(): value for key, value in container.metadata.items()}
    comment = tags.get("comment", "")
    return comment if comment.startswith(MARK_START) else ""


def _main_stream(path: Path, container: InputContainer) -> VideoStream:
    """The largest video stream that is not the cover picture of a sound file."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
        and stream.codec_context is not None
    ]
    if not streams:
        kind = "only sound" if container.streams.audio else "no video"
        raise MediaError(f"{path} holds {kind}: give a file with a picture")
    return max(streams, key=lambda stream: stream.width * stream.height)


def _duration(container: InputContainer, stream: VideoStream, packets: _Packets) -> Fraction | None:
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    times = packets.times
    if packets.complete and len(times) > 1:
        span = times[-1] - times[0]
        return span + span / (len(times) - 1)
    if container.duration is not None:
        return Fraction(container.duration, av.time_base)
    return None


def _frame_count(declared: int | None, expected: Fraction | None, packets: _Packets) -> int | None:
    """The declared count unless the duration belies it, as in AVI files that count fields."""
    if declared and (expected is None or abs(declared - expected) <= max(2, expected / 50)):
        return declared
    if packets.complete and packets.times:
        return len(packets.times)
    return round(expected) if expected else None


def _upright(width: int, height: int, aspect: Fraction, rotation: int) -> tuple[int, int]:
    """Size with square pixels (`aspect` is a pixel's width over its height), then turned."""
    if aspect > 1:
        width = round(width * aspect)
    elif aspect < 1:
        height = round(height / aspect)
    return (height, width) if rotation in {90, 270} else (width, height)


def _has_alpha(stream: VideoStream, frame: VideoFrame) -> bool:
    # WebM keeps alpha in a second VP8/VP9 picture, which the default decoders drop.
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    return tags.get("alpha_mode") == "1" or any(c.is_alpha for c in frame.format.components)


def _is_yuv(frame: VideoFrame) -> bool:
    kind = frame.format
    return not (kind.is_rgb or kind.has_palette) and len(kind.components) >= 3


def _audio_tracks(container: InputContainer) -> tuple[AudioTrack, ...]:
    tracks = []
    for stream in container.streams.audio:
        duration = None
        if stream.duration is not None and stream.time_base is not None:
            duration = stream.duration * stream.time_base
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        tracks.append(AudioTrack(index=stream.index, codec=codec, duration=duration))
    return tuple(tracks)
