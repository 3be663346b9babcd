"""Pictures of a person that a portrait has not seen, and how near renderings come to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.identity import embed
from metaportrait_cli.face.source import Lends, Source
from metaportrait_cli.metrics.identity import identity_distance
from metaportrait_cli.metrics.perceptual import feature_distance, unit_features
from metaportrait_cli.metrics.regions import cut_region, eye_regions, mouth_region
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.person.atlas import as_source, crops_of
from metaportrait_cli.pipeline.person.recording import Recording
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.render.protocol import Driven, Frames, Renderer

SIZE = 256
TOGETHER = 4
"""Frames that the networks look at at once"""
FACE_SHARE = 1.1
"""Side of the face's square relative to the points' box."""


@dataclass(frozen=True)
class Quality:
    """Means over frames; lower is better. See `metrics` for papers and ranges."""

    lpips_like: float
    """Of the whole crop, or of the face where photos have each a background of their own"""
    mouth_lpips_like: float
    eyes_lpips_like: float
    identity_distance: float

    @property
    def overall(self) -> float:
        """One number to choose by: as much for the picture as for mouth and eyes together."""
        return self.lpips_like + (self.mouth_lpips_like + self.eyes_lpips_like) / 2

    def is_no_worse_than(self, other: Quality) -> bool:
        """Whether neither the picture nor the mouth lost anything."""
        return (
            self.lpips_like <= other.lpips_like and self.mouth_lpips_like <= other.mouth_lpips_like
        )


@dataclass(frozen=True)
class Trial:
    """Frames to be rendered from one source, and how they truly look; crops at `SIZE`."""

    source: Source
    driven: NDArray[np.float32]
    """(T, 478, 3)"""
    truth: Frames
    """(T, S, S, 3)"""
    whole: bool
    """Whether the surroundings count"""

    def render(self, renderer: Renderer, *, lends: Lends | None) -> Frames:
        """The frames (T, S, S, 3); `None` leaves the source's further pictures out."""
        source = replace(self.source, others=()) if lends is None else self.source
        source = replace(source, lends=lends or source.lends)
        session = renderer.open(source, size=SIZE)
        return all_resized(session.render(Driven.of(self.driven)).frames, SIZE)


class Yardstick:
    """Measures renderings; holds the networks that look at them, and has seen the truths."""

    def __init__(
        self, trials: Sequence[Trial], *, features: SqueezeNet, identity: IdentityNetwork
    ) -> None:
        self.trials = trials
        self._features = features
        self._identity = identity
        self._truths = [
            [seen.kept() for seen in self._looks(trial, trial.truth)] for trial in trials
        ]

    def measure(self, results: Sequence[Frames]) -> Quality:
        """Of one rendering a trial."""
        values: list[Tensor] = []
        for trial, result, truths in zip(self.trials, results, self._truths, strict=True):
            for own, truth in zip(self._looks(trial, result), truths, strict=True):
                values.append(own.distances(truth))
        return Quality(*torch.cat(values, dim=1).mean(1).tolist())

    def _looks(self, trial: Trial, frames: Frames) -> Iterator[_Seen]:
        for first in range(0, len(frames), TOGETHER):
            some = slice(first, first + TOGETHER)
            yield self._look(frames[some], trial.driven[some], whole=trial.whole)

    def _look(self, frames: Frames, faces: NDArray[np.float32], *, whole: bool) -> _Seen:
        """Of frames (T, S, S, 3) with their faces (T, 478, 3)."""
        places = [(mouth_region(face), *eye_regions(face)) for face in faces]
        large = frames
        if not whole:
            squares = [_face_square(face) for face in faces]
            large = np.stack([s.cut(f, SIZE) for s, f in zip(squares, frames, strict=True)])
        parts = [
            np.stack([cut_region(f, place[k]) for f, place in zip(frames, places, strict=True)])
            for k in range(3)
        ]
        return _Seen(
            [unit_features(self._features, as_tensor(part)) for part in (large, *parts)],
            embed(self._identity, frames, faces),
        )


@dataclass(frozen=True)
class _Seen:
    """A few frames as networks see them."""

    features: list[list[Tensor]]
    """Maps (T, C, h, w) of the whole (or the face), mouth, right and left eye"""
    embeddings: Tensor
    """(T, 128)"""

    def kept(self) -> _Seen:
        """The same in half the memory."""
        return _Seen([[x.half() for x in maps] for maps in self.features], self.embeddings)

    def distances(self, truth: _Seen) -> Tensor:
        """From the truth, (4, T): see `Quality`."""
        whole, mouth, right, left = (
            feature_distance(own, [x.float() for x in maps])
            for own, maps in zip(self.features, truth.features, strict=True)
        )
        identity = identity_distance(self.embeddings, truth.embeddings)
        return torch.stack([whole, mouth, (right + left) / 2, identity])


class Contest:
    """Ways to render the trials, of which the best is kept: the canvas alone, unless another is
    better on the whole and loses nothing. Without trials nothing is judged."""

    def __init__(self, yardstick: Yardstick, renderer: Renderer) -> None:
        """Starts with the canvas alone, under `renderer`."""
        self._yardstick = yardstick
        self.trials = yardstick.trials
        self.before = [trial.render(renderer, lends=None) for trial in self.trials]
        """One rendering a trial, from the canvas alone"""
        self.after = self.before
        """The same of the best way"""
        self.quality: dict[str, Quality] = {}
        if self.trials:
            self.quality["before"] = self.quality["after"] = yardstick.measure(self.before)

    def enter(self, renderer: Renderer, *, lends: Lends | None, title: str) -> bool:
        """Tries a way; its quality is kept as `title`'s if it is the best one so far."""
        frames = [trial.render(renderer, lends=lends) for trial in self.trials]
        found = self._yardstick.measure(frames)
        best = self.quality["after"]
        if found.overall >= best.overall or not found.is_no_worse_than(self.quality["before"]):
            return False
        self.after, self.quality["after"], self.quality[title] = frames, found, found
        return True


def video_trial(source: Source, held: Recording, *, most: int) -> Trial:
    """At most `most` looks of a video, evenly spread, in the source's crop."""
    count = min(most, len(held.looks))
    chosen = np.linspace(0, len(held.looks) - 1, count).astype(int)
    looks = [held.looks[n] for n in chosen]
    return Trial(
        source=source,
        driven=np.stack([source.crop.to_crop(look.points, SIZE) for look in looks]),
        truth=np.stack([source.crop.cut(look.picture(), SIZE) for look in looks]),
        whole=True,
    )


def photo_trials(photos: Recording, canvas: int) -> list[Trial]:
    """Each photo but the canvas, rendered from all the others; none of fewer than three photos."""
    crops = crops_of(photos, canvas)
    views = [as_source(look, crop) for look, crop in zip(photos.looks, crops, strict=True)]
    trials = []
    for k, view in enumerate(views):
        if k == canvas:
            continue
        others = tuple(v for n, v in enumerate(views) if n not in (k, canvas))
        if not others:
            continue
        trials.append(
            Trial(
                source=replace(views[canvas], others=others),
                driven=view.landmarks(SIZE)[None],
                truth=view.crop.cut(view.picture, SIZE)[None],
                whole=False,
            )
        )
    return trials


def _face_square(points: NDArray[np.float32]) -> Crop:
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    side = round(float((high - low).max()) * FACE_SHARE)
    x, y = (low + high) / 2 - side / 2
    return Crop(round(float(x)), round(float(y)), side)
