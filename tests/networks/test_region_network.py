"""Where a region network may paint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from metaportrait_cli.networks.regions import (
    OPENING,
    OWN,
    OWN_OPENING,
    UNKNOWN,
    RegionConfig,
    RegionNetwork,
    grown,
    softened,
)

SIDE = 128


@pytest.fixture
def painter() -> RegionNetwork:
    """Paints red wherever it may, and leaves alone what the source shows."""
    made = RegionNetwork(RegionConfig(patch=SIDE, widths=(8, 16), code_dim=8, keep_shown=True))
    # Rows: red, green, blue, mask; columns: the four phases.
    bias = torch.tensor([0.5, 0.0, 0.0, 10.0]).repeat_interleave(4)
    made.head.load_state_dict({"weight": made.head.weight, "bias": bias})
    return made.eval()


def painted(
    network: RegionNetwork, *, opening: slice, unknown: slice, own: slice = slice(0, 0)
) -> Tensor:
    """How red each row becomes, in the middle of a mouth that is open in some rows; in its `own`
    ones the source's was."""
    patch = torch.zeros(1, 11, SIDE, SIDE)
    patch[:, OWN.start] = 0.5  # in colour
    patch[:, OPENING, opening, 30:98] = 1
    patch[:, UNKNOWN, unknown, 30:98] = 1
    patch[:, OWN_OPENING, own, 30:98] = 1
    with torch.no_grad():
        return network(patch, torch.zeros(1, 128)).image[0, 0, :, SIDE // 2]


def test_teeth_that_the_source_shows_stay(painter: RegionNetwork) -> None:
    rows = painted(painter, opening=slice(54, 74), unknown=slice(0, 0))
    assert rows[58:70].max() == 0
    assert torch.allclose(rows[[44, 84]], torch.tensor(0.5), atol=0.01)


def test_the_edges_of_teeth_that_the_source_shows_get_no_lighter(painter: RegionNetwork) -> None:
    shown, unknown = slice(54, 66), slice(66, 84)
    as_it_was = painted(painter, opening=slice(54, 84), unknown=unknown)
    stays = painted(painter, opening=slice(54, 84), unknown=unknown, own=shown)
    assert as_it_was[64:66].min() > 0.3
    assert stays[shown].max() == 0
    assert stays[68:84].min() > 0.45


def test_what_it_does_not_show_is_painted(painter: RegionNetwork) -> None:
    rows = painted(painter, opening=slice(44, 84), unknown=slice(66, 84))
    assert rows[48:54].max() == 0
    assert rows[68:84].min() > 0.45


def test_closed_lips_are_painted_together(painter: RegionNetwork) -> None:
    rows = painted(painter, opening=slice(62, 66), unknown=slice(0, 0))
    assert rows[58:70].min() > 0.45


def test_fine_change_is_for_the_inside_alone(painter: RegionNetwork) -> None:
    # Lines: two of the four phases red, the others not.
    lines = torch.tensor([0.5, 0.5, 0.0, 0.0] + [0.0] * 8 + [10.0] * 4)
    painter.head.load_state_dict({"weight": painter.head.weight, "bias": lines})
    rows = painted(painter, opening=slice(54, 74), unknown=slice(54, 74))
    inside, skin = rows[60:68], rows[28:36]
    assert inside.max() > 0.45
    assert inside.min() < 0.05
    assert torch.allclose(skin, torch.tensor(0.25), atol=0.02)


def test_a_source_without_colour_gets_none(painter: RegionNetwork) -> None:
    patch = torch.full((1, 11, SIDE, SIDE), 0.3)
    patch[:, OPENING] = 0
    with torch.no_grad():
        image = painter(patch, torch.zeros(1, 128)).image[0]
    assert image[0, 64, 64] > 0.4
    assert torch.allclose(image[0], image[1])
    assert torch.allclose(image[0], image[2])


@pytest.mark.parametrize("by", [0, 1, 2, 4, 5])
def test_masks_grow_and_soften_as_pools_would(by: int) -> None:
    torch.manual_seed(by)
    mask = torch.rand(2, 1, 24, 40) * (torch.rand(2, 1, 24, 40) > 0.9)
    window = 2 * by + 1
    assert torch.equal(grown(mask, by), max_pool2d(mask, window, stride=1, padding=by))
    wanted = avg_pool2d(mask, window, stride=1, padding=by, count_include_pad=False)
    assert torch.allclose(softened(mask, by), wanted, atol=1e-6)
