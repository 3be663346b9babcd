"""Whether two pictures show the same person."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.identity_chip import chip_to_picture, cut_chips
from metaportrait_cli.metrics.pictures import as_tensor
from metaportrait_cli.networks.identity import IdentityNetwork

# dlib's threshold on the Euclidean distance of two embeddings, above which people differ.
OTHER_PERSON = 0.6


@torch.no_grad()
def embed(
    network: IdentityNetwork, frames: NDArray[np.uint8], points: NDArray[np.float32]
) -> Tensor:
    """Embeddings (T, 128) of the faces at `points` (T, 478, 3) in `frames` (T, H, W, 3)."""
    matrices = np.stack([chip_to_picture(face) for face in points])
    return network(cut_chips(as_tensor(frames), torch.from_numpy(matrices)))


def identity_distance(first: Tensor, second: Tensor) -> Tensor:
    """One less the cosine of embeddings (…, 128), in [0, 2]: 0 for the same face.

    The embedding is that of dlib's face recognition network on a face aligned by eyes and nose;
    the paper's own 256-d network (CSIM in most papers) was not released, so values don't compare
    with published tables. dlib's embeddings all point roughly one way: between clips of one person
    it is 0.01 to 0.06, between two people 0.08 to 0.22 (5 to 95 % of pairs of frames; 0.068 errs
    equally often, in 0.8 %, on either side).
    """
    return 1 - torch.cosine_similarity(first, second, dim=-1)


def other_person(first: Tensor, second: Tensor) -> bool:
    """Whether embeddings (128,) are of two people, by dlib's own threshold."""
    return float(torch.linalg.vector_norm(first - second)) > OTHER_PERSON
