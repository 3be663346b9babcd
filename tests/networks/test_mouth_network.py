"""The mouth's network: light on what is drawn, paint behind and around it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metaportrait_cli.networks.mouth import MouthNetwork, decoded, encoded
from metaportrait_cli.networks.regions import RegionConfig
from metaportrait_cli.networks.teeth import (
    BEHIND,
    BRIGHT,
    ON_LOWER,
    ON_UPPER,
    OPENING,
    TEETH_TINT,
    UPPER,
    with_teeth,
)

SIDE = 32
INSIDE = (slice(None), slice(None), slice(12, 20), slice(8, 24))


@pytest.fixture
def network() -> MouthNetwork:
    torch.manual_seed(0)
    made = MouthNetwork(RegionConfig(patch=SIDE, widths=(8, 16), code_dim=8, keep_shown=True))
    # As if it had learnt something.
    torch.nn.init.normal_(made.light.weight, std=0.1)
    torch.nn.init.normal_(made.head.weight, std=0.02)
    return made.eval()


@pytest.fixture
def patches() -> Tensor:
    """Two faces in colour with an opening in which nothing is drawn."""
    torch.manual_seed(1)
    found = torch.zeros(2, MouthNetwork.channels, SIDE, SIDE)
    found[:, :6] = 0.3 + 0.4 * torch.rand(2, 6, 1, 1) + 0.1 * torch.rand(2, 6, SIDE, SIDE)
    for channel in (6, 7, 8):
        found[:, channel : channel + 1][INSIDE] = 1
    return found


def test_colours_come_back_as_they_were_written_down() -> None:
    colours = torch.linspace(0, BRIGHT, 50)
    torch.testing.assert_close(decoded(encoded(colours)), colours, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_anything_drawn_it_paints_as_other_regions(
    network: MouthNetwork, patches: Tensor
) -> None:
    found = network(patches, torch.zeros(2, 128))
    change, mask, light = network.seen(patches, torch.zeros(2, 128))
    torch.testing.assert_close(found.image, patches[:, :3] + change, atol=1e-5, rtol=0)
    assert mask.shape == (2, 1, SIDE, SIDE)
    assert light.shape == (2, 10, SIDE // 4, SIDE // 4)


@torch.no_grad()
def test_gaps_between_teeth_stay_whatever_it_paints(network: MouthNetwork, patches: Tensor) -> None:
    patches[:, OPENING][INSIDE] = 1
    patches[:, BEHIND][INSIDE] = 0.2
    teeth = patches[:, UPPER][INSIDE]
    teeth[:, 3] = 1
    teeth[:, :3] = encoded(torch.tensor(0.6))
    teeth[..., ::4] *= encoded(torch.tensor(0.15)) / encoded(torch.tensor(0.6))
    teeth[:, 3] = 1
    patches[:, UPPER][INSIDE] = teeth
    image = network(patches, torch.zeros(2, 128)).image[INSIDE]
    # Light is coarse: a gap stays about as dark against its neighbours as it was drawn.
    ratio = image[..., 4:16:4].mean() / image[..., 5:16:4].mean()
    assert ratio == pytest.approx((0.15 / 0.6) ** (1 / 2.2), abs=0.06)


@torch.no_grad()
def test_teeth_are_hardly_tinted_and_not_at_all_in_a_grey_photo(
    network: MouthNetwork, patches: Tensor
) -> None:
    light = network.seen(patches, torch.zeros(2, 128))[2]
    spread = light[:, ON_UPPER].amax(dim=1) - light[:, ON_UPPER].amin(dim=1)
    assert 0 < spread.max() <= 2 * TEETH_TINT
    patches[:, :6] = patches[:, :6].mean(dim=1, keepdim=True)
    light = network.seen(patches, torch.zeros(2, 128))[2]
    for part in (ON_UPPER, ON_LOWER):
        torch.testing.assert_close(light[:, part].amax(dim=1), light[:, part].amin(dim=1))


def test_the_upper_row_covers_the_lower_one() -> None:
    below = torch.full((1, 3, 1, 1), 0.1)
    row = torch.tensor([0.5, 0.4, 0.3, 1.0])[None, :, None, None]
    light = torch.zeros(1, 10, 1, 1)
    light[:, 6] = 1
    rim, nothing = torch.zeros(1, 1, 1, 1), torch.zeros_like(row)
    both = with_teeth(below, upper=row, lower=2 * row, rim=rim, light=light, exp=torch.exp)
    torch.testing.assert_close(both, row[:, :3])
    lower = with_teeth(below, upper=nothing, lower=row, rim=rim, light=light, exp=torch.exp)
    torch.testing.assert_close(lower, row[:, :3])
    unseen = with_teeth(
        below, upper=nothing, lower=row, rim=rim, light=torch.zeros(1, 10, 1, 1), exp=torch.exp
    )
    torch.testing.assert_close(unseen, below)
