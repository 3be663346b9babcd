"""The aligned picture of a face that the identity network looks at.

dlib aligns by five points: the corners of both eyes and the base of the nose. MediaPipe's mesh
has points at these places, so the same similarity transform follows from them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  as everywhere
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

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


def identity_network() -> IdentityNetwork:
    """The bundled one; stored at half precision, which a CPU is slow with."""
    return load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()


@torch.no_grad()
def embed(
    network: IdentityNetwork, frames: NDArray[np.uint8], points: NDArray[np.float32]
) -> Tensor:
    """Embeddings (T, 128) of the faces at `points` (T, 478, 3) in `frames` (T, H, W, 3)."""
    matrices = np.stack([chip_to_picture(face) for face in points])
    return network(cut_chips(as_tensor(frames), torch.from_numpy(matrices)))
