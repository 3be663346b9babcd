"""The networks of MegaPortraits against what the paper says of them, and their warps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.blocks import AdaptiveNorm, StandardConv, fold
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.critic import MegaCritic, MegaCriticConfig
from metaportrait_cli.networks.mega.encoders import aligned
from metaportrait_cli.networks.mega.enhancer import MegaEnhancer, MegaEnhancerConfig
from metaportrait_cli.networks.mega.gaze import GazeConfig, GazeNetwork
from metaportrait_cli.networks.mega.warping import (
    from_canonical,
    identity_grid,
    sampled,
    to_canonical,
    turned,
)
from tests.mega import TINY


def turn(degrees: float, scale: float = 1.0) -> torch.Tensor:
    """A head turned about the upright axis, (1, 4, 4)."""
    angle = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[2, 2] = angle.cos()
    matrix[0, 2], matrix[2, 0] = angle.sin(), -angle.sin()
    matrix[:3, :3] *= scale
    return matrix[None]


def smooth_volume() -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.randn(1, 3, 3, 4, 4)
    return F.interpolate(coarse, size=(16, 32, 32), mode="trilinear")


@pytest.fixture(scope="module")
def paper() -> BaseModel:
    with torch.device("meta"):
        return BaseModel(MegaConfig.paper()).eval()


# Of the paper's networks, in millions of parameters and GMAC at 512². Not in the figures but ours:
# a fourth output of G_2D (577 parameters), and ResNets end in e_s or z, not in 1000 classes.
@pytest.mark.parametrize(
    ("part", "millions", "gmac"),
    [
        ("volume_encoder", 7.1, 284),
        ("global_encoder", 24.6, 5.4),
        ("expression_encoder", 15.6, 0.6),
        ("warp_source", 9.0, 19.7),
        ("volume", 57.8, 1004),
        ("decoder", 41.1, 252),
    ],
)
def test_the_paper_s_networks_have_its_sizes(
    paper: BaseModel, part: str, millions: float, gmac: float
) -> None:
    assert (paper.config.channels, *paper.config.places) == (96, 16, 64, 64)
    network = getattr(paper, part)
    with torch.device("meta"):
        volume, picture = torch.empty(1, 96, 16, 64, 64), torch.empty(1, 3, 512, 512)
        look, code = torch.empty(1, 3, 128, 128), torch.empty(1, 512, 4, 4)
        given = {"volume": volume, "decoder": volume, "warp_source": code}
        given["expression_encoder"] = look
        with FlopCounterMode(display=False) as counted:
            network(given.get(part, picture))
    found = sum(each.numel() for each in network.parameters())
    assert found / 1e6 == pytest.approx(millions, abs=0.06)
    assert counted.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)


def test_the_enhancer_reaches_a_megapixel_at_its_size() -> None:
    with torch.device("meta"):
        network = MegaEnhancer(MegaEnhancerConfig.paper()).eval()
        with FlopCounterMode(display=False) as counted:
            image = network(torch.empty(1, 4, 512, 512))
    assert image.shape == (1, 4, 1024, 1024)
    found = sum(each.numel() for each in network.parameters())
    assert found / 1e6 == pytest.approx(53.5, abs=0.06)
    assert counted.get_total_flops() / 2e9 == pytest.approx(1543, rel=0.01)


def test_an_unchanged_grid_changes_nothing() -> None:
    volume = torch.randn(2, 3, 8, 16, 16)
    still = torch.eye(4).expand(2, 4, 4)
    grid = identity_grid((8, 16, 16), like=volume)
    assert torch.allclose(turned(still, (8, 16, 16)), grid.expand(2, -1, -1, -1, -1), atol=1e-6)
    found = to_canonical(volume, still, grid.expand(2, -1, -1, -1, -1))
    assert (found - volume).abs().max() < 1e-5


def test_mixed_precision_does_not_round_places() -> None:
    picture = torch.rand(1, 3, 64, 64)
    exact = turned(turn(20), (4, 8, 8)), aligned(picture, turn(20), size=16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = turned(turn(20), (4, 8, 8)), aligned(picture, turn(20), size=16)
    for one, other in zip(exact, mixed, strict=True):
        assert torch.equal(one, other)


def test_there_and_back_is_where_it_was() -> None:
    volume, head = smooth_volume(), turn(20)
    grid = identity_grid((16, 32, 32), like=volume)[None]
    back = from_canonical(to_canonical(volume, head, grid), head, grid)
    inner = (..., slice(5, 11), slice(10, 22), slice(10, 22))
    unturned = (to_canonical(volume, head, grid) - volume)[inner].abs().mean()
    assert (back - volume)[inner].abs().mean() < 0.15 * unturned


def test_rotation_and_expression_are_two_samplings_not_a_sum() -> None:
    """The offsets are canonical: they are read in the frame of the turned head."""
    volume, head = smooth_volume(), turn(40)
    grid = identity_grid((16, 32, 32), like=volume)[None]
    moved = grid + torch.tensor([0.2, 0.0, 0.0])
    found = to_canonical(volume, head, moved)
    twice = sampled(sampled(volume, turned(head, (16, 32, 32))), moved)
    added = sampled(volume, turned(head, (16, 32, 32)) + (moved - grid))
    assert torch.equal(found, twice)
    assert (found - added)[..., 4:12, 8:24, 8:24].abs().mean() > 0.05


def test_a_turn_to_the_right_moves_what_is_near_as_in_a_picture() -> None:
    """x to the right, y down, z away: a yaw as of the morphable model moves the front to the left.

    Height, width and depth differ, and the point is off the centre, so nothing can be swapped.
    """
    volume = torch.zeros(1, 1, 12, 24, 24)
    volume[0, 0, 2, 6, 12] = 1  # in front (z < 0), high, in the middle
    grid = identity_grid((12, 24, 24), like=volume)[None]
    found = from_canonical(volume, turn(30), grid)[0, 0]
    z, y, x = (int(each) for each in (found == found.max()).nonzero()[0])
    assert (y, x < 12, z >= 2) == (6, True, True)


def test_untrained_warps_move_nothing() -> None:
    torch.manual_seed(0)
    base = BaseModel(TINY).eval()
    grid = base.warp_driver(torch.randn(2, 16, 4, 4))
    assert torch.equal(grid[0], identity_grid(TINY.places, like=grid))


def test_adaptive_norms_add_to_their_own_gains() -> None:
    norm = AdaptiveNorm(8, code=4, places=16, groups=2)
    x, code = torch.randn(2, 8, 3, 5, 5), torch.randn(2, 4, 16)
    plain = F.group_norm(x, 2)
    assert torch.allclose(norm(x, code), plain, atol=1e-6)
    torch.nn.init.normal_(norm.right)
    gain, shift = (norm.left @ code @ norm.right).unbind(dim=2)
    wanted = plain * (1 + gain)[..., None, None, None] + shift[..., None, None, None]
    assert torch.allclose(norm(x, code), wanted, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_weights_are_standardised_and_of_spectral_norm_one(dimensions: int) -> None:
    torch.manual_seed(0)
    conv = StandardConv(6, 5, kernel=3, dimensions=dimensions).eval()  # type: ignore[arg-type]
    weight = conv.effective().detach().flatten(1)
    assert torch.allclose(weight.mean(dim=1), torch.zeros(5), atol=1e-6)
    assert torch.linalg.matrix_norm(weight, 2) == pytest.approx(1, abs=0.05)


def test_a_pass_and_its_folded_twin() -> None:
    torch.manual_seed(0)
    base = BaseModel(TINY).eval()
    source, look = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    head = turn(10, scale=0.8).expand(2, 4, 4)
    with torch.no_grad():
        before = base(source, head, head, look)
        assert before.shape == (2, 4, 32, 32)
        fold(base)
        assert torch.allclose(base(source, head, head, look), before, atol=1e-5)


def test_an_aligned_face_does_not_know_where_the_head_is() -> None:
    """The same face, moved and scaled in the picture, looks the same aligned."""
    torch.manual_seed(0)
    picture = F.interpolate(torch.rand(1, 3, 8, 8), size=(128, 128), mode="bicubic")
    small = torch.tensor([[[2.0, 0, -0.2], [0, 2.0, 0.3]]])  # twice as small, off the centre
    grid = F.affine_grid(small, [1, 3, 128, 128], align_corners=False)
    moved = F.grid_sample(picture, grid, align_corners=False)
    head, there = turn(0, scale=0.9), turn(0, scale=0.45)
    there[0, :2, 3] = torch.tensor([0.1, -0.15])
    here, same = aligned(picture, head, size=32), aligned(moved, there, size=32)
    assert (here - same).abs().mean() < 0.02


def test_critic_and_gaze_network() -> None:
    critic = MegaCritic(MegaCriticConfig(widths=(4, 8, 8, 8)))
    judgements = critic(torch.rand(2, 3, 64, 64))
    assert [each.logits.shape[-1] for each in judgements] == [8, 4]
    assert [len(each.features) for each in judgements] == [4, 4]
    gaze, openness = GazeNetwork(GazeConfig.lite())(
        torch.rand(3, 2, 3, 48, 48), torch.rand(3, 32, 2)
    )
    assert (gaze.shape, openness.shape) == ((3, 2), (3, 1))


@pytest.mark.parametrize(
    "change",
    [{"size": 64}, {"warp": (16, 8, 8)}, {"decoder": (16, 8)}, {"depth": 6}, {"depth": 12}],
)
def test_sizes_must_go_together(change: dict) -> None:
    with pytest.raises(ValueError, match=r"agree|double|depth"):
        replace(TINY, **change)
