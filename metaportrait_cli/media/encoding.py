"""How clips are stored: kinds of file, the codecs they hold, and encoders' settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MUXERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"},
    **{".webm": "webm", ".gif": "gif"},
}
FOLDER_CODEC = "png"
_CODECS = {
    "mp4": ("h264", "h265"),
    "mov": ("h264", "h265"),
    "matroska": ("h264", "h265", "vp9"),
    "webm": ("vp9",),
    "gif": ("gif",),
}
"""What a container is written with, the usual one first."""
_ENCODERS: dict[str, dict[str, Any]] = {
    "h264": {"c:v": "libx264", "preset": "veryfast", "crf": 17},
    "h265": {"c:v": "libx265", "preset": "fast", "crf": 20, "x265-params": "log-level=none"},
    "vp9": {"c:v": "libvpx-vp9", "crf": 24, "b:v": 0, "deadline": "good", "cpu-used": 4},
    "gif": {"c:v": "gif"},
}
"""Their settings; each crf is where faces look the same beside what was put in."""
_HIGHEST_CRF = {"h264": 51, "h265": 51, "vp9": 63, "gif": -1}


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored."""

    codec: str = "auto"
    """h264, h265 or vp9; `auto` is what everything plays, by the kind of file; png is a folder of
    pictures"""
    crf: int | None = None
    """The encoder's quality, less is better; None is nearly the same to the eye"""

    @property
    def in_folder(self) -> bool:
        """Whether pictures are kept one by one in a folder."""
        return self.codec == FOLDER_CODEC

    def resolved(self, path: Path) -> tuple[str, dict[str, Any]]:
        """The codec and its encoder's settings for this file.

        Raises `ValueError`, in words, for what doesn't go together.
        """
        if self.in_folder:
            if self.crf is not None:
                raise ValueError(f"`crf` {self.crf}: with png it means nothing")
            return FOLDER_CODEC, {}
        codecs = _CODECS[MUXERS[path.suffix.lower()]]
        codec = codecs[0] if self.codec == "auto" else self.codec
        if codec not in codecs:
            raise ValueError(f"`codec` {codec}: a {path.suffix} takes {' or '.join(codecs)}")
        options = dict(_ENCODERS[codec])
        if self.crf is not None:
            if not 0 <= self.crf <= _HIGHEST_CRF[codec]:
                most = _HIGHEST_CRF[codec]
                limits = f"is from 0 to {most}" if most > 0 else "means nothing"
                raise ValueError(f"`crf` {self.crf}: with {codec} it {limits}")
            options["crf"] = self.crf
        return codec, options


USUAL = Encoding()


def muxer_for(path: Path) -> str | None:
    """ffmpeg's name of the container for the suffix of `path`, None if we don't write it."""
    return MUXERS.get(path.suffix.lower())


def suffixes() -> tuple[str, ...]:
    """The video suffixes that can be written."""
    return tuple(MUXERS)
