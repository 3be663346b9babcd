"""Training samples of folds and shading: the light on a person's skin in two pictures of a clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.render.shading.skin import skin_map
from metaportrait_cli.training.data.pairs import Faces

MOST_TURNED = np.radians(35.0)
"""Faces turned further show too little of either cheek."""
CANDIDATES = 4


@dataclass(frozen=True)
class Skins:
    """N pictures of faces, as maps of their skin (see `SkinMap`), clip after clip."""

    light: NDArray[np.float16]
    """(N, M, M)"""
    seen: NDArray[np.uint8]
    """(N, M, M), 255 where a place is surely seen"""
    expression: NDArray[np.float32]
    """(N, E) by all pictures of the clip"""
    alone: NDArray[np.float32]
    """(N, E) as a source's is known, by the picture itself"""
    angles: NDArray[np.float32]
    """(N, 3) of the head"""
    clip: NDArray[np.int32]
    """(N,) ascending"""
    person: NDArray[np.int32]
    """(N,)"""

    @classmethod
    def of(cls, shards: Iterable[Faces], *, people: Sequence[str], model: MorphableModel) -> Skins:
        """Of all pictures of these people that aren't turned far."""
        numbers = {person: number for number, person in enumerate(people)}
        skin = skin_map(model)
        rows: dict[str, list[Any]] = defaultdict(list)
        clips = 0
        for faces in shards:
            for clip, (start, end) in zip(faces.clips, faces.ranges, strict=True):
                if clip.identity not in numbers or clip.count < 2:
                    continue
                points = faces.points[start:end]
                fitted = fit_frames(model, points, fit_identity(model, points))
                for number in np.flatnonzero(np.abs(fitted.angles).max(1) < MOST_TURNED).tolist():
                    single = points[number : number + 1]
                    alone = fit_frames(model, single, fit_identity(model, single))
                    light, seen = skin.light(faces.images[start + number], points[number])
                    row = {
                        "light": light.astype(np.float16),
                        "seen": np.rint(255 * seen).astype(np.uint8),
                        "expression": fitted.expression[number].astype(np.float32),
                        "alone": alone.expression[0].astype(np.float32),
                        "angles": fitted.angles[number].astype(np.float32),
                        "clip": np.int32(clips),
                        "person": np.int32(numbers[clip.identity]),
                    }
                    for name, value in row.items():
                        rows[name].append(value)
                clips += 1
        stacked: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
        return cls(**stacked)

    @classmethod
    def load(cls, folder: Path) -> Skins:
        """Reads what `save` wrote."""
        return cls(*(np.load(folder / f"{each.name}.npy") for each in fields(cls)))

    def save(self, folder: Path) -> None:
        """Writes one file an array."""
        for each in fields(self):
            np.save(folder / f"{each.name}.npy", getattr(self, each.name))

    def pair(self, draw: np.random.Generator, person: int) -> tuple[int, int]:
        """Two pictures of one of the person's clips: the second differs most out of a few."""
        own = np.flatnonzero(self.person == person)
        first = int(draw.choice(own))
        start, end = np.searchsorted(self.clip, self.clip[first] + np.array([0, 1]))
        others = draw.integers(start, end, CANDIDATES)
        apart = np.abs(self.expression[others] - self.expression[first]).mean(-1)
        return first, int(others[apart.argmax()])
