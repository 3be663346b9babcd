"""Losses of the base model (section 3.1); pictures are (B, 3, S, S), RGB in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SCALE = 5.0  # s of equation 6
MARGIN = 0.2  # m


def cosine_loss(
    anchors: Sequence[Tensor],
    own: Tensor,
    other: Tensor,
    *,
    scale: float = SCALE,
    margin: float = MARGIN,
) -> Tensor:
    """L_cos (equation 7): expressions of what was painted are the driver's, and nobody else's.

    Anchors are z_{s->d} and z_{s*->d}; `own` is z_d, `other` z_d*, (B, N) each. Negatives are the
    other drivers of the whole batch. The margin stands on positives alone, as in the large margin
    loss that the paper cites (Wang et al., CVPR 2018): on all pairs, as equation 6 is printed, it
    would cancel.
    """
    others = F.normalize(other, dim=1)
    total = own.new_zeros(())
    for anchor in anchors:
        positive = scale * (F.cosine_similarity(anchor, own, dim=1) - margin)  # d(z_k, z_l): (B,)
        # Not as a matrix product: mixed precision would round it.
        negative = scale * (F.normalize(anchor, dim=1)[:, None] * others).sum(dim=2)  # d(z_i, z_j)
        # -log(exp d+ / (exp d+ + sum exp d-))
        total = total + F.softplus(torch.logsumexp(negative, dim=1) - positive).mean()
    return total
