"""Where each pixel of the driven face comes from in the source: an analytic backward flow.

Source and driven landmarks share one mesh, so every face pixel has an exact origin. Beyond the
face the head's overall motion goes on through hair and neck and fades out towards the border of
the crop. The mouth opening is split in two: what the source shows between its lips keeps hanging
from the upper lip, unstretched; the rest is unknown and reported as such.

Convention: positions are pixels of the crop, (x, y), origin at the corner of the top left pixel,
so that pixel i has its centre at i + 0.5. The flow is backward: for each output pixel, the source
position to sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.stages import by_turns

# Rings around the face oval carry its deformation outwards: distance from the centre relative to
# the oval, and how much of the deformation is left there.
OUTER_RINGS = ((1.2, 0.55), (1.45, 0.2), (1.8, 0.0))
# The head's rigid motion holds to the first and is gone at the second multiple of the face's
# radii: hair moves with the head, shoulders don't.
RIGID_RANGE_UP = (1.45, 2.1)
RIGID_RANGE_DOWN = (1.1, 1.9)
# Thinner triangles (in pixels²) cover no pixel to speak of, and their gradients explode.
LEAST_AREA = 2e-3
# A pixel centre this close (in pixels) to an edge counts as inside, so that no seam shows.
ON_EDGE = 1e-6
# Where a lower lip is stretched its edge lies beside the mesh's line, and each triangle moves its
# piece of it otherwise: around that line motion is blurred by so many distances of the pupils. The
# line ends before the mouth's corners: blurred with the cheeks beside them they lost a fifth of
# how far a grin moves them.
LIP_EDGE = (181, 84, 17, 314, 405)
LIP_SOFTNESS = 0.06
LEAST_SOFTNESS = 0.5  # pixels
# A point of the oval below this share of the face's height is moved by the jaw, not by the head.
JAW_SHARE = 0.6


@dataclass(frozen=True)
class Correspondence:
    """Backward flow of one driven frame on a square grid.

    `shift` (G, G, 2) float32: source position less output position at each grid pixel's centre, in
    pixels of the crop at `side`.
    `mouth_gap` (N, 2) float32: polygon of the driven mouth opening that no source pixel shows, in
    pixels of the crop at `side`; degenerate (zero area) while the mouth shows no more than in the
    source.
    """

    shift: NDArray[np.float32]
    mouth_gap: NDArray[np.float32]
    side: int


class CorrespondenceWarp:
    """Analytic flow from one source to any driven landmarks.

    `source` (478, 3) in pixels of the crop of `side` pixels. `fade` (G, G) is multiplied to all
    motion, so that it ends before the border; its shape is the flow's grid.
    """

    def __init__(
        self,
        source: NDArray[np.float32],
        *,
        side: int,
        fade: NDArray[np.float32],
    ) -> None:
        self._grid = fade.shape[0]
        self._side = side
        self._scale = self._grid / side
        self._fade = fade
        self._source = np.asarray(source, np.float32) * self._scale
        self._centres = np.arange(self._grid, dtype=np.float32) + 0.5

    @by_turns
    def __call__(self, driven: NDArray[np.float32]) -> Correspondence:
        """Flow for driven landmarks (478, 3) in pixels of the crop."""
        driven = np.asarray(driven, np.float32) * self._scale
        affine = _head_motion(driven, self._source)
        centre, radii = _face_ellipse(driven)
        mesh = _Mesh.between(self._source, driven, centre)

        across, down = self._centres[None, :], self._centres[:, None]
        rigid = _rigid_weight(across, down, centre, radii)
        shift = np.empty((self._grid, self._grid, 2), np.float32)
        for axis, own in enumerate((across, down)):
            moved = (affine[axis, 0] * across + affine[axis, 2]) + affine[axis, 1] * down
            moved -= own
            np.multiply(moved, rigid, out=shift[..., axis])

        # The mesh carries what the rigid field leaves over, so the two agree at every vertex and
        # the sum is continuous where the mesh ends.
        x, y = mesh.driven[:, 0], mesh.driven[:, 1]
        at_vertex = _rigid_weight(x, y, centre, radii)[:, None] * (
            mesh.driven @ affine[:, :2].T + affine[:, 2] - mesh.driven
        )
        left_over = (mesh.source - mesh.driven - at_vertex) * mesh.share[:, None]
        add_interpolated(shift, mesh.driven, mesh.triangles, left_over)
        _smooth_lip(shift, driven)

        shift *= self._fade[..., None] / self._scale
        return Correspondence(shift, mesh.mouth_gap / self._scale, self._side)


@dataclass(frozen=True)
class _Mesh:
    """The face mesh with eyes, mouth and outer rings; triangles run from far to near."""

    source: NDArray[np.floating]  # (V, 2)
    driven: NDArray[np.floating]  # (V, 2)
    share: NDArray[np.floating]  # (V,) of the left-over deformation that is kept
    triangles: NDArray[np.int32]  # (T, 3)
    mouth_gap: NDArray[np.floating]  # (N, 2)

    @classmethod
    def between(
        cls,
        source: NDArray[np.floating],
        driven: NDArray[np.floating],
        centre: NDArray[np.floating],
    ) -> _Mesh:
        pairs = np.array(topology.INNER_LIPS)
        inside_source, inside_driven = unstretched_mouth(source, driven, pairs)
        oval = topology.ring("face_oval")
        source_rim, driven_rim = source[oval, :2], driven[oval, :2]
        source_centre, _ = _face_ellipse(source)
        rings_source = [
            source_centre + far * (source_rim - source_centre) for far, _ in OUTER_RINGS
        ]
        rings_driven = [centre + far * (driven_rim - centre) for far, _ in OUTER_RINGS]
        share = [np.ones(topology.POINTS + len(pairs))]
        share += [np.full(len(oval), kept) for _, kept in OUTER_RINGS]

        faces = topology.triangles()
        # Larger z is farther: paint it first.
        order = np.argsort(-driven[faces, 2].mean(1), kind="stable")
        rings, inside = extra_triangles()
        left, right = driven[list(topology.INNER_MOUTH_CORNERS), :2]
        lower = driven[pairs[::-1, 1], :2]
        return cls(
            source=np.concatenate([source[:, :2], inside_source, *rings_source]),
            driven=np.concatenate([driven[:, :2], inside_driven, *rings_driven]),
            share=np.concatenate(share).astype(np.float32),
            triangles=np.concatenate([rings, inside, faces[order]]),
            mouth_gap=np.concatenate([left[None], inside_driven, right[None], lower]),
        )


@cache
def extra_triangles() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Triangles of the outer rings, and of eyes and mouth, in the vertex order of `_Mesh`.

    Vertices: 478 landmarks, then one a lip pair (the lower end of what hangs from the upper lip),
    then the outer rings.
    """
    oval = topology.ring("face_oval")
    count, pair_count = len(oval), len(topology.INNER_LIPS)
    rings = []
    previous = list(oval)
    for k in range(len(OUTER_RINGS)):
        start = topology.POINTS + pair_count + k * count
        current = list(range(start, start + count))
        for i in range(count):
            j = (i + 1) % count
            rings += [(previous[i], current[i], current[j]), (previous[i], current[j], previous[j])]
        previous = current

    inside = []
    for name, iris in (
        ("right_eye", topology.IRISES[0][0]),
        ("left_eye", topology.IRISES[1][0]),
    ):
        rim = topology.ring(name)
        inside += [(iris, rim[i], rim[(i + 1) % len(rim)]) for i in range(len(rim))]
    upper = [pair[0] for pair in topology.INNER_LIPS]
    lower = [pair[1] for pair in topology.INNER_LIPS]
    hanging = [topology.POINTS + i for i in range(pair_count)]
    left, right = topology.INNER_MOUTH_CORNERS
    for top, bottom in ((hanging, lower), (upper, hanging)):
        inside += [(left, top[0], bottom[0]), (right, top[-1], bottom[-1])]
        for i in range(pair_count - 1):
            inside += [
                (top[i], bottom[i], bottom[i + 1]),
                (top[i], bottom[i + 1], top[i + 1]),
            ]
    return np.array(rings, np.int32), np.array(inside, np.int32)


def unstretched_mouth(
    source: NDArray[np.floating], driven: NDArray[np.floating], pairs: NDArray[np.int64]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """For each lip pair, the lower end of the source's mouth inside: there, and where it hangs now.

    It keeps its length unless the driven gap is smaller: teeth sit in the skull.
    """
    source_gap = source[pairs[:, 1], :2] - source[pairs[:, 0], :2]
    driven_gap = driven[pairs[:, 1], :2] - driven[pairs[:, 0], :2]
    source_length = np.linalg.norm(source_gap, axis=1)
    driven_length = np.linalg.norm(driven_gap, axis=1)
    shown = np.minimum(source_length / np.maximum(driven_length, 1e-6), 1)[:, None]
    return source[pairs[:, 1], :2], driven[pairs[:, 0], :2] + shown * driven_gap


def _head_motion(
    driven: NDArray[np.floating], source: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Affine map (2, 3), driven → source position, of the oval above the jaw."""
    oval = topology.ring("face_oval")
    height = source[:, 1].max() - source[:, 1].min()
    upper = oval[source[oval, 1] < source[:, 1].min() + JAW_SHARE * height]
    here = np.concatenate([driven[upper, :2], np.ones((len(upper), 1), np.float32)], axis=1)
    solution, *_ = np.linalg.lstsq(here, source[upper, :2], rcond=None)
    return solution.T.astype(np.float32)


def _face_ellipse(
    points: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    oval = points[topology.ring("face_oval"), :2]
    low, high = oval.min(0), oval.max(0)
    return (low + high) / 2, (high - low) / 2


def _rigid_weight(
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    centre: NDArray[np.floating],
    radii: NDArray[np.floating],
) -> NDArray[np.floating]:
    """How much a place takes part in the head's motion, in [0, 1]."""
    dx, dy = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    radius = np.sqrt(dx * dx + dy * dy)
    down = smoothstep((dy + 0.3) / 0.9)
    near = RIGID_RANGE_UP[0] + down * (RIGID_RANGE_DOWN[0] - RIGID_RANGE_UP[0])
    far = RIGID_RANGE_UP[1] + down * (RIGID_RANGE_DOWN[1] - RIGID_RANGE_UP[1])
    return 1 - smoothstep((radius - near) / (far - near))


def _smooth_lip(shift: NDArray[np.float32], driven: NDArray[np.floating]) -> None:
    """Blurs the motion (G, G, 2) around the lower edge of the lips of a face (478, 3) on its grid,
    in place. The opening takes no part: it moves otherwise."""
    pupils = [driven[iris[0], :2] for iris in topology.IRISES]
    soft = LIP_SOFTNESS * float(np.linalg.norm(pupils[0] - pupils[1]))
    edge, opening = driven[list(LIP_EDGE), :2], driven[topology.ring("lips_inner"), :2]
    reach = int(3 * soft) + 2
    x0, y0 = np.maximum(np.floor(edge.min(0)).astype(int) - reach, 0).tolist()
    x1, y1 = np.minimum(np.ceil(edge.max(0)).astype(int) + reach, len(shift)).tolist()
    if soft < LEAST_SOFTNESS or x1 - x0 < 2 or y1 - y0 < 2:
        return
    part = shift[y0:y1, x0:x1]
    # Points have their origin at a pixel's corner, cv2 draws from its centre.
    edge, opening = (np.rint(p - (x0 + 0.5, y0 + 0.5)).astype(np.int32) for p in (edge, opening))
    skin = np.ones(part.shape[:2], np.float32)
    cv2.fillPoly(skin, [opening], 0)
    skin = cv2.erode(skin, np.ones((3, 3), np.uint8))
    off = np.ones(part.shape[:2], np.uint8)
    cv2.polylines(off, [edge], isClosed=False, color=0)
    near = np.clip(2 - cv2.distanceTransform(off, cv2.DIST_L2, 3) / (1.6 * soft), 0, 1)
    near = cv2.GaussianBlur(near * skin, (0, 0), 1.0) * skin
    around = cv2.GaussianBlur(skin, (0, 0), soft)
    blurred = cv2.GaussianBlur(part * skin[..., None], (0, 0), soft)
    blurred /= np.maximum(around, 1e-3)[..., None]
    part += near[..., None] * (blurred - part)


WHOLE = (slice(None), slice(None))


def moved_by(
    image: NDArray[np.uint8],
    shift: NDArray[np.float32],
    *,
    box: tuple[slice, slice] = WHOLE,
) -> NDArray[np.uint8]:
    """The image (S, S, 3) sampled at each pixel's place plus a shift (G, G, 2) in its pixels.

    Of the result, a `box` of rows and columns.
    """
    size = image.shape[0]
    places = cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)[box]
    rows, columns = (np.arange(size, dtype=np.float32)[part] for part in box)
    places[..., 0] += columns[None, :]
    places[..., 1] += rows[:, None]
    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def add_interpolated(
    field: NDArray[np.floating],
    vertices: NDArray[np.floating],
    triangles: NDArray[np.int32],
    values: NDArray[np.floating],
) -> None:
    """Adds values (V, C), interpolated over triangles (T, 3), to the pixels they cover.

    `field` (H, W, C) is changed in place. Where triangles overlap the later one counts alone, so
    their order is the depth order, far to near. A pixel belongs to a triangle that holds its
    centre.
    """
    height, width, channels = field.shape
    x, y = (vertices[:, axis].astype(np.float64).take(triangles.T) for axis in (0, 1))  # (3, T)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    top = np.maximum(np.ceil(y.min(0) - 0.5), 0)
    rows = np.minimum(np.floor(y.max(0) - 0.5), height - 1) - top + 1
    visible = np.flatnonzero((np.abs(area) > LEAST_AREA) & (rows > 0))
    x, y, area = x[:, visible], y[:, visible], area[visible]

    # Each barycentric weight is linear in the pixel: w = a·x + b·y + c.
    after, last = [1, 2, 0], [2, 0, 1]
    a = (y[after] - y[last]) / area  # (3, T)
    b = (x[last] - x[after]) / area
    c = (x[after] * y[last] - x[last] * y[after]) / area

    # One entry for every pixel row of every triangle, with the span of x where all weights are
    # positive; then one for every pixel of the spans.
    triangle, row = _counted(top[visible].astype(np.intp), rows[visible].astype(np.intp))
    left, right = np.full(len(row), -np.inf), np.full(len(row), np.inf)
    level = row + 0.5
    for slope, tilt, start in zip(a, b, c, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = (-tilt / slope).take(triangle)
            bound *= level
            bound += (-start / slope).take(triangle)
        np.maximum(left, bound, out=left, where=(slope > 0).take(triangle))
        np.minimum(right, bound, out=right, where=(slope < 0).take(triangle))
        if not slope.all():
            outside = (slope == 0)[triangle] & (tilt[triangle] * level + start[triangle] < 0)
            right[outside] = -np.inf
    first = np.clip(np.ceil(left - 0.5 - ON_EDGE), 0, width).astype(np.intp)
    stop = np.clip(np.floor(right - 0.5 + ON_EDGE), -1, width - 1).astype(np.intp) + 1
    counts = np.maximum(stop - first, 0)
    # Repeated places keep the last entry: the nearest triangle. Uncovered ones have one of zeros.
    nearest = np.full(height * width, len(visible), np.intp)
    nearest[_runs(row * width + first, counts)] = np.repeat(triangle, counts)
    # The values are linear in the pixel too.
    at_corners = values.T.take(triangles[visible].T, axis=1)  # (C, 3, T)
    linear = np.zeros((3, len(visible) + 1, channels), np.float32)
    for coefficient, slopes in zip(linear, (a, b, c), strict=True):
        coefficient[:-1] = (slopes * at_corners).sum(1).T
    # `clip` spares numpy a look at every index.
    across, down, start = (
        part.take(nearest, axis=0, mode="clip").reshape(height, width * channels) for part in linear
    )
    across *= (np.arange(width, dtype=np.float32) + np.float32(0.5)).repeat(channels)
    down *= np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    across += down
    across += start
    field += across.reshape(field.shape)


def _counted(
    starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every i the numbers starts[i] … starts[i] + counts[i] - 1: which i, and the number."""
    return np.repeat(np.arange(len(counts)), counts), _runs(starts, counts)


def _runs(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every i the numbers starts[i] … starts[i] + counts[i] - 1."""
    before = np.cumsum(counts) - counts
    numbers = np.repeat(starts - before, counts)
    numbers += np.arange(len(numbers))
    return numbers
