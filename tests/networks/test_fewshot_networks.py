"""The networks of few-shot talking heads against what the paper says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metaportrait_cli.networks.fewshot import (
    Discriminator,
    Embedder,
    FewShotConfig,
    Generator,
    SelfAttention,
    adaptive_norm,
)
from metaportrait_cli.networks.layers import fold_for_inference
from metaportrait_cli.networks.network import Network

TINY = FewShotConfig(
    size=32, widths=(8, 8, 16, 16), halvings=2, blocks=1, attention=8, attention_up=16
)


@pytest.mark.parametrize(
    ("network_type", "millions"), [(Embedder, 14.83), (Generator, 37.91), (Discriminator, 19.55)]
)
def test_the_paper_s_networks_have_its_parameters(
    network_type: type[Network], millions: float
) -> None:
    with torch.device("meta"):
        network = network_type(FewShotConfig.paper())
    attention = sum(
        each.numel()
        for module in network.modules()
        if isinstance(module, SelfAttention)
        for each in module.parameters()
    )
    found = sum(each.numel() for each in network.parameters())
    # The paper's counts leave self-attention open, less than a hundredth of each network.
    assert 0 < attention < found / 100
    assert (found - attention) / 1e6 == pytest.approx(millions, abs=0.0051)


def test_the_style_is_all_gains_and_shifts_of_the_adaptive_norms() -> None:
    widths = FewShotConfig.paper().styled_widths
    assert 2 * sum(widths) == 13_056
    assert widths == (*[512] * 8, 512, 512, 512, 256, 256, 128, 128, 64, 64)


def test_attention_sits_at_32_on_the_way_down_and_64_on_the_way_up() -> None:
    config = FewShotConfig.paper()
    with torch.device("meta"):
        generator, embedder = Generator(config), Embedder(config)
    # 256 is halved to 32 by the third block; from 16, 64 is the second doubling.
    assert list(embedder.trunk.attention) == list(generator.encoder.attention) == ["2"]
    assert list(generator.attention) == ["1"]


def test_adaptive_norm_sets_mean_and_spread() -> None:
    style = torch.tensor([[2.0, 3.0, -1.0, 4.0]])  # gains, then shifts
    found = adaptive_norm(torch.randn(1, 2, 16, 16), style)
    assert torch.allclose(found.mean(dim=(2, 3)), style[:, 2:], atol=1e-4)
    assert torch.allclose(found.std(dim=(2, 3), correction=0), style[:, :2], atol=1e-3)


def test_a_person_s_embedding_does_for_a_column() -> None:
    """w' = w_0 + e scores a video of the training as before, where e is its column."""
    torch.manual_seed(0)
    judge = Discriminator(TINY).eval()
    picture, lines = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    column = torch.randn(2, TINY.embedding)
    seen = judge(picture, lines)
    assert len(seen.features) == len(TINY.widths) + 1
    personal = ((judge.w0 + column) * seen.vector).sum(dim=1) + judge.b
    assert torch.allclose(judge.score(seen.vector, column), personal, atol=1e-5)


def test_the_embedding_is_of_picture_and_landmarks_and_styles_the_generator() -> None:
    torch.manual_seed(0)
    embedder, generator = Embedder(TINY).eval(), Generator(TINY).eval()
    one, other, lines = torch.rand(3, 1, 3, 32, 32) * 2 - 1
    embedding = embedder(one, lines)
    assert embedding.shape == (1, TINY.embedding)
    assert not torch.allclose(embedding, embedder(other, lines))
    assert not torch.allclose(embedding, embedder(one, other))
    painted = generator(lines, embedding)
    assert painted.shape == (1, 3, 32, 32)
    assert not torch.allclose(painted, generator(lines, embedder(other, lines)))
    assert torch.equal(painted, generator.painted(lines, generator.style(embedding)))


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    generator = Generator(TINY).eval()
    lines, embedding = torch.randn(1, 3, 32, 32), torch.randn(1, TINY.embedding)
    with torch.no_grad():
        before = generator(lines, embedding)
        fold_for_inference(generator)
        assert torch.allclose(generator(lines, embedding), before, atol=1e-5)


def test_sizes_must_go_together() -> None:
    with pytest.raises(ValueError, match="halvings"):
        replace(TINY, size=40)
    with pytest.raises(ValueError, match="halvings"):
        replace(TINY, halvings=5)
