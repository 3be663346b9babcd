"""The aligned picture of a face that the identity network looks at.

dlib aligns by five points: the corners of both eyes and the base of the nose. MediaPipe's mesh
has points at these places, so the same similarity transform follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.shelf import WeightsShelf

if TYPE_CHECKING:
    from torch import Tensor

    from metaportrait_cli.networks.identity import IdentityNetwork

CHIP_SIDE = 150
# Left eye's outer and inner corner, right eye's, the base of the nose.
ALIGNMENT_POINTS = (263, 362, 33, 133, 2)
# Where they lie in dlib's mean face, as fractions of it, and the margin that dlib puts around.
MEAN_FACE = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ],
    np.float32,
)
PADDING = 0.25


def chip_to_picture(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Matrix (2, 3) from pixels of the chip to pixels of the picture, for face points (478, 3)."""
    # As complex numbers a similarity is one product and one sum; least squares over the chip's
    # own pixels, as dlib does.
    chip = _complex((MEAN_FACE + PADDING) / (1 + 2 * PADDING) * CHIP_SIDE)
    seen = _complex(points[list(ALIGNMENT_POINTS), :2])
    offsets = chip - chip.mean()
    turn = (offsets.conj() @ (seen - seen.mean())) / (offsets.conj() @ offsets)
    shift = seen.mean() - turn * chip.mean()
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32
    )


def _complex(points: NDArray[np.float32]) -> NDArray[np.complex128]:
    return points[:, 0].astype(np.float64) + 1j * points[:, 1]


def cut_chips(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Aligned faces (B, 3, 150, 150) of pictures (B, 3, H, W), differentiable in the pictures.

    `matrices` (B, 2, 3) come from `chip_to_picture`. Large faces are averaged down before they
    are sampled; beyond the picture its edge is repeated.
    """
    import torch  # noqa: PLC0415  takes seconds, and whoever only renders may not need it
    from torch.nn import functional as F  # noqa: N812, PLC0415

    shrink = max(1, int(torch.linalg.vector_norm(matrices[:, :, 0], dim=1).min()))
    if shrink > 1:
        pictures = F.avg_pool2d(pictures, shrink, ceil_mode=True, count_include_pad=False)
    height, width = pictures.shape[-2:]
    centres = torch.arange(CHIP_SIDE, dtype=torch.float32, device=pictures.device) + 0.5
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    chip = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)  # (150, 150, 3)
    places = torch.einsum("bij,hwj->bhwi", matrices.float(), chip) / shrink
    # Points count from the corner of the first pixel, and so does this grid: -1 is that corner.
    grid = places * 2 / torch.tensor([width, height], device=pictures.device) - 1
    return F.grid_sample(
        pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False
    )


def cut_chip(picture: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The aligned face (150, 150, 3) in [0, 1] of a picture (H, W, 3), as `cut_chips` cuts it."""
    matrix = chip_to_picture(points).astype(np.float64)
    shrink = max(1, int(np.linalg.norm(matrix[:, 0])))
    pixels = picture.astype(np.float32) / 255
    if shrink > 1:
        height, width = (-(-side // shrink) * shrink for side in picture.shape[:2])
        # Means of what there is at the lower and right edges.
        beyond = (0, height - len(picture), 0, width - picture.shape[1])
        weight = cv2.copyMakeBorder(np.ones(picture.shape[:2], np.float32), *beyond, 0)
        pixels = cv2.copyMakeBorder(pixels, *beyond, 0)
        size = (width // shrink, height // shrink)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        pixels /= cv2.resize(weight, size, interpolation=cv2.INTER_AREA)[..., None]
    centres = np.arange(CHIP_SIDE) + 0.5
    chip = np.stack([*np.meshgrid(centres, centres), np.ones((CHIP_SIDE, CHIP_SIDE))], axis=-1)
    last = np.array(pixels.shape[1::-1]) - 1
    places = np.clip(chip @ matrix.T / shrink - 0.5, 0, last)
    x, y = np.moveaxis(places.astype(int), -1, 0)
    right, below = np.minimum(x + 1, last[0]), np.minimum(y + 1, last[1])
    across, down = np.moveaxis(places - np.floor(places), -1, 0)[..., None]
    upper = (1 - across) * pixels[y, x] + across * pixels[y, right]
    lower = (1 - across) * pixels[below, x] + across * pixels[below, right]
    return ((1 - down) * upper + down * lower).astype(np.float32)


class Identity:
    """The bundled network, for whoever needs an embedding as numbers alone."""

    def __init__(self) -> None:
        self._running = Running(shelf=WeightsShelf(bundled_path("identity")))
        self._held: SwiftFunction | None = None

    @property
    def is_known(self) -> bool:
        """Whether it can probably be run without torch."""
        return self._function().is_known

    def __call__(
        self, picture: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The embedding (1, 128) of the face at points (478, 3) in a picture (H, W, 3)."""
        return self._function()(cut_chip(picture, points).transpose(2, 0, 1)[None])[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """For many faces: within, the network stays loaded."""
        before, self._held = self._held, self._function()
        try:
            yield
        finally:
            self._held = before

    def _function(self) -> SwiftFunction:
        # Made anew each time, for it is large, and needed once a source.
        return self._held or SwiftFunction(_embedding, self._running, name="identity")


def _embedding() -> Function:
    network = identity_network()
    return lambda chips: [network(chips)]


def identity_network() -> IdentityNetwork:
    """The bundled one; stored at half precision, which a CPU is slow with."""
    from metaportrait_cli.networks.identity import IdentityNetwork  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    return load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()


def embed(
    network: IdentityNetwork, frames: NDArray[np.uint8], points: NDArray[np.float32]
) -> Tensor:
    """Embeddings (T, 128) of the faces at `points` (T, 478, 3) in `frames` (T, H, W, 3)."""
    import torch  # noqa: PLC0415  as above

    from metaportrait_cli.pixels import as_tensor  # noqa: PLC0415

    matrices = np.stack([chip_to_picture(face) for face in points])
    with torch.no_grad():
        return network(cut_chips(as_tensor(frames), torch.from_numpy(matrices)))
