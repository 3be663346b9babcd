"""Whether two pictures show the same person."""

from __future__ import annotations

import torch
from torch import Tensor

# dlib's threshold on the Euclidean distance of two embeddings, above which people differ.
OTHER_PERSON = 0.6


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
