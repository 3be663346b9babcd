"""The network of layers: what it begins with, and what it may change."""

from __future__ import annotations

import torch
from torch import Tensor

from metaportrait_cli.networks.compact_warping import CompactWarping, CompactWarpingConfig
from metaportrait_cli.networks.layered_warping import LayeredConditions, LayeredWarping

TINY = CompactWarpingConfig(size=32, widths=(16, 16, 24, 24), code_dim=16)


def example() -> tuple[Tensor, Tensor, Tensor, Tensor, LayeredConditions]:
    """Random picture, landmark image, sheet, background and conditions."""
    torch.manual_seed(0)
    conditions = LayeredConditions(
        flow=0.2 * torch.randn(2, 2, 32, 32),
        lines=torch.rand(2, 3, 32, 32),
        gap=torch.rand(2, 1, 32, 32),
        cover=torch.rand(2, 1, 32, 32),
    )
    planes = [torch.rand(2, 3, side, side) for side in (64, 32, 32, 64)]
    return planes[0], planes[1], planes[2], planes[3], conditions


@torch.no_grad()
def said(network: LayeredWarping) -> tuple[Tensor, Tensor]:
    image, lines, known, plate, conditions = example()
    source = network.encode(image, lines)
    return network.layered(source, network.encode_layers(known, plate), conditions)


def random_(network: CompactWarping) -> None:
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)


def test_untrained_it_changes_nothing() -> None:
    flow, shown = said(LayeredWarping(TINY))
    assert torch.equal(flow, example()[-1].flow)
    assert (shown == 1).all()


def test_it_may_begin_with_what_one_flow_taught() -> None:
    sheet = CompactWarping(TINY)
    random_(sheet)
    image, lines, _, _, conditions = example()
    with torch.no_grad():
        wanted = sheet(sheet.encode(image, lines), conditions)
    flow, shown = said(LayeredWarping.started_from(sheet))
    assert torch.allclose(flow, wanted, atol=1e-5)
    assert (shown == 1).all()


def test_it_hides_but_never_adds() -> None:
    network = LayeredWarping(TINY)
    random_(network)
    _, shown = said(network)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert shown.std() > 0
