"""What the base model is trained on (paper, Section 3.1, Equations 3 and 4).

All terms are means over their samples; samples without a target (cross-identity) take part in the
identity and adversarial terms alone. Pictures are (B, 3, S, S), RGB in [0, 1], float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.face.identity import cut_chips
from metaportrait_cli.networks.compact import Motion, Picture
from metaportrait_cli.networks.discriminator import Judgement
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.training.perceptual import PerceptualLoss

PYRAMID_LEVELS = 4
FLOW_GRADIENT_UNIT = 100.0  # a hundredth of half a side a cell counts as one


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the paper's are for sums of VGG19 features, these for means."""

    warp: float = 1.0
    """Pixel term of the warped source"""
    warp_perceptual: float = 3.0
    perceptual: float = 3.0
    face: float = 3.0
    """Perceptual term of the face at full size"""
    pixel: float = 6.0
    mouth: float = 4.0
    eyes: float = 4.0
    flow: float = 10.0
    """For the distance to the teacher's flow, where it can be trusted"""
    mask: float = 0.01
    """For what is painted over, so that what can be copied is"""
    smooth: float = 0.02
    """For the gradient of the learnt part of the flow"""
    identity: float = 5.0
    """The embedding's cosines lie within 0.3 of each other, hence more than for others"""
    adversarial: float = 0.1
    matching: float = 1.0
    """Feature matching in the discriminator"""


def reconstruction_terms(
    picture: Picture,
    motion: Motion,
    *,
    prior: Tensor,
    teacher: Tensor,
    trust: Tensor,
    target: Tensor,
    mouth: Tensor,
    eyes: Tensor,
    points: Tensor,
    paired: Tensor,
    perceptual: PerceptualLoss | None,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Weighted scalars by name; `paired` (B,) is 0 for samples without a target.

    `prior` and `teacher` (B, 2, G, G), `trust` (B, 1, G, G), see `training.teacher`; `mouth` and
    `eyes` (B, 1, S, S) in [0, 1]; `points` (B, 478, 3) in pixels.
    """

    terms = warping_terms(
        picture,
        motion,
        prior=prior,
        teacher=teacher,
        trust=trust,
        target=target,
        paired=paired,
        perceptual=None,
        weights=weights,
    )
    terms |= {
        "pixel": weights.pixel * _over_pairs(pyramid_l1(picture.image, target), paired),
        "mouth": weights.mouth * _over_pairs(masked_l1(picture.image, target, mouth), paired),
        "eyes": weights.eyes * _over_pairs(masked_l1(picture.image, target, eyes), paired),
        "mask": weights.mask * picture.mask.mean(),
    }
    if perceptual is not None:
        # Both in one pass: the target's features are found once.
        warped, image = perceptual([picture.warped, picture.image], target)
        terms["warp_perceptual"] = weights.warp_perceptual * _over_pairs(warped, paired)
        terms["perceptual"] = weights.perceptual * _over_pairs(image, paired)
        face = perceptual.in_face(picture.image, target, points)
        terms["face"] = weights.face * _over_pairs(face, paired)
    return terms


def warping_terms(
    picture: Picture,
    motion: Motion,
    *,
    prior: Tensor,
    teacher: Tensor,
    trust: Tensor,
    target: Tensor,
    paired: Tensor,
    perceptual: PerceptualLoss | None,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Those of `reconstruction_terms` that judge the flow, for training it alone."""
    terms = {
        "warp_pixel": weights.warp * _over_pairs(pyramid_l1(picture.warped, target), paired),
        "flow": weights.flow * _over_pairs(masked_l1(motion.flow, teacher, trust), paired),
        "smooth": weights.smooth * roughness(motion.flow - prior),
    }
    if perceptual is not None:
        (warped,) = perceptual([picture.warped], target)
        terms["warp_perceptual"] = weights.warp_perceptual * _over_pairs(warped, paired)
    return terms


def _over_pairs(values: Tensor, paired: Tensor) -> Tensor:
    """Mean of values (B,) over the samples that have a target."""
    return (values * paired).sum() / paired.sum().clamp(min=1)


def pyramid_l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, averaged over halvings of the size: (B,)."""
    total = torch.zeros(len(image), device=image.device)
    difference = image - target
    for level in range(PYRAMID_LEVELS):
        if level:
            difference = F.avg_pool2d(difference, 2)
        total = total + difference.abs().mean(dim=(1, 2, 3)) / PYRAMID_LEVELS
    return total


def masked_l1(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the mask (B, 1, H, W): (B,); 0 where the mask is empty."""
    difference = ((image - target).abs().mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3))
    return difference / (mask.sum(dim=(1, 2, 3)) + 1)


def roughness(flow: Tensor) -> Tensor:
    """Mean absolute gradient of a flow (B, 2, G, G), in hundredths of half a side per cell."""
    along_x = (flow[..., :, 1:] - flow[..., :, :-1]).abs().mean()
    along_y = (flow[..., 1:, :] - flow[..., :-1, :]).abs().mean()
    return FLOW_GRADIENT_UNIT * (along_x + along_y)


def identity_term(
    network: IdentityNetwork, image: Tensor, chip: Tensor, embedding: Tensor
) -> Tensor:
    """1 - cosine between the picture's embedding and the source's (B, 128) (Equation 3).

    `chip` (B, 2, 3) says where the face is, see `face.identity_chip`.
    """
    found = network(cut_chips(image, chip))
    return (1 - F.cosine_similarity(found.float(), embedding.float())).mean()


def generator_terms(
    judged: Sequence[Judgement],
    judged_real: Sequence[Judgement],
    *,
    paired: Tensor,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Least-squares adversarial term over all samples, feature matching over those with target."""
    adversarial = [(1 - scale.logits.float()).square().mean() for scale in judged]
    matching = []
    for fake, real in zip(judged, judged_real, strict=True):
        for ours, theirs in zip(fake.features, real.features, strict=True):
            distance = (ours.float() - theirs.detach().float()).abs().mean(dim=(1, 2, 3))
            matching.append((distance * paired).sum() / paired.sum().clamp(min=1))
    return {
        "adversarial": weights.adversarial * torch.stack(adversarial).mean(),
        "matching": weights.matching * torch.stack(matching).mean(),
    }


def discriminator_loss(fake: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
    """Least squares: real patches towards 1, rendered ones towards 0."""
    losses = [
        (1 - theirs.logits.float()).square().mean() + ours.logits.float().square().mean()
        for ours, theirs in zip(fake, real, strict=True)
    ]
    return torch.stack(losses).mean()
