"""Peculiarities the released weights depend on: these fail if someone cleans them up."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import (
    AdaptiveInstanceNorm,
    EqualisedLinear,
    NearestUpConv2d,
    SpectralConv2d,
    SpectralConvTranspose2d,
)
from metaportrait_cli.networks.refinement import (
    FusionNorm,
    RefinementConfig,
    RefinementNetwork,
    gaze_maps,
    line_cascade,
)
from metaportrait_cli.networks.style_decoder import StyleDecoder
from metaportrait_cli.networks.temporal_sr import TemporalBlock
from metaportrait_cli.networks.warping import MapHead, base_grid, sampled_at


def test_zero_flow_is_not_the_identity() -> None:
    """The grid puts -1 and 1 on pixel centres, sampling on picture edges."""
    torch.manual_seed(0)
    picture = torch.rand(1, 1, 6, 10)
    warped = sampled_at(picture, base_grid(6, 10, like=picture))
    # Pixel (row, column) is read at 6/5 row - 1/2 and 10/9 column - 1/2, reflected at the edges.
    expected = F.grid_sample(
        picture, base_grid(6, 10, like=picture), padding_mode="reflection", align_corners=False
    )
    torch.testing.assert_close(warped, expected)
    assert (warped - picture).abs().mean() > 0.05


def test_grid_is_x_first_and_reaches_one_on_border_pixels() -> None:
    grid = base_grid(3, 5, like=torch.zeros(1))[0]
    assert grid[0, 4].tolist() == [1.0, -1.0]
    assert grid[2, 0].tolist() == [-1.0, 1.0]


def test_deformation_is_resized_without_aligned_corners_and_pictures_reflect() -> None:
    x = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    outside = torch.full((1, 4, 4, 2), -1.25)  # one pixel beyond the left edge
    torch.testing.assert_close(sampled_at(x, outside), torch.full((1, 1, 8, 8), 0.5))


def test_finer_levels_see_a_blown_up_copy_of_the_coarsest_lines() -> None:
    torch.manual_seed(0)
    lines = torch.rand(1, 3, 32, 32)
    sizes = [torch.Size((s, s)) for s in (4, 8, 32)]
    coarse, middle, fine = line_cascade(lines, sizes)
    torch.testing.assert_close(middle, F.interpolate(coarse, size=8, mode="bilinear"))
    torch.testing.assert_close(fine, F.interpolate(middle, size=32, mode="bilinear"))
    assert (fine - lines).abs().mean() > 0.1


def test_spectral_norm_takes_the_stored_vectors_as_they_are() -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, kernel=3).eval()
    before = conv.u.clone()
    matrix = conv.weight.flatten(1)
    sigma = conv.u @ matrix @ conv.v
    torch.testing.assert_close(conv.normalised_weight(), conv.weight / sigma)
    assert abs(sigma) < 0.9 * torch.linalg.svdvals(matrix)[0]
    assert torch.equal(conv.u, before)
    assert torch.equal(conv.folded().weight, conv.normalised_weight())
    conv.train()
    conv(torch.rand(1, 3, 4, 4))
    assert not torch.equal(conv.u, before)
    v = F.normalize(matrix.t() @ before, dim=0)
    torch.testing.assert_close(conv.v, v)  # v first, then u
    torch.testing.assert_close(conv.u, F.normalize(matrix @ v, dim=0))


def test_spectral_norm_of_the_seed_runs_along_the_output_axis() -> None:
    torch.manual_seed(0)
    seed = SpectralConvTranspose2d(3, 5, kernel=4).eval()
    assert seed.u.shape == (5,)
    assert seed.v.shape == (48,)
    sigma = seed.u @ seed.weight.permute(1, 0, 2, 3).reshape(5, -1) @ seed.v
    torch.testing.assert_close(seed.normalised_weight(), seed.weight / sigma)
    x = torch.rand(2, 3, 1, 1)
    torch.testing.assert_close(seed.folded()(x), seed(x))


def test_flow_heads_leak_a_tenth() -> None:
    head = MapHead(in_width=1, out_width=1)
    for parameter in head.conv.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        head.conv.weight[0, 0, 3, 3] = 1
    x = torch.tensor([[[[-1.0, 1.0]]]])
    torch.testing.assert_close(head(x), torch.tensor([[[[-0.1, 1.0]]]]), atol=1e-4, rtol=0)


def test_identity_scale_is_gamma_and_motion_scale_is_one_plus_gamma() -> None:
    config = RefinementConfig(identity_dim=4, condition_hidden=2)
    norm = FusionNorm(width=3, config=config)
    for parameter in norm.parameters():
        nn.init.zeros_(parameter)
    x, normalised = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    style = norm.style(torch.rand(1, 4))
    hidden = torch.rand(1, 2, 4, 4)
    # All zero: the identity branch vanishes, the motion branch passes, the mask is a half.
    torch.testing.assert_close(norm(x, normalised, hidden, style), normalised / 2)
    nn.init.constant_(norm.attention.weight, 100.0)  # the mask looks at x itself ...
    torch.testing.assert_close(norm(x, normalised, hidden, style), normalised)
    torch.testing.assert_close(norm(-x, normalised, hidden, style), torch.zeros_like(x))


def test_adaptive_norm_of_several_samples() -> None:
    torch.manual_seed(0)
    norm = AdaptiveInstanceNorm(width=3, code_dim=4, hidden=5)
    x, code = torch.rand(2, 3, 6, 7), torch.rand(2, 4)
    gamma, beta = norm.modulation(F.relu(norm.shared(code))).chunk(2, dim=1)
    expected = F.instance_norm(x) * (1 + gamma[..., None, None]) + beta[..., None, None]
    torch.testing.assert_close(norm(x, code), expected)


def test_equalised_linear_scales_at_run_time() -> None:
    linear = EqualisedLinear(8, 3)
    x = torch.rand(2, 8)
    expected = x @ linear.weight.t() * math.sqrt(2 / 8) + linear.bias
    torch.testing.assert_close(linear(x), expected)


def test_output_goes_below_zero() -> None:
    config = RefinementConfig(
        image_size=16,
        identity_dim=4,
        encoder_widths=(2,),
        decoder_widths=(2,),
        block_widths=(2, 2, 2),
    )
    network = RefinementNetwork(config).eval()
    assert network.to_rgb.bias is not None
    nn.init.constant_(network.to_rgb.bias, -5.0)
    conditions = [torch.rand(1, 20, size, size) for size in (8, 16)]
    image = network.paint(*network.identify(torch.rand(1, 4)), conditions)
    assert image.shape == (1, 3, 16, 16)
    assert image.min() < -0.9


def test_gaze_is_a_gaussian_around_each_point() -> None:
    points = torch.tensor([[[0.5, -1.0]] * 8])
    maps = gaze_maps(points, (3, 5))  # columns at -1, -.5, 0, .5, 1
    assert maps.shape == (1, 8, 3, 5)
    assert maps[0, 0, 0, 3] == 1
    torch.testing.assert_close(maps[0, 0, 0, 2], torch.tensor(math.exp(-0.5 * 0.25 / 0.005)))


def test_phases_equal_nearest_upsampling() -> None:
    torch.manual_seed(0)
    conv = NearestUpConv2d(3, 5)
    x = torch.rand(2, 3, 4, 6)
    torch.testing.assert_close(conv.folded()(x), conv(x), atol=1e-6, rtol=1e-5)


def test_temporal_block_repeats_the_ends() -> None:
    torch.manual_seed(0)
    block = TemporalBlock(2)
    frames = torch.rand(3, 2, 4, 4)
    longer = torch.cat([frames[:1], frames, frames[-1:]])
    torch.testing.assert_close(block(frames), block(longer)[1:-1])
    # As the authors wrote it: a 3x3x3 convolution over time and space.
    kernel = block.conv1.weight.view(6, 3, 2, 3, 3).transpose(1, 2)
    inner = F.conv3d(longer.transpose(0, 1)[None], kernel, block.conv1.bias, padding=(0, 1, 1))
    expected = block.conv2(F.leaky_relu(inner[0].transpose(0, 1), 0.2)) + frames
    torch.testing.assert_close(block(frames), expected)


def test_sft_steers_the_second_half_of_the_channels() -> None:
    torch.manual_seed(0)
    decoder = StyleDecoder(widths=[4, 4], style_dim=6)
    seen: list[torch.Tensor] = []
    decoder.convs[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    latents = torch.rand(1, 4, 6)
    for shift in (0.0, 7.0):
        condition = (torch.ones(1, 2, 8, 8), torch.full((1, 2, 8, 8), shift))
        decoder(latents, [condition], stored_noise=False)
    torch.testing.assert_close(seen[1][:, :2], seen[0][:, :2])
    torch.testing.assert_close(seen[1][:, 2:], seen[0][:, 2:] + 7)
