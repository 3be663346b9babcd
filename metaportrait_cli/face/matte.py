"""How much of each pixel is the person whose face is shown: made once a source.

MediaPipe's selfie segmenter gives a soft silhouette at 256 × 256; a guided filter brings it to the
picture's own edges, and what isn't connected with the face is left out: other people stay where
they are, also where they touch: what is nearer to another face than to this one is another's. A
hat, a hand or glasses that hang together with the person move as one with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face import topology
from metaportrait_cli.native import native_stderr_closed, vision_tasks

SURE, LIKELY = 0.9, 0.5
# The least share of the face's oval that the silhouette holds where it can be trusted; less on
# drawings, masks and dark pictures.
LEAST_FACE = 0.8
# In face widths: how far the matte may reach beyond its sure part, where the filter smears into a
# background of the same colour, and over which the filter looks.
REACH, WINDOW = 0.12, 0.08
SMOOTHNESS = 1e-4
# A share of the person below it is a halo of background, which would be carried along.
NOT = 0.15
# In pixels: compressed pictures have their colours in blocks, whose stairs the filter would follow.
BLOCKS = 4.0
# Work is done at no more than this; the edge of hair is no finer in the segmenter's own picture.
MOST_PIXELS = 640
HEAD_ASIDE = 1.2
"""Half the width of what counts as a head with its hair, in face widths"""


Silhouette = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""How likely each pixel of a picture (H, W, 3) RGB is a person, (H, W) in [0, 1]"""


class Segmenter:
    """MediaPipe Tasks ImageSegmenter with the bundled selfie model."""

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise WeightsError(f"selfie segmentation model missing: {model}; reinstall the package")
        self._model = model

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Silhouette`."""
        # Takes a tenth of a second to import, and the landmark tasks have done so already.
        vision = vision_tasks()
        import mediapipe  # noqa: PLC0415
        from mediapipe.tasks.python import BaseOptions  # noqa: PLC0415

        options = vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_path=str(self._model)),
            output_confidence_masks=True,
            output_category_mask=False,
        )
        image = mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
        )
        with (
            native_stderr_closed(),
            vision.ImageSegmenter.create_from_options(options) as segmenter,
        ):
            mask = segmenter.segment(image).confidence_masks[0].numpy_view()
            return np.array(mask, np.float32).reshape(picture.shape[:2])


def matte(
    picture: NDArray[np.uint8],
    points: NDArray[np.float32],
    segmenter: Silhouette,
    *,
    strangers: Sequence[NDArray[np.float32]] = (),
) -> NDArray[np.float32] | None:
    """The person's share (H, W) of each pixel of a picture (H, W, 3) RGB; face points (478, 3), and
    those of the `strangers` in it.

    `None` if the silhouette misses the face.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, MOST_PIXELS / max(height, width))
    small = picture
    if scale < 1:
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    face, *others = (each[:, :2] * np.float32(scale) for each in (points, *strangers))
    likely = segmenter(small)
    for other in others:
        likely = np.where(_nearer(face, other, likely.shape), likely, 0)
    alpha = _matte(small, face, likely)
    if alpha is None or scale == 1:
        return alpha
    return cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)


def head_box(
    alpha: NDArray[np.float32], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the head with its hair or hat begins and ends, each (x, y), of a person that covers
    `alpha` (H, W), with face points (478, 3): the face, and what is above its middle and not far
    aside: no shoulders."""
    oval = points[topology.ring("face_oval"), :2]
    chin, middle = points[topology.CHIN, :2], oval.mean(0)
    up = (middle - chin) / np.linalg.norm(middle - chin)
    rows, columns = np.nonzero(alpha > LIKELY)
    there = np.stack([columns, rows], 1) + np.float32(0.5) - middle
    aside = np.abs(there @ (-up[1], up[0]))
    there = there[(there @ up > 0) & (aside < HEAD_ASIDE * np.ptp(oval[:, 0]))] + middle
    head = np.concatenate([oval, there])
    return head.min(0), head.max(0)


def _matte(
    picture: NDArray[np.uint8], face: NDArray[np.float32], likely: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    oval = face[topology.ring("face_oval")]
    unit = float(np.linalg.norm(np.ptp(oval, axis=0)) / np.sqrt(2))
    inside = np.zeros(likely.shape, np.uint8)
    # Points have their origin at a pixel's corner, cv2 draws from its centre.
    cv2.fillPoly(inside, [np.rint(oval - 0.5).astype(np.int32)], 1)
    in_face = inside > 0
    if not in_face.any() or (likely[in_face] > LIKELY).mean() < LEAST_FACE:
        return None
    reach = max(1, round(0.04 * unit))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    # The face is the person's, whatever the segmenter makes of a nose in the dark; but the mesh of
    # a turned face reaches a little beyond its cheek.
    likely = np.maximum(likely, cv2.erode(inside, kernel))
    # Narrow bridges to another person's shoulder or to a chair are cut first.
    _, labels = cv2.connectedComponents(cv2.erode(np.uint8(likely > LIKELY), kernel))
    own = np.bincount(labels[in_face])
    own[0] = 0
    if not own.any():
        return None
    mine = cv2.dilate(np.uint8(labels == own.argmax()), kernel)
    sure = mine * np.uint8(likely > SURE)
    away = cv2.distanceTransform(1 - sure, cv2.DIST_L2, 5) / unit
    others = cv2.distanceTransform(1 - mine, cv2.DIST_L2, 5) / unit
    guide = _without_blocks(picture)
    soft = guided(guide, likely * (others < REACH), radius=max(2, round(WINDOW * unit)))
    # Certainly a person, certainly not, and the filter's word between.
    soft = np.clip((soft - NOT) / (0.94 - NOT), 0, 1)
    return soft * np.clip(2 - 2 * away / REACH, 0, 1)


def _without_blocks(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with its light as sharp as it is, and its colours blurred."""
    blurred = cv2.GaussianBlur(picture, (0, 0), BLOCKS)
    light, colours = (cv2.cvtColor(each, cv2.COLOR_RGB2YCrCb) for each in (picture, blurred))
    colours[..., 0] = light[..., 0]
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_YCrCb2RGB), np.uint8)


def _nearer(
    face: NDArray[np.float32], other: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Where (H, W) a face (478, 2) is nearer than another, measured in the size of each."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    away = []
    for points in (face, other):
        oval = points[topology.ring("face_oval")]
        middle, size = oval.mean(0), np.ptp(oval, axis=0).mean()
        away.append(np.hypot(x - middle[0], y - middle[1]) / size)
    return away[0] <= away[1]


def guided(
    picture: NDArray[np.uint8], mask: NDArray[np.float32], *, radius: int
) -> NDArray[np.float32]:
    """The mask (H, W) as a local linear function of a picture's colours (H, W, 3), in [0, 1].

    The colour guided filter of He et al., TPAMI 2013; its 3 × 3 systems are solved in closed form.
    """
    guide = picture.astype(np.float32) / np.float32(255)

    def box(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.blur(x, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)

    mean, level = box(guide), box(mask)
    r, g, b = cv2.split(guide)
    mr, mg, mb = cv2.split(mean)
    rr, gg, bb = (
        box(c * c) - m * m + SMOOTHNESS for c, m in zip((r, g, b), (mr, mg, mb), strict=True)
    )
    rg, rb, gb = box(r * g) - mr * mg, box(r * b) - mr * mb, box(g * b) - mg * mb
    cr, cg, cb = (box(c * mask) - m * level for c, m in zip((r, g, b), (mr, mg, mb), strict=True))
    a11, a12, a13 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    a22, a23, a33 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * a11 + rg * a12 + rb * a13
    ar = (a11 * cr + a12 * cg + a13 * cb) / determinant
    ag = (a12 * cr + a22 * cg + a23 * cb) / determinant
    ab = (a13 * cr + a23 * cg + a33 * cb) / determinant
    rest = level - ar * mr - ag * mg - ab * mb
    return np.clip(box(ar) * r + box(ag) * g + box(ab) * b + box(rest), 0, 1)
