"""Training samples of the region network: mouths and eyes under the warp, and as they really were.

Pairs of pictures of one clip, the source driven by the target's landmarks; cut into aligned
patches once, before training, for a patch is learnt from faster than it is made. Photos of opened
mouths tell of teeth and their light: there the mouth is emptied, all else stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import CorrespondenceWarp, moved_by
from metaportrait_cli.face.identity import chip_to_picture, cut_chips
from metaportrait_cli.face.mouth_inside import MouthInside
from metaportrait_cli.face.regions import (
    KINDS,
    PATCHES,
    REGIONS,
    Kind,
    OwnRegions,
    cut_patch,
    kind_of,
    patch_side,
    patch_to_picture,
)
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.mouth import MouthNetwork
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.render.mouths.teeth import OpenedTeeth, TeethPainter, drawn_patches
from metaportrait_cli.training.data.pairs import Faces

SOURCES, TARGETS = 4, 4
"""Of a clip: those whose mouths are most shut and most open, and others by chance"""
OPEN_PHOTO = 0.06
"""Opening of a photo's mouth, in distances of the pupils, from which on it tells of teeth"""
FLOW_GRID = 256  # as the renderer's
CHANNELS: dict[Kind, int] = {"mouth": MouthNetwork.channels, "eyes": RegionNetwork.channels}
"""C, of the inputs"""


@dataclass(frozen=True)
class Patches:
    """Samples of one kind: `inputs` (N, P, P, C) and `target` (N, P, P, 3), uint8 in [0, 255];
    `person` (N,) is the row of each in `identity` (M, 128)."""

    inputs: NDArray[np.uint8]
    target: NDArray[np.uint8]
    person: NDArray[np.int32]
    identity: NDArray[np.float32]

    @cached_property
    def hard(self) -> NDArray[np.intp]:
        """Numbers of the quarter in which lips or lids differ most from the source's."""
        driven, own = self.inputs[..., 6:8], self.inputs[..., 9:11]
        apart = np.array(
            [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(driven, own, strict=True)]
        )
        return np.argsort(-apart, kind="stable")[: len(apart) // 4]

    @classmethod
    def load(cls, folder: Path, kind: Kind) -> Patches:
        """Reads what `save` wrote."""
        names = ("inputs", "target", "person", "identity")
        return cls(*(np.load(folder / f"{kind}-{name}.npy", mmap_mode="r") for name in names))

    def save(self, folder: Path, kind: Kind) -> None:
        """Writes one file an array."""
        for name in ("inputs", "target", "person", "identity"):
            value = getattr(self, name)
            np.save(folder / f"{kind}-{name}.npy", value)


def make_patches(
    shards: Iterable[Faces],
    *,
    people: Sequence[str],
    identity: IdentityNetwork,
    teeth: TeethPainter,
    seed: int,
) -> dict[Kind, Patches]:
    """Patches of up to `SOURCES` × `TARGETS` pairs of each clip of these people.

    Prepare at 512: the mouth's patches are finer than pictures of 256.
    """
    allowed = set(people)
    samples = PatchList()
    embeddings: list[NDArray[np.float32]] = []
    everywhere = np.ones((FLOW_GRID, FLOW_GRID), np.float32)
    for faces in shards:
        for clip, (start, end) in zip(faces.clips, faces.ranges, strict=True):
            pictures, faces_of = faces.images[start:end], faces.points[start:end]
            opened = _openings(faces_of)
            alone = len(pictures) == 1
            if clip.identity not in allowed or (alone and opened[0] < OPEN_PHOTO):
                continue
            person = len(embeddings)
            draw = np.random.default_rng((seed, person))
            embeddings.append(_embedding(identity, pictures[0], faces_of[0]))
            if alone:
                samples.add_photo(pictures[0], faces_of[0], teeth=teeth, person=person)
                continue
            order = np.argsort(opened, kind="stable")
            for source in _some(order, SOURCES, draw):
                image, points = pictures[source], faces_of[source]
                warp = CorrespondenceWarp(points, side=faces.size, fade=everywhere)
                own, mouth = OwnRegions(image, points), MouthInside(image, points)
                drawn = teeth.open(image, points)
                for n in _some(order[order != source], TARGETS, draw):
                    found = warp(faces_of[n])
                    warped = moved_by(image, found.shift)
                    mouth.fill(warped, found.mouth_gap)
                    samples.add_pair(
                        own,
                        warped=warped,
                        gap=found.mouth_gap,
                        driven=faces_of[n],
                        truth=pictures[n],
                        # Where they really are: light is learnt for teeth alone.
                        teeth=drawn.placed(pictures[n], faces_of[n]),
                        person=person,
                    )
    return samples.stacked(np.stack(embeddings) if embeddings else np.zeros((0, 128), np.float32))


class PatchList:
    """Gathers the patches of pairs of pictures."""

    def __init__(self) -> None:
        self._inputs: dict[Kind, list[NDArray[np.uint8]]] = {kind: [] for kind in KINDS}
        self._target: dict[Kind, list[NDArray[np.uint8]]] = {kind: [] for kind in KINDS}
        self._person: dict[Kind, list[int]] = {kind: [] for kind in KINDS}

    def add_pair(
        self,
        own: OwnRegions,
        *,
        warped: NDArray[np.uint8],
        gap: NDArray[np.float32],
        driven: NDArray[np.float32],
        truth: NDArray[np.uint8],
        teeth: OpenedTeeth,
        person: int,
        kinds: Sequence[Kind] = KINDS,
    ) -> None:
        """A source's regions warped to `driven` (478, 3), and the truth, both (S, S, 3)."""
        gap = teeth.shown.replaced(driven, gap)
        for region in REGIONS:
            kind = kind_of(region)
            if kind in kinds:
                patch = own.beside(warped, driven, gap, region)
                if kind == "mouth":
                    drawn = drawn_patches([teeth.draw(driven, gap, size=len(truth))])
                    patch = np.concatenate([patch, *drawn])
                self._inputs[kind].append(patch.transpose(1, 2, 0))
                matrix = patch_to_picture(driven, region)
                self._target[kind].append(cut_patch(truth, matrix, patch_side(region)))
                self._person[kind].append(person)

    def add_photo(
        self,
        photo: NDArray[np.uint8],
        points: NDArray[np.float32],
        *,
        teeth: TeethPainter,
        person: int,
    ) -> None:
        """A photo's own mouth (its face at (478, 3)), emptied; the photo (S, S, 3) is the truth."""
        gap = points[topology.ring("lips_inner"), :2]
        emptied = photo.copy()
        MouthInside(photo, points).fill(emptied, gap)
        self.add_pair(
            OwnRegions(emptied, points),
            warped=emptied,
            gap=gap,
            driven=points,
            truth=photo,
            teeth=teeth.open(emptied, points).placed(photo, points),
            person=person,
            kinds=("mouth",),
        )

    def stacked(self, identity: NDArray[np.float32]) -> dict[Kind, Patches]:
        """All samples; `identity` (M, 128) has a row for each person."""

        def together(
            pictures: list[NDArray[np.uint8]], side: int, channels: int
        ) -> NDArray[np.uint8]:
            return np.stack(pictures) if pictures else np.zeros((0, side, side, channels), np.uint8)

        return {
            kind: Patches(
                inputs=together(self._inputs[kind], PATCHES[kind], CHANNELS[kind]),
                target=together(self._target[kind], PATCHES[kind], 3),
                person=np.array(self._person[kind], np.int32),
                identity=identity,
            )
            for kind in KINDS
        }


def as_tensors(
    patches: Patches, chosen: NDArray[np.integer], *, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples by number: inputs (B, C, P, P) and target (B, 3, P, P) in [0, 1], identity."""

    def planes(image: NDArray[np.uint8]) -> torch.Tensor:
        moved = torch.from_numpy(np.ascontiguousarray(image)).to(device)
        return moved.permute(0, 3, 1, 2).float() / 255

    identity = torch.from_numpy(patches.identity[patches.person[chosen]]).to(device)
    return planes(patches.inputs[chosen]), planes(patches.target[chosen]), identity


def _openings(points: NDArray[np.float32]) -> NDArray[np.floating]:
    """How far the mouths of faces (N, 478, 3) are open, in distances of the pupils: (N,)."""
    pupils = np.linalg.norm(points[:, 468] - points[:, 473], axis=-1)
    upper, lower = topology.INNER_LIPS[len(topology.INNER_LIPS) // 2]
    return np.linalg.norm(points[:, upper] - points[:, lower], axis=-1) / pupils


def _some(order: NDArray[np.integer], count: int, draw: np.random.Generator) -> list[int]:
    """So many of these numbers: the first and the last, and others by chance."""
    ends = order[[0, -1]] if len(order) > 1 else order
    return np.concatenate([ends, draw.permutation(order[1:-1])[: count - len(ends)]]).tolist()


def _embedding(
    network: IdentityNetwork, image: NDArray[np.uint8], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    chip = torch.from_numpy(chip_to_picture(points))[None]
    with torch.inference_mode():
        return network(cut_chips(as_tensor(image[None]), chip))[0].numpy()
