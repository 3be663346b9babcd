"""Adding a renderer: its file, and one line of the registry."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli import AnimateOptions, Animation, Clip, Engine
from metaportrait_cli.errors import UsageError, WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.render import named
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Driven, DriverLooks, Rendered, Session


class MirrorRenderer:
    """Shows the source's crop, mirrored."""

    fixed_size = None
    keeps_detail = True

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> MirrorSession:
        return MirrorSession(source.crop.cut(source.picture, size)[:, ::-1])


class MirrorSession(Session):
    def __init__(self, crop: NDArray[np.uint8]) -> None:
        self.crop = crop

    def render(self, driven: Driven) -> Rendered:
        assert driven.rotation.shape == (len(driven), 3, 3)
        return Rendered(np.repeat(self.crop[None], len(driven), axis=0))


def test_a_further_renderer(portrait: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("metaportrait_cli.render.mirrored")  # the file
    vars(module)["without_weights"] = lambda _on_notice: Rendering(MirrorRenderer())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(named.PLAIN, "mirror", "mirrored")  # the line
    options = AnimateOptions(full=False, size=128)
    with (
        Engine("mirror") as engine,
        Animation.open(engine, portrait, Clip([portrait] * 3), options) as animation,
    ):
        pictures = [picture.image for picture in animation.pictures()]
        crop = animation.source.crop.cut(portrait, 128)
    np.testing.assert_array_equal(pictures, [crop[:, ::-1]] * 3)


@pytest.mark.parametrize(("weights", "most"), [("none", 0), ("compact", 1.5)])
def test_a_portrait_that_drives_itself_stays_what_it_is_whatever_the_driver_looks_like(
    weights: str, most: float, portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    crop = Crop.around(portrait_face.points)
    source = Source(Path("a.png"), portrait, portrait_face, faces_seen=1, crop=crop)
    session = named.rendering_named(weights, device="cpu").renderer.open(source, size=128)
    own, points = crop.cut(portrait, 128), source.landmarks(128)[None]
    pictures = session.render(Driven.of(points)).frames
    assert np.abs(pictures[0].astype(int) - own).mean() <= most
    other = replace(Driven.of(points), seen=DriverLooks(255 - own[None], points))
    np.testing.assert_array_equal(session.render(other).frames, pictures)


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can't animate"):
        named.rendering_named("identity")
    with pytest.raises(UsageError, match="tpu"):
        named.rendering_named("none", device="tpu")
