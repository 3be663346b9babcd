"""From the driver's track to the source's driven landmarks: fit, steady, retarget.

The driver is fitted window by window with one identity for the whole clip, so memory doesn't grow
with its length; windows overlap by what the smoothing needs, so the result doesn't depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.track import MotionTrack, State, shot_ranges
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.retarget import Motion, Region, Retargeter, rebased
from metaportrait_cli.motion.smoothing import half_width, smooth, windows

FIT_FRAMES = 128
# A person's face is known from this many frames spread over the clip, a shot's reference and
# framing from this many spread over the shot.
IDENTITY_FRAMES = 96
REFERENCE_FRAMES = 256


@dataclass(frozen=True)
class DriveOptions:
    """How the driver's motion is passed on; see the command's help."""

    motion: Motion = "relative"
    strength: float = 1.0
    region: Region = "all"
    smooth: bool = True
    reference_frame: int | None = None
    """Frame that corresponds to the source at rest; `None` finds the best one of each shot."""


@dataclass
class Performance:
    """The source under the driver's motion; the notes fill while `windows` is iterated."""

    track: MotionTrack
    source_points: NDArray[np.float32]
    """(S, 478, 3): in the source's picture, then in further pictures of the person."""
    model: MorphableModel
    options: DriveOptions
    references: list[int] = field(default_factory=list)
    """The reference frame of each shot with a face."""
    clamped_frames: int = 0
    """Frames whose pose went beyond what the source supports, and was held back."""

    def windows(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Driven landmarks (T, 478, 3) in pixels of the source's picture, T ≤ `size`, in order."""
        light = self.track.light()
        shots = shot_ranges(light["shot"])
        retargeter = Retargeter(
            model=self.model,
            source_landmarks=self.source_points,
            motion=self.options.motion,
            strength=self.options.strength,
            region=self.options.region,
        )
        identity = self._driver_identity(light["state"])
        for start, stop in shots:
            if identity is None or light["state"][start] == State.ABSENT:
                at_rest = np.repeat(self.source_points[:1], stop - start, axis=0)
                yield from _split(at_rest, size)
                continue
            found = start + np.flatnonzero(light["state"][start:stop] == State.FOUND)
            reference = self._reference(retargeter, identity, found)
            for window in windows(stop - start, size=FIT_FRAMES, overlap=self._overlap):
                driver = self._fitted(start + window.start, start + window.stop, identity)
                result = retargeter.retarget(driver.frames(window.keep), reference)
                self.clamped_frames += int(result.clamped.sum())
                yield from _split(result.landmarks, size)

    @property
    def _overlap(self) -> int:
        return half_width(float(self.track.rate)) if self.options.smooth else 0

    def _fitted(self, start: int, stop: int, identity: NDArray[np.float32]) -> FaceParameters:
        fitted = fit_frames(self.model, self.track.read(start, stop)["points"], identity)
        if not self.options.smooth:
            return fitted
        return smooth(self.model, fitted, fps=float(self.track.rate))

    def _driver_identity(self, states: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        found = np.flatnonzero(states == State.FOUND)
        if not len(found):
            return None
        return fit_identity(self.model, self._points(_spread(found, IDENTITY_FRAMES)))

    def _reference(
        self,
        retargeter: Retargeter,
        identity: NDArray[np.float32],
        found: NDArray[np.intp],
    ) -> FaceParameters:
        """One frame that stands for the driver at the source's rest, with the shot's framing."""
        candidates = _spread(found, REFERENCE_FRAMES)
        shot = fit_frames(self.model, self._points(candidates), identity)
        chosen = self.options.reference_frame
        if chosen is None:
            chosen = int(candidates[retargeter.choose_reference(shot)])
        self.references.append(chosen)
        # Steadied with its neighbours, or its noise would shift every frame of the result.
        first = max(chosen - self._overlap, int(found[0]))
        last = min(chosen + self._overlap, int(found[-1]))
        if not first <= chosen <= last:  # a frame of another shot was asked for
            first = last = chosen
        steady = self._fitted(first, last + 1, identity).frame(chosen - first)
        return rebased(steady, shot)

    def _points(self, frames: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.concatenate([self.track.read(i, i + 1)["points"] for i in frames.tolist()])


def _spread(frames: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most `count` of the frames, evenly spread."""
    if len(frames) <= count:
        return frames
    return frames[np.linspace(0, len(frames) - 1, count).astype(np.intp)]


def _split(points: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(points), size):
        yield points[start : start + size]
