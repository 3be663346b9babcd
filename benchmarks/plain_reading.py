"""The released networks read plainly: one formula after the other, nothing cached or merged.

A second, independent implementation of the base model in terms of the released checkpoint's own
keys. Tests compare the networks with it, and the benchmark measures what their caching, folding
and merging are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

State = Mapping[str, Tensor]
GAZE_SLOTS = slice(29, 37)
DECODER = (  # block, pyramid level
    *(("head_0", 0), ("G_middle_0", 0), ("G_middle_1", 0)),
    *((f"up_{level}", level) for level in range(4)),
)


def generate(state: State, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """inputs: source, source_line, driving_line (B, 3, H, W), mouth_mask (B, 1, H, W),
    driving_ldmk (B, 58, 2), source_id (B, 256)."""
    x = torch.cat([inputs["source"], inputs["source_line"], inputs["driving_line"]], dim=1)
    code = motion_code(state, x)
    features = hourglass(state, x, code)
    pixels = head(state, "dense_motion_network.reger", features)
    size = pixels.shape[-1]
    flow = 2 * pixels / (size - 1)
    axis = torch.arange(size) * 2 / (size - 1) - 1
    grid = flow.permute(0, 2, 3, 1) + torch.stack(
        [axis[None, :].expand(size, size), axis[:, None].expand(size, size)], dim=-1
    )
    occlusion = bilinear(
        torch.sigmoid(head(state, "dense_motion_network.occlusion_net", features)), x.shape[-1]
    )
    return {
        "z_w": code,
        "flow": flow,
        "deformation": grid,
        "occlusion_map": occlusion,
        "deformed": sample(inputs["source"], grid),
        "prediction": refine(state, inputs, grid, occlusion),
    }


def motion_code(s: State, x: Tensor) -> Tensor:
    layer = 1
    while any(key.startswith(f"ladder_network.layer{layer}.0.") for key in s):
        weight = spectral(s, f"ladder_network.layer{layer}.0")
        x = F.leaky_relu(F.instance_norm(F.conv2d(x, weight, stride=2, padding=1)), 0.2)
        layer += 1
    v = F.linear(x.flatten(1), s["ladder_network.fc.weight"], s["ladder_network.fc.bias"])
    return v / (v.norm(dim=1, keepdim=True) + 1e-5)


def hourglass(s: State, x: Tensor, code: Tensor) -> Tensor:
    root = "dense_motion_network.hourglass"
    skips, index = [], 0
    while f"{root}.encoder.down_blocks.{index}.conv.weight" in s:
        block = f"{root}.encoder.down_blocks.{index}"
        x = F.avg_pool2d(adaptive(s, block, x, code), 2)
        x = adaptive(s, f"{block}.SameBlock2d", x, code)
        skips.append(x)
        index += 1
    skips.pop()
    index = 0
    while f"{root}.decoder.up_blocks.{index}.conv.weight" in s:
        block = f"{root}.decoder.up_blocks.{index}"
        x = adaptive(s, block, F.interpolate(x, scale_factor=2, mode="nearest"), code)
        x = adaptive(s, f"{block}.SameBlock2d", x, code)
        x = torch.cat([x, skips.pop()], dim=1)
        index += 1
    return x


def adaptive(s: State, name: str, x: Tensor, code: Tensor) -> Tensor:
    x = conv(s, f"{name}.conv", x)
    hidden = F.relu(linear(s, f"{name}.norm.mlp_shared.0", code))
    gamma = linear(s, f"{name}.norm.mlp_gamma", hidden)[:, :, None, None]
    beta = linear(s, f"{name}.norm.mlp_beta", hidden)[:, :, None, None]
    return F.relu(F.instance_norm(x) * (1 + gamma) + beta)


def head(s: State, name: str, x: Tensor) -> Tensor:
    x = F.layer_norm(x, x.shape[1:]) * s[f"{name}.0.weight"] + s[f"{name}.0.bias"]
    return conv(s, f"{name}.2", F.leaky_relu(x, 0.1))


def refine(s: State, inputs: Mapping[str, Tensor], grid: Tensor, occlusion: Tensor) -> Tensor:
    lines = torch.cat([inputs["source_line"], inputs["driving_line"]], dim=1)
    mouth = inputs["driving_line"] * inputs["mouth_mask"]
    conditions = []
    for features in source_pyramid(s, inputs["source"]):
        size = features.shape[-1]
        lines, mouth = bilinear(lines, size), bilinear(mouth, size)
        gaze = gaussians(inputs["driving_ldmk"][:, GAZE_SLOTS], size)
        warped = sample(features, grid)
        conditions.append(torch.cat([warped, bilinear(occlusion, size), gaze, lines, mouth], dim=1))
    identity = inputs["source_id"]
    x = F.conv_transpose2d(
        identity[:, :, None, None],
        spectral(s, "SPDAE_G.conv1", transposed=True),
        s["SPDAE_G.conv1.bias"],
    )
    for index, (name, level) in enumerate(DECODER):
        if index:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = block(s, f"SPDAE_G.{name}", x, bilinear(conditions[level], x.shape[-1]), identity)
    return torch.tanh(conv(s, "SPDAE_G.conv_img", F.leaky_relu(x, 0.2)))


def source_pyramid(s: State, source: Tensor) -> list[Tensor]:
    root, x = "feature_encoder", source
    skips = [source]
    for index in range(3):
        x = F.avg_pool2d(normed(s, f"{root}.encoder.down_blocks.{index}", x), 2)
        skips.append(x)
    pyramid = [skips.pop()]
    for index in range(3):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = normed(s, f"{root}.decoder.up_blocks.{index}", x)
        pyramid.append(x)
        x = torch.cat([x, skips.pop()], dim=1)
    return [*pyramid[:-1], conv(s, "fuse_high_res", x)]


def normed(s: State, name: str, x: Tensor) -> Tensor:
    x = F.instance_norm(
        conv(s, f"{name}.conv", x), weight=s[f"{name}.norm.weight"], bias=s[f"{name}.norm.bias"]
    )
    return F.relu(x)


def block(s: State, name: str, x: Tensor, condition: Tensor, identity: Tensor) -> Tensor:
    y = F.leaky_relu(fused(s, f"{name}.norm_0", x, condition, identity), 0.2)
    y = F.conv2d(y, spectral(s, f"{name}.conv_0"), s[f"{name}.conv_0.bias"], padding=1)
    y = F.leaky_relu(fused(s, f"{name}.norm_1", y, condition, identity), 0.2)
    y = F.conv2d(y, spectral(s, f"{name}.conv_1"), s[f"{name}.conv_1.bias"], padding=1)
    if f"{name}.norm_s.mlp_gamma.weight" in s:
        x = fused(s, f"{name}.norm_s", x, condition, identity)
        x = F.conv2d(x, spectral(s, f"{name}.conv_s"))
    return x + y


def fused(s: State, name: str, x: Tensor, condition: Tensor, identity: Tensor) -> Tensor:
    hidden = F.relu(conv(s, f"{name}.mlp_shared.0", condition))
    gamma, beta = conv(s, f"{name}.mlp_gamma", hidden), conv(s, f"{name}.mlp_beta", hidden)
    motion = F.instance_norm(x) * (1 + gamma) + beta
    mask = torch.sigmoid(conv(s, f"{name}.mlp_attention.0", x))
    weight = s[f"{name}.adain.style.linear.weight_orig"] * math.sqrt(2 / identity.shape[1])
    style = F.linear(identity, weight, s[f"{name}.adain.style.linear.bias"])[:, :, None, None]
    scale, shift = style.chunk(2, dim=1)
    return mask * motion + (1 - mask) * (F.instance_norm(x) * scale + shift)


def spectral(s: State, name: str, *, transposed: bool = False) -> Tensor:
    if f"{name}.weight" in s:
        return s[f"{name}.weight"]
    weight = s[f"{name}.weight_orig"]
    matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
    return weight / (s[f"{name}.weight_u"] @ (matrix @ s[f"{name}.weight_v"]))


def gaussians(points: Tensor, size: int) -> Tensor:
    axis = torch.arange(size) * 2 / (size - 1) - 1
    dx = axis[None, None, None, :] - points[:, :, 0, None, None]
    dy = axis[None, None, :, None] - points[:, :, 1, None, None]
    return torch.exp(-0.5 * (dx**2 + dy**2) / 0.005)


def sample(x: Tensor, grid: Tensor) -> Tensor:
    grid = bilinear(grid.permute(0, 3, 1, 2), x.shape[-1]).permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def bilinear(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def conv(s: State, name: str, x: Tensor) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], padding=weight.shape[-1] // 2)


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])
