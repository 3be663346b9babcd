"""Few-shot talking heads behind the seam, with weights that nothing has taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli import AnimateOptions, Animation, Clip, Engine
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.fewshot import Embedder, FewShotConfig, Generator
from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, evaluate
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.protocol import Driven, DriverLooks, Renderer
from metaportrait_cli.weights.store import save_networks

TINY = FewShotConfig(
    size=64, widths=(8, 8, 16, 16), halvings=2, blocks=1, attention=16, attention_up=32
)


def saved(path: Path, config: FewShotConfig) -> Path:
    torch.manual_seed(0)
    parts = {"embedder": Embedder(config), "generator": Generator(config)}
    # What an embedding does shows more than in untrained networks.
    parts["generator"].head.weight.data *= 5
    save_networks(path, parts, architecture="fewshot")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "fewshot.safetensors", TINY)


@pytest.fixture
def renderer(weights: Path) -> Renderer:
    return rendering_named(str(weights), device="cpu", precision="fp32").renderer


@pytest.fixture
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    crop = Crop.around(portrait_face.points)
    return Source(Path("a.png"), portrait, portrait_face, faces_seen=1, crop=crop)


def test_it_paints_at_its_own_size_whatever_the_windows(renderer: Renderer, source: Source) -> None:
    session = renderer.open(source, size=256)
    points = np.stack([source.landmarks(256) + np.array([3 * t, 0, 0]) for t in range(6)])
    driven = Driven.of(points.astype(np.float32))
    whole = session.render(driven).frames
    assert (renderer.fixed_size, renderer.keeps_detail) == (64, False)
    assert whole.shape == (6, 64, 64, 3)
    parts = [session.render(driven.at(slice(t, t + 3))).frames for t in (0, 3)]
    # Batches of other sizes round differently.
    apart = np.abs(np.concatenate(parts).astype(int) - whole)
    assert apart.max() <= 1
    assert (whole[0] != whole[5]).any()
    looks = DriverLooks(np.zeros((6, 64, 64, 3), np.uint8), points)  # which it doesn't read
    assert np.array_equal(session.render(replace(driven, seen=looks)).frames, whole)


def test_all_pictures_of_a_person_have_part_in_the_embedding(
    renderer: Renderer, source: Source
) -> None:
    def painted(source: Source) -> NDArray[np.float32]:
        driven = Driven.of(source.landmarks(64)[None])
        return renderer.open(source, size=64).render(driven).frames.astype(np.float32)

    dark = replace(source, picture=source.picture // 4)
    alone, twice = painted(source), painted(replace(source, others=(source,)))
    both, swapped = (painted(replace(a, others=(b,))) for a, b in ((source, dark), (dark, source)))
    np.testing.assert_allclose(twice, alone, atol=1)
    np.testing.assert_allclose(both, swapped, atol=1)  # a mean knows no order
    assert np.abs(painted(dark) - alone).max() > 2
    assert np.abs(both - alone).max() > 0


def test_animate_takes_its_weights(weights: Path, portrait: NDArray[np.uint8]) -> None:
    options = AnimateOptions(full=False, size=64)
    with (
        Engine(str(weights)) as engine,
        Animation.open(engine, portrait, Clip([portrait] * 3), options) as animation,
    ):
        pictures = [picture.image for picture in animation.pictures()]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 3


def test_evaluate_judges_pictures_of_its_size(weights: Path, driver_path: Path) -> None:
    found = evaluate([driver_path], EvaluateOptions(weights=(str(weights),), frames=4))
    judged = found.summary()
    assert judged[str(weights)]
    assert judged[str(weights)].keys() <= judged["copy"].keys()  # noise shows no face to measure


def test_weights_of_another_drawing_are_refused(tmp_path: Path) -> None:
    other = saved(tmp_path / "other.safetensors", replace(TINY, landmarks="lines5"))
    with pytest.raises(WeightsError, match="lines5"):
        rendering_named(str(other), device="cpu")
