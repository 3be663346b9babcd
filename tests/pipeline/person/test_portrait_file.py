"""The portrait file: what is written is read, and what doesn't fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import Face
from metaportrait_cli.face.regions import PATCHES
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.regions import RegionConfig, RegionNetwork
from metaportrait_cli.pipeline.person.portrait_file import (
    LONGEST_CROP,
    Base,
    Portrait,
    is_portrait,
    load_portrait,
    save_portrait,
)
from metaportrait_cli.pipeline.verify import verify_all
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights.store import save_networks


@pytest.fixture
def person(portrait: NDArray[np.uint8], portrait_face: Face) -> Portrait:
    view = Source(
        Path("p.png"),
        portrait,
        portrait_face,
        1,
        Crop.around(portrait_face.points, within=(512, 512)),
    )
    beyond = replace(view, crop=Crop(-30, 40, 300))
    return Portrait(
        source=replace(view, others=(beyond,), lends="head"),
        shape=np.arange(60, dtype=np.float32),
        embedding=np.ones(128, np.float32),
        settings={"seconds": 30.0},
        report={"views": 2},
    )


def test_what_is_written_is_read(person: Portrait, tmp_path: Path) -> None:
    path = tmp_path / "me.portrait"
    save_portrait(path, person)
    assert is_portrait(path)
    found = load_portrait(path)
    assert found.source.lends == "head"
    assert found.report == {"views": 2}
    np.testing.assert_array_equal(found.shape, person.shape)
    for ours, theirs in zip(person.views, found.views, strict=True):
        np.testing.assert_allclose(ours.landmarks(256), theirs.landmarks(256), atol=1e-3)
        cut = [view.crop.cut(view.picture, 256).astype(int) for view in (ours, theirs)]
        assert np.abs(cut[0] - cut[1]).mean() < 2.5
    assert found.source.picture.shape == person.source.picture.shape  # the canvas is whole
    assert found.source.others[0].picture.shape[:2] == (300, 270)  # others are their crops
    assert path.stat().st_size < 400_000


def test_large_faces_are_stored_smaller(person: Portrait, tmp_path: Path) -> None:
    large = replace(person.source, crop=Crop(-900, -900, 2048), others=())
    source = replace(person.source, others=(large,))
    save_portrait(tmp_path / "me.portrait", replace(person, source=source))
    found = load_portrait(tmp_path / "me.portrait").source.others[0]
    assert found.crop.side == LONGEST_CROP
    np.testing.assert_allclose(found.landmarks(256), large.landmarks(256), atol=0.2)


def test_damaged_and_other_files_are_refused(person: Portrait, tmp_path: Path) -> None:
    path = tmp_path / "me.portrait"
    save_portrait(path, person)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        notes = file.metadata()
    broken = {
        "half": path.read_bytes()[:5000],
        "later": {**notes, "format": "2"},
        "foreign": {"architecture": "compact"},
        "crops": {**notes, "crops": "[[0, 0, 5]]"},
    }
    for name, content in broken.items():
        bad = tmp_path / f"{name}.portrait"
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            save_file(tensors, bad, content)
        with pytest.raises(WeightsError, match="personalize"):
            load_portrait(bad)
    tensors["view.1"] = torch.zeros(10, dtype=torch.uint8)
    save_file(tensors, tmp_path / "picture.portrait", notes)
    with pytest.raises(WeightsError, match="damaged"):
        load_portrait(tmp_path / "picture.portrait")


def test_adapted_weights_go_with_their_base_alone(person: Portrait, tmp_path: Path) -> None:
    weights, other = tmp_path / "base.safetensors", tmp_path / "other.safetensors"
    for path in (weights, other):
        network = RegionNetwork(RegionConfig(patch=PATCHES["mouth"], widths=(8, 16)))
        save_networks(path, {"mouth": network}, architecture="compact")
    base = Base(
        name=str(weights), sha256=next(iter(rendering_named(str(weights)).weights.values()))
    )
    delta = torch.full((16, 8, 3, 3), 0.5)
    adapted_person = replace(person, base=base, deltas={"mouth.head.weight": delta})
    save_portrait(tmp_path / "me.portrait", adapted_person)
    (verdict,) = verify_all([str(tmp_path / "me.portrait")])
    assert "1152 adapted weights" in verdict.verdict

    found = load_portrait(tmp_path / "me.portrait")
    heads = []
    for own in (found, None):
        renderer = rendering_named(str(weights), person=own, device="cpu").renderer
        assert isinstance(renderer, WarpRenderer)
        assert renderer.refiner is not None
        heads.append(renderer.refiner.networks["mouth"].head.weight)
    torch.testing.assert_close(heads[0], heads[1] + 0.5)

    with pytest.raises(WeightsError, match="was made for"):
        rendering_named(str(other), person=found)
    with pytest.raises(WeightsError, match="was made for"):
        rendering_named("none", person=found)
    weights.write_bytes(other.read_bytes())
    with pytest.raises(WeightsError, match="was made for"):
        verify_all([str(tmp_path / "me.portrait")])
    wrong = replace(found, base=Base(str(weights), base.sha256), deltas={"mouth.none": delta})
    with pytest.raises(WeightsError):
        rendering_named(str(weights), person=wrong)
