"""MegaPortraits behind the seam, with weights that nothing has taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli import AnimateOptions, Animation, Clip, Engine
from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.blocks import AdaptiveNorm
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.enhancer import MegaEnhancer, MegaEnhancerConfig
from metaportrait_cli.networks.network import Network
from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, evaluate
from metaportrait_cli.pipeline.person.distill import distill
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.protocol import Driven, DriverLooks, Renderer
from metaportrait_cli.weights.store import save_networks

TINY = MegaConfig(
    size=64,
    encoder=(8, 8, 8, 16),
    channels=8,
    depth=4,
    blocks_3d=1,
    global_layers=(1, 1),
    global_width=8,
    motion_layers=(1, 1),
    motion_width=8,
    look=32,
    code=16,
    expression=12,
    warp=(16, 8),
    volume=(8, 8, 8),
    decoder=(16, 8, 8, 8),
    blocks_2d=1,
    groups=4,
)
TWICE = MegaEnhancerConfig(
    size=64,
    encoder=(8, 8),
    channels=4,
    depth=2,
    blocks_3d=1,
    blocks_2d=1,
    up=(8, 8),
    high=(8,),
    groups=4,
)


def saved(path: Path, *, enhanced: bool = False) -> Path:
    torch.manual_seed(0)
    base = BaseModel(TINY)
    # What moves shows more than in untrained networks.
    torch.nn.init.normal_(base.warp_driver.last.weight, std=0.1)
    for module in base.warp_driver.modules():
        if isinstance(module, AdaptiveNorm):
            torch.nn.init.normal_(module.right)
    base.decoder.last.weight.data *= 4
    parts: dict[str, Network] = {"base": base}
    if enhanced:
        parts["enhancer"] = MegaEnhancer(TWICE)
    save_networks(path, parts, architecture="mega")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("mega") / "mega.safetensors")


@pytest.fixture(scope="module")
def renderer(weights: Path) -> Renderer:
    return rendering_named(str(weights), device="cpu", precision="fp32").renderer


@pytest.fixture
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    crop = Crop.around(portrait_face.points)
    return Source(Path("a.png"), portrait, portrait_face, faces_seen=1, crop=crop)


def turned(points: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    angle, centre = np.radians(degrees), points.mean(axis=0)
    c, s = np.cos(angle), np.sin(angle)
    return ((points - centre) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + centre).astype(
        np.float32
    )


def test_it_turns_and_windows_don_t_matter(renderer: Renderer, source: Source) -> None:
    session = renderer.open(source, size=256)
    points = np.stack([turned(source.landmarks(256), 6 * t) for t in range(5)])
    driven = Driven.of(points)
    whole = session.render(driven).frames
    assert (renderer.fixed_size, renderer.keeps_detail) == (64, False)
    assert whole.shape == (5, 64, 64, 3)
    parts = [session.render(driven.at(slice(t, t + 3))).frames for t in (0, 3)]
    assert np.abs(np.concatenate(parts).astype(int) - whole).max() <= 1
    assert np.abs(whole[0].astype(int) - whole[4]).max() > 5


def test_the_canonical_volume_is_made_once(
    renderer: Renderer, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = renderer.open(source, size=64)
    base = vars(renderer)["_base"]

    def again(*_: object) -> None:
        raise AssertionError("the source was encoded again")

    for part in ("volume_encoder", "global_encoder", "volume", "warp_source"):
        monkeypatch.setattr(getattr(base, part), "forward", again)
    session.render(Driven.of(source.landmarks(64)[None]))


def test_expressions_are_read_in_the_driver_s_pictures(
    renderer: Renderer, source: Source, portrait: NDArray[np.uint8]
) -> None:
    session = renderer.open(source, size=64)
    driven = Driven.of(source.landmarks(64)[None])
    points = source.landmarks(256)[None]
    own = source.crop.cut(portrait, 256)
    elsewhere = own.copy()
    elsewhere[:20], elsewhere[:, :20], elsewhere[:, -20:] = 0, 255, 0  # the background
    dark = own // 2
    pictures = [
        session.render(replace(driven, seen=DriverLooks(picture[None], points))).frames.astype(int)
        for picture in (own, elsewhere, dark)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).mean() > 1
    assert np.abs(pictures[0] - session.render(driven).frames).mean() > 1


def test_further_pictures_have_part_in_the_volume(renderer: Renderer, source: Source) -> None:
    def painted(source: Source) -> NDArray[np.int64]:
        driven = Driven.of(source.landmarks(64)[None])
        return renderer.open(source, size=64).render(driven).frames.astype(int)

    dark = replace(source, picture=source.picture // 4)
    alone, twice = painted(source), painted(replace(source, others=(source,)))
    assert np.abs(twice - alone).max() <= 1
    assert np.abs(painted(replace(source, others=(dark,))) - alone).max() > 1


def test_animate_shows_it_the_driver(weights: Path, portrait: NDArray[np.uint8]) -> None:
    options = AnimateOptions(full=False, size=64, window=2)
    with Engine(str(weights)) as engine:
        assert engine.rendering().reads_driver
        with Animation.open(engine, portrait, Clip([portrait] * 3), options) as animation:
            shown = [picture.image for picture in animation.pictures()]
            assert [picture.shape for picture in shown] == [(64, 64, 3)] * 3
            # Going on in the middle shows the same.
            rest = [picture.image for picture in animation.pictures(1)]
            assert all(np.array_equal(a, b) for a, b in zip(shown[1:], rest, strict=True))
            template = replace(animation.motion, order=None)
            with pytest.raises(UsageError, match="motion template"):
                next(replace(animation, motion=template).pictures())
            once = replace(animation.motion, driver=Clip(iter([portrait] * 3)))
            with pytest.raises(UsageError, match="twice"):
                next(replace(animation, motion=once).pictures())


def test_an_enhancer_doubles_the_picture(tmp_path: Path, source: Source) -> None:
    rendering = rendering_named(
        str(saved(tmp_path / "hr.safetensors", enhanced=True)), device="cpu", precision="fp32"
    )
    frames = rendering.renderer.open(source, size=64).render(Driven.of(source.landmarks(64)[None]))
    assert rendering.renderer.fixed_size == 128
    assert frames.frames.shape == (1, 128, 128, 3)


def test_evaluate_judges_it(weights: Path, driver_path: Path) -> None:
    found = evaluate([driver_path], EvaluateOptions(weights=(str(weights),), frames=4))
    assert found.summary()[str(weights)]


def test_it_can_t_teach_a_student(weights: Path, portrait_path: Path, tmp_path: Path) -> None:
    with Engine(str(weights)) as engine, pytest.raises(UsageError, match="other weights"):
        distill(tmp_path / "me.student", source=portrait_path, engine=engine)
