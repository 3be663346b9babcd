"""What is done with single pixels without torch is what the networks' own code does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaportrait_cli.networks.mouth import MouthNetwork, below_teeth
from metaportrait_cli.networks.regions import RegionConfig, RegionNetwork, teeth_stay
from metaportrait_cli.networks.swift import repainted
from metaportrait_cli.networks.teeth import BEHIND, DRAWN, RIM

SIDE = 64


def patch(channels: int, *, grey: bool) -> np.ndarray:
    """A mouth that stands open, partly unknown, off the patch's middle; planes (C, P, P)."""
    draw = np.random.default_rng(0)
    found = np.zeros((channels, SIDE, SIDE), np.uint8)
    found[:6] = draw.integers(0, 256, (6, SIDE, SIDE))
    if grey:
        found[3:6] = found[3]
    found[6, 12:52, 4:40] = 255
    found[7, 20:40, 8:36] = 255
    found[8, 30:44, 8:30] = 200
    found[10, 20:42, 8:36] = 255
    if channels > DRAWN.start:
        found[DRAWN.start, 24:38, 10:32] = draw.integers(1, 256, (14, 22))
        drawn = found[DRAWN.start, 24:38, 10:32] > 0
        for part in (BEHIND, RIM):
            found[part, 24:38, 10:32] = drawn * draw.integers(0, 256, (14, 22))
    return found


def test_teeth_stay_while_their_mouth_is_open() -> None:
    planes = patch(11, grey=False)
    height = 22

    def staying(rows: int) -> float:
        planes[repainted.OPENING] = 0
        planes[repainted.OPENING, 20 : 20 + rows, 8:36] = 255
        tensor = torch.from_numpy(planes)[None] / 255
        assert float(teeth_stay(tensor)) == pytest.approx(repainted.teeth_stay(planes), abs=1e-5)
        return repainted.teeth_stay(planes)

    assert staying(height // 2) == 0
    assert 0 < staying(height) < 1
    assert staying(height + 6) == pytest.approx(1)
    planes[repainted.OWN_OPENING] = 0
    planes[repainted.OWN_OPENING, 20, 8:36] = 255
    assert staying(height) == 0


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("keep_shown", [False, True])
@pytest.mark.parametrize("kind", [MouthNetwork, RegionNetwork])
@torch.no_grad()
def test_numpy_says_what_torch_says(
    kind: type[RegionNetwork], keep_shown: bool, grey: bool
) -> None:
    torch.manual_seed(0)
    network = kind(RegionConfig(patch=SIDE, widths=(8, 16), keep_shown=keep_shown))
    torch.nn.init.normal_(network.head.weight, std=0.1)
    if isinstance(network, MouthNetwork):
        torch.nn.init.normal_(network.light.weight, std=0.3)
    planes = patch(kind.channels, grey=grey)
    patches = torch.from_numpy(planes)[None] / 255
    identity = torch.randn(1, 128)
    head, *light = network.found(patches, identity)
    change, mask = network.painted(head, patches)
    assert mask.max() > 0.3

    found = repainted.painted(head[0].numpy(), planes, keep_shown=keep_shown)
    np.testing.assert_allclose(found, change[0].permute(1, 2, 0), atol=1e-5, rtol=3e-5)
    if isinstance(network, MouthNetwork):
        shown = network.seen(patches, identity)[2]
        lit = repainted.light_of(light[0][0].numpy(), planes)
        np.testing.assert_allclose(lit, shown[0], atol=1e-5)
        wanted = below_teeth(patches, change, shown) - patches[:, :3]
        below = repainted.below_teeth(found, planes, lit)
        np.testing.assert_allclose(below, wanted[0].permute(1, 2, 0), atol=2e-4)
