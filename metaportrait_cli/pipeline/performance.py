"""From the driver's track to the source's driven landmarks: fit, steady, retarget.

The driver is fitted window by window with one identity for the whole clip, so memory doesn't grow
with its length; windows overlap by what the smoothing needs, so the result doesn't depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError, check_kinds
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import MotionTrack, State, shot_ranges
from metaportrait_cli.metrics.motion import shape_distance
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.rest import at_rest, straight_ahead
from metaportrait_cli.motion.retarget import (
    Framing,
    Motion,
    Retargeter,
    framed,
    rebased,
)
from metaportrait_cli.motion.smoothing import half_width, smooth, windows
from metaportrait_cli.motion.strengths import Strengths

FIT_FRAMES = 128
# A person's face is known from this many frames spread over the clip, a shot's reference and
# framing from this many spread over the shot.
IDENTITY_FRAMES = 96
REFERENCE_FRAMES = 256
# Shapes nearer than this are one person's: so near to their own clip are 95 of 100 pictures that
# look into the camera (four of five of all), and one of 800 pictures of strangers (151 people).
SAME_PERSON = 0.65
# The same where the picture is out of the driver's clip: thirty frames tell little of a shape, and
# who else is in the clip is further away, for the most.
SAME_CLIP = 1.0
# What a reference tells of the head rather than the face.
TURNS, MOST_TURN = ("yaw", "pitch", "roll"), 90
POSE = ("rotation", "scale", "translation")


@dataclass(frozen=True)
class DriveOptions:
    """How the driver's motion is passed on; see the command's help."""

    motion: Motion = "relative"
    framing: Framing | Literal["auto"] = "auto"
    """Whose place and size the face has; `auto` takes the driver's where motion is absolute."""
    strength: float = 1.0
    region: str = "all"
    """Parts of the motion with their strengths, as `Strengths.of` takes them"""
    smooth: bool = True
    reference_frame: int | None = None
    """Frame that corresponds to what the source shows, expression included; `None` counts the
    expression from either person's rest, and the pose from the best frame of each shot."""
    yaw: float = 0.0
    """Degrees by which the head is turned besides, to the picture's right …"""
    pitch: float = 0.0
    """… up …"""
    roll: float = 0.0
    """… and tilted clockwise; however much the driver moves"""

    def __post_init__(self) -> None:
        check_kinds(self)
        self.strengths  # noqa: B018  raises what is wrong with them
        if self.motion not in get_args(Motion):
            raise UsageError(f"`motion` {self.motion} is neither relative nor absolute")
        if self.framing not in ("auto", *get_args(Framing)):
            raise UsageError(f"`framing` {self.framing} is none of auto, source, driver")
        for name in TURNS:
            if not -MOST_TURN <= getattr(self, name) <= MOST_TURN:
                raise UsageError(
                    f"`{name}` {getattr(self, name):g} is not between -{MOST_TURN} and {MOST_TURN}"
                    " degrees"
                )

    @property
    def turn(self) -> tuple[float, float, float]:
        """(yaw, pitch, roll) in radians, as `motion.alignment` counts them."""
        return (-math.radians(self.yaw), -math.radians(self.pitch), math.radians(self.roll))

    @property
    def strengths(self) -> Strengths:
        """Of each part."""
        return Strengths.of(self.region, self.strength)


@dataclass
class Performance:
    """The source under the driver's motion; the notes fill while `windows` is iterated."""

    track: MotionTrack
    source: Source
    model: MorphableModel
    options: DriveOptions
    own_clip: bool = False
    """Whether the source's picture is out of the driver's clip"""
    ready: Retargeter | None = None
    """What `retargeter_of` gives, if somebody has it already and needs it no more"""
    references: list[int] = field(default_factory=list)
    """The reference frame of each shot with a face."""
    clamped_frames: int = 0
    """Frames whose pose went beyond what the source supports, and was held back."""
    _shot: tuple[int, FaceParameters] | None = field(default=None, init=False)
    """All frames of a short shot, fitted for its reference, from a first one on"""

    def windows(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Driven landmarks (T, 478, 3) in pixels of the source's picture, T ≤ `size`, in order."""
        light = self.track.light()
        shots = shot_ranges(light["shot"])
        retargeter, (identity, rest) = self.retargeter, self._driver
        start = retargeter.rest
        if rest is None or self.options.reference_frame is not None:
            rest, start = None, retargeter.source
        elif self.same_person:
            start = rest
        for first, last in shots:
            if identity is None or light["state"][first] == State.ABSENT:
                still = np.repeat(retargeter.still()[None], last - first, axis=0)
                yield from _split(still, size)
                continue
            found = first + np.flatnonzero(light["state"][first:last] == State.FOUND)
            reference = self._reference(retargeter, identity, found)
            if rest is not None:
                pose = {name: getattr(reference, name) for name in POSE}
                gaze = retargeter.source.gaze
                if not self.same_person:
                    gaze = straight_ahead(gaze, rest.gaze)
                reference = replace(rest, gaze=gaze, **pose)
            for window in windows(last - first, size=FIT_FRAMES, overlap=self._overlap):
                driver = self._fitted(first + window.start, first + window.stop, identity)
                result = retargeter.retarget(driver.frames(window.keep), reference, start=start)
                self.clamped_frames += int(result.clamped.sum())
                yield from _split(result.landmarks, size)

    @cached_property
    def retargeter(self) -> Retargeter:
        """The source, ready to be driven; its `compensation` may be set before `windows`."""
        retargeter = self.ready or retargeter_of(self.source, self.model, self.options)
        identity, _ = self._driver
        nearest = SAME_CLIP if self.own_clip else SAME_PERSON
        if identity is not None and shape_distance(retargeter.source.identity, identity) < nearest:
            # A clip knows the person's face better than a picture does.
            retargeter.know_as(identity)
        return retargeter

    @property
    def same_person(self) -> bool:
        """Whether the driver is the source's own person."""
        identity, _ = self._driver
        return identity is not None and self.retargeter.source.identity is identity

    @property
    def _overlap(self) -> int:
        return half_width(float(self.track.rate)) if self.options.smooth else 0

    def _fitted(self, start: int, stop: int, identity: NDArray[np.float32]) -> FaceParameters:
        fitted = self._of_shot(start, stop)
        if fitted is None:
            fitted = fit_frames(self.model, self.track.read(start, stop)["points"], identity)
        if not self.options.smooth:
            return fitted
        return smooth(self.model, fitted, fps=float(self.track.rate))

    def _of_shot(self, start: int, stop: int) -> FaceParameters | None:
        """Frames of the shot, if they are fitted."""
        if self._shot is None:
            return None
        first, fitted = self._shot
        if not first <= start <= stop <= first + len(fitted):
            return None
        return fitted.frames(slice(start - first, stop - first))

    @cached_property
    def _driver(self) -> tuple[NDArray[np.float32] | None, FaceParameters | None]:
        """The driver's identity, and the driver at rest."""
        found = np.flatnonzero(self.track.light()["state"] == State.FOUND)
        if not len(found):
            return None, None
        seen = self._records(_spread(found, IDENTITY_FRAMES))
        identity = fit_identity(self.model, seen["points"])
        if not seen["blendshapes"].any():
            return identity, None
        fitted = fit_frames(self.model, seen["points"], identity)
        return identity, at_rest(self.model, fitted, seen["blendshapes"])

    def _reference(
        self,
        retargeter: Retargeter,
        identity: NDArray[np.float32],
        found: NDArray[np.intp],
    ) -> FaceParameters:
        """One frame that stands for the driver as the source is seen, with the wanted framing."""
        candidates = _spread(found, REFERENCE_FRAMES)
        shot = fit_frames(self.model, self._records(candidates)["points"], identity)
        first, last = int(found[0]), int(found[-1])
        self._shot = (first, shot) if len(candidates) == last + 1 - first else None
        chosen = self.options.reference_frame
        if chosen is None:
            chosen = int(candidates[retargeter.choose_reference(shot)])
        self.references.append(chosen)
        # Steadied with its neighbours, or its noise would shift every frame of the result.
        first, last = max(chosen - self._overlap, first), min(chosen + self._overlap, last)
        if not first <= chosen <= last:  # a frame of another shot was asked for
            first = last = chosen
        steady = self._fitted(first, last + 1, identity).frame(chosen - first)
        if retargeter.framing == "source":
            return rebased(steady, shot)
        height, width = self.source.picture.shape[:2]
        return framed(
            steady,
            retargeter.source,
            driver_size=(self.track.width, self.track.height),
            source_size=(width, height),
        )

    def _records(self, frames: NDArray[np.intp]) -> NDArray[np.void]:
        return np.concatenate([self.track.read(i, i + 1) for i in frames.tolist()])


def retargeter_of(source: Source, model: MorphableModel, options: DriveOptions) -> Retargeter:
    """The source as its pictures alone tell of it."""
    faces = [view.face for view in (source, *source.others)]
    framing = options.framing
    if framing == "auto":
        framing = "driver" if options.motion == "absolute" else "source"
    shapes = np.stack([face.blendshapes for face in faces])
    return Retargeter(
        model=model,
        source_landmarks=np.stack([face.points for face in faces]),
        # Faces that no detector looked at have none: they are taken as they are.
        source_blendshapes=shapes if shapes.any() else None,
        motion=options.motion,
        framing=framing,
        strength=options.strength,
        region=options.region,
        turn=options.turn,
    )


def _spread(frames: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most `count` of the frames, evenly spread."""
    if len(frames) <= count:
        return frames
    return frames[np.linspace(0, len(frames) - 1, count).astype(np.intp)]


def _split(points: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(points), size):
        yield points[start : start + size]
