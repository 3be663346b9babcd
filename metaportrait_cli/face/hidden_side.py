"""The cheek that a turned source hides, taken from the other one: faces are nearly symmetric.

Turned back, a source seen from the side would show hair and background where its far cheek should
be. There, and only as far as the driven pose uncovers it, the mirrored points of the near side say
where to sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import add_interpolated
from metaportrait_cli.face.crop import smoothstep

# Facing is the cosine between skin and camera, 1 is head-on. Skin is hidden from the first value
# down, lies on the far side if its mirror image faces the camera that much more, and is uncovered
# when the driven pose faces it that much more; each with the width of its ramp.
HIDDEN_BELOW, HIDDEN_RAMP = 0.55, 0.3
FAR_SIDE, FAR_RAMP = 0.12, 0.3
UNCOVERED, UNCOVERED_RAMP = 0.1, 0.25
LEAST_WEIGHT = 0.05
# Light is compared at points that face the camera this well on both sides, blurred over this share
# of the crop.
SEEN_WELL = 0.45
SKIN_BLUR = 0.01
# The fill ends beside the face's edge, over this share of the grid.
EDGE_SHARE = 0.004

# In face widths: how far inside the mesh's outline a cheek's skin begins that turns to the camera,
# and from where on inwards it is where it is seen.
RIM, INWARDS = 0.05, 0.25
# A cheek is what is so far under the eyes, and from the middle.
UNDER_EYES, SIDES = (0.0, 0.15), (0.2, 0.35)
# Grey levels by which its rim differs from the skin inside it if it is no skin; both looked at in
# so many face widths from the outline.
OTHER, AT_RIM, AT_SKIN = (20.0, 45.0), (0.0, 0.02, 0.04), (0.08, 0.11, 0.14)


@dataclass(frozen=True)
class Fill:
    """`shift` (G, G, 2) as in `Correspondence`, and how much to take of it, `weight` (G, G)."""

    shift: NDArray[np.float32]
    weight: NDArray[np.float32]


class HiddenSide:
    """One source's far side; `source` (478, 3) in pixels of its crop (S, S, 3).

    `light` (3,) is what the near side's colours are multiplied by to look lit as the far side is.
    """

    def __init__(self, source: NDArray[np.float32], *, crop: NDArray[np.uint8], grid: int) -> None:
        self._grid = grid
        self._scale = grid / crop.shape[0]
        # Nothing of what the near cheek's own rim shows: it would be a line beside the far one.
        self._mirrored = CheekRim(source).inside()[topology.mirror()] * self._scale
        self._facing = facing(source)
        hidden = smoothstep((HIDDEN_BELOW - self._facing) / HIDDEN_RAMP)
        far = self._facing[topology.mirror()] - self._facing
        self._hidden = hidden * smoothstep((far - FAR_SIDE) / FAR_RAMP)
        self.light = self._light(source, crop)

    def fill(self, driven: NDArray[np.float32]) -> Fill | None:
        """What to take from the other side for driven landmarks (478, 3); `None` if nothing."""
        if self._hidden.max() < LEAST_WEIGHT:
            return None
        uncovered = facing(driven) - self._facing
        weight = self._hidden * smoothstep((uncovered - UNCOVERED) / UNCOVERED_RAMP)
        if weight.max() < LEAST_WEIGHT:
            return None
        driven = driven * self._scale
        faces = topology.triangles()
        order = np.argsort(-driven[faces, 2].mean(1), kind="stable")
        values = np.concatenate(
            [
                (self._mirrored - driven[:, :2]) / self._scale,
                weight[:, None],
                np.ones_like(weight)[:, None],
            ],
            axis=1,
        )
        field = np.zeros((self._grid, self._grid, 4), np.float32)
        add_interpolated(field, driven[:, :2], faces[order], values)
        # A little beyond the edge, too: none of the source's own stretched cheek is a line there.
        known = field[..., 3]
        blurred = cv2.GaussianBlur(field, (0, 0), EDGE_SHARE * self._grid)
        x, y, share, covered = cv2.split(blurred)
        beside = (known == 0) & (covered > 0)
        found = [
            np.where(beside, values / np.maximum(covered, 1e-3), own)
            for values, own in zip((x, y, share), cv2.split(field), strict=False)
        ]
        return Fill(cv2.merge(found[:2]), found[2] * smoothstep(2 * covered))

    def _light(self, source: NDArray[np.float32], crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        mirror = topology.mirror()
        seen = np.minimum(self._facing, self._facing[mirror]) > SEEN_WELL
        far = np.flatnonzero(seen & (self._facing < self._facing[mirror] - 0.02))
        if not len(far):
            return np.ones(3, np.float32)
        smooth = cv2.GaussianBlur(crop, (0, 0), SKIN_BLUR * crop.shape[0]).astype(np.float32)
        places = np.clip(source[:, :2].astype(int), 0, crop.shape[0] - 1)
        colours = smooth[places[:, 1], places[:, 0]] + 1
        return np.median(colours[far] / colours[mirror[far]], axis=0).astype(np.float32)


class CheekRim:
    """Where the skin of a source's cheeks comes from that turn to the camera; `points` (478, 3).

    The mesh ends a little beyond the cheek: in hair, at an earring, or in the background. It is a
    narrow strip, but a turned head would show it all over the side of its face. Where it is skin,
    told by the source's crop (S, S, 3), it stays.
    """

    def __init__(self, points: NDArray[np.float32], crop: NDArray[np.uint8] | None = None) -> None:
        self._points = points
        oval = topology.ring("face_oval")
        flat, ring = points[:, :2], points[oval, :2]
        before_ears = points[list(topology.EAR_SIDES)]
        width = np.linalg.norm(before_ears[1] - before_ears[0])
        along = np.roll(ring, -1, 0) - np.roll(ring, 1, 0)
        inwards = np.stack([along[:, 1], -along[:, 0]], 1)
        inwards *= np.sign(((ring.mean(0) - ring) * inwards).sum(1, keepdims=True))
        self._inwards = inwards / np.linalg.norm(inwards, axis=1, keepdims=True)  # (36, 2)
        self._normals = _normals(points)[oval]
        # What the source hides is the business of `HiddenSide`.
        faces = facing(points)
        far = (faces[topology.mirror()] - faces)[oval]
        seen = 1 - smoothstep((far - FAR_SIDE) / FAR_RAMP)
        across = (before_ears[1] - before_ears[0])[:2] / width
        aside = np.abs((ring - ring.mean(0)) @ across) / width
        eyes = flat[[outer for outer, _ in topology.EYE_CORNERS]].mean(0)
        down = topology.head_axes(points)[:2, 1]
        under = (ring - eyes) @ (down / np.linalg.norm(down)) / width
        self._sides = _rising(aside, SIDES)
        self._cheeks = seen * self._sides * _rising(under, UNDER_EYES)
        if crop is not None:
            self._cheeks = self._cheeks * self._no_skin(crop, ring, float(width))
        # Each point follows what is nearest of the outline, between its points too.
        parts = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
        between = (ring + parts * (np.roll(ring, -1, 0) - ring)).reshape(-1, 2)  # (8 × 36, 2)
        apart = np.linalg.norm(flat[:, None] - between, axis=2) / width
        part, first = np.divmod(apart.argmin(1), len(oval))
        share = (part / len(parts))[:, None]
        one = np.eye(len(oval))
        follows = (1 - share) * one[first] + share * one[(first + 1) % len(oval)]
        reach = RIM * width * np.clip(1 - apart.min(1) / INWARDS, 0, 1)
        reach[topology.MESH_POINTS :] = 0
        self._reach = follows * reach[:, None]  # (478, 36)

    def _no_skin(
        self, crop: NDArray[np.uint8], ring: NDArray[np.float32], width: float
    ) -> NDArray[np.floating]:
        """How little the rim looks like skin at each point of the outline (36, 2), (36,)."""
        calm = cv2.GaussianBlur(crop, (0, 0), max(0.012 * width, 0.5)).astype(np.float32)

        def colours(inwards: tuple[float, ...]) -> NDArray[np.float32]:
            steps = width * np.array(inwards)[:, None, None] * self._inwards
            x, y = np.moveaxis((ring + steps).astype(int).clip(0, len(crop) - 1), 2, 0)
            return calm[y, x]  # (N, 36, 3)

        apart = np.abs(colours(AT_RIM) - colours(AT_SKIN).mean(0)).max((0, 2))
        other = _rising(apart, OTHER)
        # Beside hair skin gives way to it little by little.
        beside = [np.roll(other, step) for step in (-1, 0, 1)]
        return np.asarray(np.maximum(other, np.mean(beside, axis=0)))

    def places(self, rotation: NDArray[np.floating]) -> NDArray[np.float32]:
        """Where in the source each point's skin is taken from, (478, 2), if its head is turned."""
        uncovered = self._normals @ rotation[2] - self._normals[:, 2]
        weight = smoothstep((uncovered - UNCOVERED) / UNCOVERED_RAMP) * self._cheeks
        return self._inset(weight)

    def inside(self) -> NDArray[np.float32]:
        """The same of both sides in full, temples too."""
        return self._inset(self._sides)

    def _inset(self, weight: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (478, 2) as far inside as the weight of the outline (36,) says."""
        moved = self._reach @ (self._inwards * weight[:, None])
        return (self._points[:, :2] + moved).astype(np.float32)


def facing(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cosine between each mesh point's skin and the camera, (478,); irises count as facing it."""
    cosine = _normals(points)[:, 2]
    cosine[topology.MESH_POINTS :] = 1
    return cosine


def _normals(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Directions (478, 3) of each mesh point's skin, positive towards the camera."""
    faces = topology.triangles()
    corners = points[faces]  # (T, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals *= np.sign(normals[:, 2].sum()) or 1.0
    of = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    at_point = np.stack(
        [np.bincount(of, np.tile(normals[:, axis], 3), len(points)) for axis in range(3)], axis=1
    )
    return at_point / np.maximum(np.linalg.norm(at_point, axis=1, keepdims=True), 1e-9)


def _rising(values: NDArray[np.floating], ramp: tuple[float, float]) -> NDArray[np.floating]:
    """0 up to the ramp's first value, 1 from its second on."""
    return smoothstep((values - ramp[0]) / (ramp[1] - ramp[0]))
