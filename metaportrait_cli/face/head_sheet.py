"""One sheet of triangles over face and person, in depth: what a head carries along when it turns.

The face's landmarks say where each of its points is. Around them a grid of vertices covers the
rest of the person: those of the head move by the 3D similarity between source and driven
landmarks, those of the body stand still, and between the two the neck bends. Painted far to near,
the jaw slides over the neck and the far side of the head behind the face.

Convention: pixels of a window, (x, y, z), origin at the corner of its top left pixel, z away from
the camera. Lengths in face widths are multiples of the distance between the points before the ears.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import (
    add_interpolated,
    extra_triangles,
    unstretched_mouth,
)
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.hidden_side import CheekRim

Points = NDArray[np.float32]
Motion = tuple[NDArray[np.float64], float, NDArray[np.float64]]  # rotation, scale, shift

BRIDGE = 168
STEP = 1 / 14
"""Between vertices, in face widths"""
SKULL = 0.75
"""From the bridge of the nose back to what bounds a turned head, in face widths; a little beyond
the middle of the head, for the back of it comes into view then"""
ROUNDING, INFLATION = 0.55, 0.55
"""Over which distance from its silhouette the head bulges towards the camera, and how far"""
STEEPEST = 1.4
"""Depth over distance in the picture: a turn by 30° then stretches nothing to twice its size."""
OVAL_REACH, OVAL_DEPTH_REACH = 0.45, 0.3
"""How far beyond the oval its own deformation and its depth are felt"""
NECK = (-0.6, 0.2)
"""The head's share fades between these distances under the chin …"""
AT_OVAL = 0.16
"""… but not at once beside the jaw: skin stretches over so much."""
ASIDE = (1.2, 1.8)
"""… and between these from the face's middle to the sides: another person, a chair"""
BEHIND = 0.4
"""What the head doesn't carry lies so much farther away: the jaw slides over the neck."""
LEAST_TURN = np.radians(2.5)
"""Turns of the head that the landmarks' depth can't be trusted with are damped below this."""


@dataclass(frozen=True)
class Layout:
    """Where the window's pixels come from, on a grid (G, G) over it.

    `place` (G, G, 2) in pixels of the window; `cover` (G, G) in [0, 1], how much of a cell the
    sheet covers; `around` (G, G), 1 outside the face's mesh; `gap` (N, 2) as of `Correspondence`.
    """

    place: NDArray[np.float32]
    cover: NDArray[np.float32]
    around: NDArray[np.float32]
    gap: NDArray[np.float32]

    def shift(self, side: float) -> NDArray[np.float32]:
        """`place` (G, G, 2) less the pixel's own, in a window of `side`; 0 where nothing covers."""
        covered = np.float32(self.cover > 0)
        return cv2.multiply(
            cv2.subtract(self.place, _centres(len(self.place), side)), cv2.merge([covered] * 2)
        )


@cache
def _centres(grid: int, side: float) -> NDArray[np.float32]:
    """Middles of cells (G, G, 2), in pixels of a window of `side`."""
    centres = (np.arange(grid, dtype=np.float32) + 0.5) * np.float32(side / grid)
    return np.dstack(np.meshgrid(centres, centres)).astype(np.float32)


@dataclass(frozen=True)
class HeadFrame:
    """A head's own axes (right, up, front) as rows, the middle between the ears, and its width."""

    middle: Points
    axes: Points
    width: float

    @classmethod
    def of(cls, points: Points) -> HeadFrame:
        """Of face points (478, 3)."""
        before_ears = points[list(topology.EAR_SIDES)]
        width = float(np.linalg.norm(before_ears[1] - before_ears[0]))
        axes = topology.head_axes(points).T * np.array([[1], [-1], [-1]], np.float32)
        return cls(before_ears.mean(0), axes, width)


class HeadSheet:
    """One source's sheet.

    `points` (478, 3) and `alpha` (H, W), how much of each pixel is the person, both of the window;
    `loose` (H, W) in [0, 1] is 0 where nothing may move.
    """

    def __init__(self, points: Points, alpha: NDArray[np.float32], loose: Points) -> None:
        self.points = np.asarray(points, np.float32)
        self.loose = loose
        self.head = HeadFrame.of(self.points)
        self._oval = topology.ring("face_oval")
        self._skull = skull_points(self.points)
        self._rim = CheekRim(self.points)
        oval = self.points[self._oval, :2]
        step = STEP * self.head.width
        flat = _grid_around(oval, alpha, step=step, width=self.head.width)
        triangles = _triangulated(np.concatenate([oval, flat]), oval, longest=2.5 * step)
        self.outer = self._with_depth(flat, alpha)  # (V, 3)
        nearness, apart = self._nearness(flat)
        places = _cells(flat, alpha.shape)
        fade = loose[places]
        felt = (1 - smoothstep(apart / (OVAL_REACH * self.head.width))) * fade
        self._spread = (nearness * felt[:, None]).astype(np.float32)  # (V, 36)
        share = np.maximum(
            self._head_share(flat), 1 - smoothstep(apart / (AT_OVAL * self.head.width))
        )
        self._of_head = (share * fade)[:, None]
        index = np.concatenate([self._oval, self._first + np.arange(len(flat))])
        _, inside = extra_triangles()
        self._triangles = np.concatenate([topology.triangles(), inside, index[triangles]])
        self._is_around = np.repeat(
            np.array([0, 1], np.float32),
            [len(topology.triangles()) + len(inside), len(triangles)],
        )

    @property
    def _first(self) -> int:
        """The number of the first outer vertex, after landmarks and the lip pairs' hanging ends."""
        return topology.POINTS + len(topology.INNER_LIPS)

    # ------------------------------------------------------------------ once a source

    def _with_depth(self, flat: Points, alpha: NDArray[np.float32]) -> Points:
        """Vertices (V, 2) → (V, 3): inflated from the silhouette, joined to the oval's depth."""
        head, width = self.head, self.head.width
        forward = (self.points[BRIDGE] - head.middle) @ head.axes[2]
        centre = (head.middle + head.axes[2] * (forward - SKULL * width))[2]
        pad = round(0.5 * width)
        solid = np.pad(np.uint8(alpha > 0.5), pad, mode="edge")
        distance = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
        distance = cv2.GaussianBlur(distance, (0, 0), max(0.02 * width, 0.5))
        u = np.clip(distance[pad:-pad, pad:-pad] / (ROUNDING * width), 0, 1)
        # Half a parabola, half a circle: round, but not upright at its edge.
        dome = 0.5 * u * (2 - u) + 0.5 * np.sqrt(1 - (1 - u) ** 2)
        depth = (centre - INFLATION * width * dome).astype(np.float32)

        oval = self.points[self._oval]
        nearness, apart = self._nearness(flat)
        z = depth[_cells(flat, alpha.shape)]
        missing = oval[:, 2] - depth[_cells(oval[:, :2], alpha.shape)]
        z = z + (1 - smoothstep(apart / (OVAL_DEPTH_REACH * width))) * (nearness @ missing)
        z = _no_steeper(flat, z, oval)
        return np.column_stack([flat, z]).astype(np.float32)

    def _nearness(self, flat: Points) -> tuple[Points, Points]:
        """Shares (V, 36) of the oval's points in what happens at a vertex; its distance (V,)."""
        apart = np.linalg.norm(flat[:, None] - self.points[self._oval, :2][None], axis=2)
        shares = 1 / (apart + 0.02 * self.head.width) ** 3
        return shares / shares.sum(1, keepdims=True), apart.min(1)

    def _head_share(self, flat: Points) -> Points:
        """How much each vertex (V, 2) belongs to the head, (V,) in [0, 1]."""
        head, width = self.head, self.head.width
        below = (flat - self.points[topology.CHIN, :2]) @ -_unit(head.axes[1, :2]) / width
        aside = (flat - self.points[self._oval, :2].mean(0)) @ _unit(head.axes[0, :2]) / width
        down = 1 - smoothstep((below - NECK[0]) / (NECK[1] - NECK[0]))
        return down * (1 - smoothstep((np.abs(aside) - ASIDE[0]) / (ASIDE[1] - ASIDE[0])))

    def planes(self, *, side: float, grid: int) -> NDArray[np.float32]:
        """What is known of the source itself (G, G, 2), 0 beyond the sheet: how much nearer than
        the middle between the ears it is, in face widths, and the head's share in its motion."""
        inner = np.concatenate([self.points, self.points[[low for _, low in topology.INNER_LIPS]]])
        vertices = np.concatenate([inner, self.outer])
        near = (self.head.middle[2] - vertices[:, 2:]) / self.head.width
        share = np.concatenate([np.ones((len(inner), 1)), self._of_head])
        order = np.argsort(-vertices[self._triangles, 2].mean(1), kind="stable")
        field = np.zeros((grid, grid, 2), np.float32)
        add_interpolated(
            field,
            vertices[:, :2] * np.float32(grid / side),
            self._triangles[order].astype(np.int32),
            np.hstack([near, share]).astype(np.float32),
        )
        return field

    def only(self, shown: NDArray[np.bool_]) -> HeadSheet:
        """The same sheet, less what lies wholly outside of `shown` (H, W): quicker to lay out."""
        reach = np.ones((2 * round(STEP * self.head.width) + 1,) * 2, np.uint8)
        near = cv2.dilate(np.uint8(shown), reach) > 0
        lips = self.points[[low for _, low in topology.INNER_LIPS]]
        vertices = np.concatenate([self.points, lips, self.outer])
        kept = near[_cells(vertices[:, :2], near.shape)][self._triangles].any(1)
        part = copy(self)
        part._triangles, part._is_around = self._triangles[kept], self._is_around[kept]
        return part

    # ------------------------------------------------------------------ a frame

    def motion(self, driven: Points) -> Motion:
        """The head's own, for driven landmarks (478, 3)."""
        return _steady_similarity(self.points[self._skull], driven[self._skull])

    def placed(self, driven: Points, motion: Motion) -> Points:
        """Where the outer vertices (V, 3) are for driven landmarks (478, 3) and their `motion`."""
        rotation, scale, shift = motion
        turned = scale * self.outer @ rotation.T + shift
        residual = driven[self._oval] - (scale * self.points[self._oval] @ rotation.T + shift)
        place = self.outer + self._of_head * (turned - self.outer) + self._spread @ residual
        place[:, 2:] += BEHIND * self.head.width * (1 - self._of_head)
        return place.astype(np.float32)

    def layout(self, driven: Points, *, side: float, grid: int) -> Layout:
        """Where all is for driven landmarks (478, 3); the window measures `side` pixels."""
        driven = np.asarray(driven, np.float32)
        motion = self.motion(driven)
        pairs = np.array(topology.INNER_LIPS)
        source_ends, driven_ends = unstretched_mouth(self.points, driven, pairs)
        ends = np.column_stack([driven_ends, driven[pairs[:, 0], 2]])
        vertices = np.concatenate([driven, ends, self.placed(driven, motion)]).astype(np.float32)
        face = np.concatenate([self._rim.places(motion[0]), source_ends])
        source = np.concatenate([self.points[:, :2], source_ends, self.outer[:, :2]])
        # Larger z is farther: painted first.
        order = np.argsort(-vertices[self._triangles, 2].mean(1), kind="stable")
        corners = self._triangles[order].ravel()
        # Vertices of the oval serve both parts; so each triangle has its own three.
        around = np.repeat(self._is_around[order], 3)
        places = source[corners]
        inner = around == 0
        places[inner] = face[corners[inner]]
        values = np.column_stack([places, np.ones(len(corners)), around])
        field = np.zeros((grid, grid, 4), np.float32)
        add_interpolated(
            field,
            vertices[corners, :2] * np.float32(grid / side),
            np.arange(len(corners), dtype=np.int32).reshape(-1, 3),
            values.astype(np.float32),
        )
        left, right = topology.INNER_MOUTH_CORNERS
        gap = np.concatenate(
            [driven[[left], :2], driven_ends, driven[[right], :2], driven[pairs[::-1, 1], :2]]
        )
        x, y, cover, around = cv2.split(field)
        return Layout(
            place=cv2.merge([x, y]),
            cover=cover,
            around=around,
            gap=gap.astype(np.float32),
        )


def face_outside_oval(
    points: Points, shape: tuple[int, int], width: float
) -> NDArray[np.float32] | None:
    """Where (H, W) a turned source shows its face beyond the oval of its mesh: nose, eye, cheek.

    The sheet around the face must not carry a second copy of them. `None` if it shows nothing.
    """
    mesh, oval = np.zeros((2, *shape), np.uint8)
    for face in points[topology.triangles(), :2]:
        cv2.fillConvexPoly(mesh, np.rint(face - 0.5).astype(np.int32), 1)
    ring = points[topology.ring("face_oval"), :2]
    cv2.fillPoly(oval, [np.rint(ring - 0.5).astype(np.int32)], 1)
    reach = max(1, round(0.015 * width))

    def disc(times: int) -> NDArray[np.uint8]:
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * times * reach + 1,) * 2)

    beyond = cv2.morphologyEx(mesh & (1 - cv2.dilate(oval, disc(1))), cv2.MORPH_OPEN, disc(1))
    if not beyond.any():
        return None
    # with the silhouette's soft edge, which lies just outside the mesh
    wider = cv2.dilate(beyond, disc(4)) & (1 - oval)
    return cv2.GaussianBlur(wider.astype(np.float32), (0, 0), 0.5 * reach)


def skull_points(points: Points) -> NDArray[np.int64]:
    """Which landmarks hold still in the skull: upper face and nose; no jaw, lids, lips, irises."""
    head = HeadFrame.of(points)
    still = (points - head.middle) @ head.axes[1] > -0.05 * head.width
    still[topology.MESH_POINTS :] = False
    for name in ("left_eye", "right_eye"):
        still[topology.ring(name)] = False
    return np.flatnonzero(still)


def _steady_similarity(before: Points, after: Points) -> Motion:
    """(R, s, t) with after ≈ s R before + t for points (N, 3), small turns damped.

    Landmarks tell depth badly: a head that hardly turns would be seen to wobble.
    """
    damped = _turn(before, after)
    away = float(np.hypot(damped[0], damped[1]))
    damped[:2] *= away**2 / (away**2 + LEAST_TURN**2)
    rotation, _ = cv2.Rodrigues(damped)
    # Size, roll and place follow from the picture alone, which is seen far better than depth.
    turned = before @ rotation.T
    a, b = turned[:, :2] - turned[:, :2].mean(0), after[:, :2] - after[:, :2].mean(0)
    spin = complex((a[:, 0] + 1j * a[:, 1]).conj() @ (b[:, 0] + 1j * b[:, 1])) / (a * a).sum()
    scale = abs(spin)
    c, s = spin.real / scale, spin.imag / scale
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation
    shift = after.mean(0) - scale * rotation @ before.mean(0)
    return rotation, scale, shift


def turned_away(before: Points, after: Points) -> float:
    """By which angle in radians a head turned between points (N, 3) of its skull; not in the
    picture's plane, where it stays as it is seen."""
    turn = _turn(before, after)
    return float(np.hypot(turn[0], turn[1]))


def _turn(before: Points, after: Points) -> NDArray[np.float64]:
    """The rotation vector (3,) of the best similarity between points (N, 3)."""
    x, y = before - before.mean(0), after - after.mean(0)
    u, _, vt = np.linalg.svd(y.T.astype(np.float64) @ x)
    turn, _ = cv2.Rodrigues((u * (1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt)
    return turn[:, 0]


def _grid_around(oval: Points, alpha: NDArray[np.float32], *, step: float, width: float) -> Points:
    """Vertices (V, 2) over all of the person but the oval (N, 2), and a quarter beyond the window:
    what lies there may move in."""
    height, wide = alpha.shape
    reach = round(0.03 * width) + round(step) + 1
    cover = cv2.dilate(np.uint8(alpha > 0.02), np.ones((2 * reach + 1,) * 2, np.uint8))
    pad_x, pad_y = 0.25 * wide, 0.25 * height
    x, y = np.meshgrid(
        np.arange(-pad_x, wide + pad_x + step, step), np.arange(-pad_y, height + pad_y + step, step)
    )
    grid = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    grid = grid[cover[_cells(grid, alpha.shape)] > 0]
    # A little away from the oval, so that no vertex crowds it.
    centre = oval.mean(0)
    wider = (centre + 1.06 * (oval - centre)).astype(np.float32)
    outside = [cv2.pointPolygonTest(wider, (float(x), float(y)), False) < 0 for x, y in grid]
    return grid[np.array(outside)]


def _triangulated(points: Points, oval: Points, *, longest: float) -> NDArray[np.int32]:
    """Delaunay triangles (T, 3) of points (N, 2), of which the first are the oval, a hole."""
    low = np.floor(points.min(0)).astype(int) - 2
    size = np.ceil(points.max(0)).astype(int) + 3 - low
    division = cv2.Subdiv2D((int(low[0]), int(low[1]), int(size[0]), int(size[1])))
    number = {}
    for index, (x, y) in enumerate(points):
        division.insert((float(x), float(y)))
        number[(np.float32(x), np.float32(y))] = index
    found = []
    for row in division.getTriangleList():
        corners = [number.get((row[k], row[k + 1]), -1) for k in (0, 2, 4)]
        if min(corners) < 0:  # the frame around all points
            continue
        if max(corners) < len(oval):
            x, y = points[corners].mean(0)
            if cv2.pointPolygonTest(oval.astype(np.float32), (float(x), float(y)), False) >= 0:
                continue
        found.append(corners)
    triangles = np.array(found, np.int32)
    # Only what lies within the sheet, not its convex hull, and no slivers.
    corners = points[triangles]
    sides = np.linalg.norm(corners - corners[:, [1, 2, 0]], axis=2).max(1)
    edges = corners[:, 1:] - corners[:, :1]
    area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    return triangles[(sides < longest) & (area > 0.02 * sides**2)]


def _no_steeper(flat: Points, z: Points, oval: Points) -> Points:
    """Depths (V,) of vertices (V, 2) brought forwards until none falls off too steeply, from the
    oval (36, 3) or from each other."""
    to_oval = STEEPEST * np.linalg.norm(flat[:, None] - oval[None, :, :2], axis=2)
    z = np.minimum(z, (oval[:, 2] + to_oval).min(1))
    z = np.maximum(z, (oval[:, 2] - to_oval).max(1))
    apart = STEEPEST * np.linalg.norm(flat[:, None] - flat[None], axis=2)
    return (z[None] + apart).min(1)


def _cells(points: Points, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each point's pixel, the nearest one where it is outside."""
    places = points.astype(np.int64)
    return places[:, 1].clip(0, shape[0] - 1), places[:, 0].clip(0, shape[1] - 1)


def _unit(v: Points) -> Points:
    return v / max(float(np.linalg.norm(v)), 1e-6)
