"""MetaPortrait: identity-preserving talking-head re-enactment on your own files.

The names below are the library; each is imported when it is first used, so importing the package
stays light. See docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaportrait_cli.errors import (
        FfmpegError,
        MediaError,
        MetaPortraitError,
        NoFaceError,
        OutOfMemoryError,
        UsageError,
        WeightsError,
    )
    from metaportrait_cli.face.track import FaceChoice
    from metaportrait_cli.media.given import Clip
    from metaportrait_cli.pipeline.animate import animate
    from metaportrait_cli.pipeline.animation import AnimateOptions, Animation, TimedPicture
    from metaportrait_cli.pipeline.engine import Engine
    from metaportrait_cli.pipeline.landmarks import extract_landmarks as landmarks
    from metaportrait_cli.pipeline.performance import DriveOptions
    from metaportrait_cli.pipeline.person.personalize import personalize
    from metaportrait_cli.pipeline.person.told import PersonalizeOptions, PersonalizeReport
    from metaportrait_cli.pipeline.report import RunReport
    from metaportrait_cli.pipeline.upscale import UpscaleOptions, upscale

__version__ = "0.1.0"

__all__ = [
    "AnimateOptions",
    "Animation",
    "Clip",
    "DriveOptions",
    "Engine",
    "FaceChoice",
    "FfmpegError",
    "MediaError",
    "MetaPortraitError",
    "NoFaceError",
    "OutOfMemoryError",
    "PersonalizeOptions",
    "PersonalizeReport",
    "RunReport",
    "TimedPicture",
    "UpscaleOptions",
    "UsageError",
    "WeightsError",
    "animate",
    "landmarks",
    "personalize",
    "upscale",
]

# Where each name lives, and its name there.
_ERRORS = {name: ("errors", name) for name in __all__ if name.endswith("Error")}
_PLACES = _ERRORS | {
    "AnimateOptions": ("pipeline.animation", "AnimateOptions"),
    "Animation": ("pipeline.animation", "Animation"),
    "Clip": ("media.given", "Clip"),
    "DriveOptions": ("pipeline.performance", "DriveOptions"),
    "Engine": ("pipeline.engine", "Engine"),
    "FaceChoice": ("face.track", "FaceChoice"),
    "PersonalizeOptions": ("pipeline.person.told", "PersonalizeOptions"),
    "PersonalizeReport": ("pipeline.person.told", "PersonalizeReport"),
    "RunReport": ("pipeline.report", "RunReport"),
    "TimedPicture": ("pipeline.animation", "TimedPicture"),
    "UpscaleOptions": ("pipeline.upscale", "UpscaleOptions"),
    "animate": ("pipeline.animate", "animate"),
    "landmarks": ("pipeline.landmarks", "extract_landmarks"),
    "personalize": ("pipeline.person.personalize", "personalize"),
    "upscale": ("pipeline.upscale", "upscale"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
