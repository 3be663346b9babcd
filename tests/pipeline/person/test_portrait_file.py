"""The portrait file: what is written is read, and what doesn't fit is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.regions import PATCHES
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.mouth import MouthNetwork
from metaportrait_cli.networks.regions import RegionConfig
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.portrait_file import (
    Base,
    Portrait,
    is_portrait,
    load_portrait,
    save_portrait,
)
from metaportrait_cli.pipeline.person.stored_view import LONGEST_CROP
from metaportrait_cli.pipeline.verify import verify_all
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.weights import bundled_path
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
        np.testing.assert_array_equal(ours.face.blendshapes, theirs.face.blendshapes)
    assert found.source.picture.shape == person.source.picture.shape  # the canvas is whole
    assert found.source.others[0].picture.shape[:2] == (300, 270)  # others are their crops
    assert path.stat().st_size < 400_000


def test_other_people_in_a_view_are_known(person: Portrait, tmp_path: Path) -> None:
    path = tmp_path / "two.portrait"
    stranger = replace(person.source.face, points=person.source.face.points + np.float32(20))
    (beyond,) = person.source.others
    beyond = replace(beyond, strangers=(stranger,))
    save_portrait(path, replace(person, source=replace(person.source, others=(beyond,))))
    canvas, found = load_portrait(path).views
    assert not canvas.strangers
    ours, theirs = (view.crop.to_crop(view.strangers[0].points, 256) for view in (beyond, found))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_files_without_blendshapes_are_read(person: Portrait, tmp_path: Path) -> None:
    path = tmp_path / "old.portrait"
    save_portrait(path, person)
    tensors = load_file(path)
    del tensors["blendshapes"]
    with safe_open(path, "pt") as file:
        save_file(tensors, path, file.metadata())
    assert not any(view.face.blendshapes.any() for view in load_portrait(path).views)


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


def test_adapted_weights_go_with_their_base_alone(
    person: Portrait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, other = tmp_path / "base.safetensors", tmp_path / "other.safetensors"
    for path in (weights, other):
        network = MouthNetwork(RegionConfig(patch=PATCHES["mouth"], widths=(8, 16)))
        save_networks(path, {"mouth": network}, architecture="compact")
    monkeypatch.setenv("METAPORTRAIT_WEIGHTS", str(tmp_path))
    base = Base.of(next(iter(rendering_named(str(weights)).weights.values())))
    delta = torch.full((16, 8, 3, 3), 0.5)
    adapted_person = replace(person, base=base, deltas={"mouth.head.weight": delta})
    save_portrait(tmp_path / "me.portrait", adapted_person)
    (verdict,) = verify_all([str(tmp_path / "me.portrait")])
    assert "1152 adapted weights" in verdict.verdict

    found = load_portrait(tmp_path / "me.portrait")
    heads = []
    for own in (found, None):
        adaptable = Engine(weights, device="cpu").rendering(own).adaptable
        assert adaptable is not None
        heads.append(adaptable.networks["mouth"].head.weight)
    torch.testing.assert_close(heads[0], heads[1] + 0.5)

    with pytest.raises(WeightsError, match=r"made for weights \(\w{12}…\).*; name their file"):
        Engine(other).rendering(found)
    with pytest.raises(WeightsError, match="was made for"):
        Engine("none").rendering(found)
    weights.write_bytes(other.read_bytes())
    with pytest.raises(WeightsError, match="no weights with sha256"):
        verify_all([str(tmp_path / "me.portrait")])
    wrong = replace(found, base=Base(str(weights), base.sha256), deltas={"mouth.none": delta})
    with pytest.raises(WeightsError):
        Engine(weights).rendering(wrong)


def altered(path: Path, notes: dict[str, str] | None = None, **tensors: torch.Tensor) -> Path:
    """A copy of a portrait with other metadata or tensors."""
    with safe_open(path, "pt") as file:
        own = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        own_notes = file.metadata()
    copy = path.with_name("altered.portrait")
    renamed = {key.replace("view_", "view."): tensor for key, tensor in tensors.items()}
    save_file(own | renamed, copy, own_notes | (notes or {}))
    return copy


@pytest.mark.parametrize(
    "name",
    [
        *("http://127.0.0.1:9/x#sha256=" + "0" * 64, "https://host/x#sha256=" + "0" * 64),
        *("hf://owner/repo/file", "../secret.safetensors", "/etc/passwd", "none", ""),
    ],
)
def test_nothing_is_opened_because_a_portrait_says_so(
    person: Portrait, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "me.portrait"
    save_portrait(path, person)
    bad = altered(path, {"base": json.dumps({"name": name, "sha256": "0" * 64})})
    for read in (load_portrait, lambda path: verify_all([str(path)])):
        with pytest.raises(WeightsError, match="neither by a known name nor by their sha256"):
            read(bad)


def test_a_known_base_is_named_and_an_unknown_one_is_not_fetched(
    person: Portrait, tmp_path: Path
) -> None:
    bundled = hashlib.sha256(bundled_path("compact").read_bytes()).hexdigest()
    assert Base.of(bundled).name == "compact"
    path = tmp_path / "me.portrait"
    save_portrait(path, replace(person, base=Base.of("ab" * 32)))
    found = load_portrait(path)
    with pytest.raises(WeightsError, match=r"sha256 abababababab… here; name .* `weights`"):
        found.check_base()


@pytest.mark.parametrize(
    ("notes", "tensors"),
    [
        ({"crops": "[[0, 0, 300], [900, 0, 300]]"}, {}),
        ({"crops": "[[0, 0, 1e9], [0, 0, 300]]"}, {}),
        ({"crops": '[["a", 0, 300], [0, 0, 300]]'}, {}),
        ({"crops": "[" * 100_000}, {}),
        ({"report": "7"}, {}),
        ({"base": "[]"}, {}),
        ({}, {"points": torch.full((2, 478, 3), torch.nan)}),
        ({}, {"points": torch.zeros(2, 478, 3, dtype=torch.int64)}),
        ({}, {"embedding": torch.full((128,), torch.inf)}),
        ({}, {"delta.mouth.head.weight": torch.full((4,), torch.nan)}),
        ({}, {"delta.mouth.head.weight": torch.zeros(4, dtype=torch.int32)}),
        ({}, {"view_0": torch.frombuffer(bytearray(b"%!PS-Adobe-3.0 EPSF"), dtype=torch.uint8)}),
    ],
)
def test_numbers_that_no_person_has(
    person: Portrait, tmp_path: Path, notes: dict[str, str], tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "me.portrait"
    save_portrait(path, person)
    with pytest.raises(WeightsError, match="is damaged"):
        load_portrait(altered(path, notes, **tensors))


def test_a_small_file_does_not_unpack_to_a_huge_picture(person: Portrait, tmp_path: Path) -> None:
    path = tmp_path / "me.portrait"
    save_portrait(path, person)
    large = BytesIO()
    Image.new("L", (8000, 8000)).save(large, "JPEG")
    view = torch.frombuffer(bytearray(large.getvalue()), dtype=torch.uint8)
    with pytest.raises(WeightsError, match="8000x8000"):
        load_portrait(altered(path, view_1=view))
