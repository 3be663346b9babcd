"""The compact model as a renderer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact import CompactConfig, CompactModel
from metaportrait_cli.render.learned import LearnedRenderer
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights.store import save_networks


@pytest.fixture(scope="module")
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    return Source(
        path=Path("portrait.png"),
        picture=portrait,
        face=portrait_face,
        faces_seen=1,
        crop=Crop.around(portrait_face.points),
    )


def driven(source: Source, *, size: int) -> NDArray[np.float32]:
    """The source's face at rest, and a little to the right and up."""
    points = source.landmarks(size)[None].repeat(2, axis=0)
    points[1, :, 0] += 0.035 * size
    points[1, :, 1] -= 0.015 * size
    return points


@pytest.mark.parametrize("size", [256, 512])
def test_untrained_it_gives_what_the_analytic_renderer_gives(source: Source, size: int) -> None:
    learned = LearnedRenderer(CompactModel(CompactConfig.small())).open(source, size=size)
    analytic = WarpRenderer().open(source, size=size)
    points = driven(source, size=size)
    ours, theirs = learned.render(points), analytic.render(points)
    assert ours.shape == theirs.shape == (2, size, size, 3)
    assert ours.dtype == np.uint8
    # The flow's grid is half as fine, and cv2 rounds positions to 1/32 of a pixel.
    difference = np.abs(ours.astype(float) - theirs)
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.99) < 8


def test_windows_do_not_matter(source: Source) -> None:
    session = LearnedRenderer(CompactModel(CompactConfig.small())).open(source, size=256)
    points = np.repeat(driven(source, size=256), 6, axis=0)
    together = session.render(points).astype(int)
    alone = np.concatenate([session.render(points[n : n + 1]) for n in range(len(points))])
    assert np.abs(together - alone).max() <= 1


def test_the_picture_follows_the_landmarks(source: Source) -> None:
    session = LearnedRenderer(CompactModel(CompactConfig.small())).open(source, size=128)
    at_rest, moved = session.render(driven(source, size=128)).astype(float)
    assert at_rest.shape == (128, 128, 3)
    middle = (slice(40, 90), slice(40, 90))
    shifted = np.roll(at_rest, (-2, 4), axis=(0, 1))
    assert np.abs(moved - shifted)[middle].mean() < 0.6 * np.abs(moved - at_rest)[middle].mean()


def test_in_bf16_it_is_nearly_the_same(source: Source) -> None:
    torch.manual_seed(0)
    model = CompactModel(replace(CompactConfig.small(), image_size=128))
    for parameter in model.refinement.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    points = driven(source, size=256)
    exact = LearnedRenderer(model).open(source, size=256).render(points).astype(float)
    half = LearnedRenderer(model, dtype=torch.bfloat16).open(source, size=256).render(points)
    assert np.abs(exact - half).mean() < 1.5


def test_it_is_found_by_its_weights(source: Source, tmp_path: Path) -> None:
    model = CompactModel(CompactConfig.small())
    save_networks(
        tmp_path / "w.safetensors",
        {"compact": model},
        architecture="compact",
        notes={"identity": "1"},
    )
    rendering = rendering_named(str(tmp_path / "w.safetensors"), device="cpu")
    assert isinstance(rendering.renderer, LearnedRenderer)
    frames = rendering.renderer.open(source, size=256).render(driven(source, size=256))
    assert frames.shape == (2, 256, 256, 3)
    assert len(rendering.weights["w.safetensors"]) == 64
