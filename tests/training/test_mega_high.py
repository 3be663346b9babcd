"""The high-resolution stage: photos seen two ways, and a base model that stays as it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.critic import MegaCriticConfig
from metaportrait_cli.networks.mega.enhancer import MegaEnhancer, MegaEnhancerConfig
from metaportrait_cli.render.mega.pose import head_matrices
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.mega.high import HighDataset, MegaHighTraining, train_mega_high
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights.store import load_network, save_networks
from tests.mega import TINY

from .in_pieces import WHOLE, same_in_pieces

EVERY_STEP = RunOptions(log_every=1)
HIGH = MegaHighTraining(
    model=MegaEnhancerConfig(
        size=32,
        encoder=(8, 8),
        channels=4,
        depth=2,
        blocks_3d=1,
        blocks_2d=1,
        up=(8, 8),
        high=(8,),
        groups=4,
    ),
    critic=MegaCriticConfig(widths=(4, 8)),
    steps=2,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    torch.manual_seed(0)
    save_networks(path, {"base": BaseModel(TINY)}, architecture="mega")
    return path


def test_a_photo_seen_two_ways_keeps_its_face_under_its_landmarks(prepared: Path) -> None:
    """The face is aligned by landmarks that went through the same tilt, so it looks the same."""
    faces = Faces.load(prepared)
    mattes = np.full((len(faces.images), 128, 128), 255, np.uint8)
    dataset = HighDataset(faces, mattes, np.arange(2), size=64, look=48, length=4, seed=0)
    one, again = dataset[1], dataset[1]
    assert torch.equal(one.target, again.target)
    assert (one.source.shape, one.target.shape) == ((3, 64, 64), (3, 128, 128))
    assert not torch.equal(one.source_head, one.head)
    plain = head_matrices(faces.points[:2], side=faces.size, model=MorphableModel.bundled())
    tilts = np.linalg.norm(plain[:, :2, :2] - one.head[:2, :2].numpy(), axis=(1, 2))
    assert 0.005 < tilts.min() < 0.4
    looks = torch.stack([dataset[n].look for n in range(4)]).float()
    heads = torch.stack([dataset[n].other_look for n in range(4)]).float()
    faces_seen = torch.cat([looks, heads])[..., 8:-8, 8:-8].mean(dim=1)
    # Of two photos, eight times: two kinds of looks, and hardly a third.
    apart = (faces_seen[:, None] - faces_seen[None]).abs().mean(dim=(2, 3))
    assert ((apart < 12) | (apart > apart.max() / 2)).all()


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["lite", "paper"])
def test_the_real_configurations_go_on_where_they_stopped(
    name: str, prepared: Path, base: Path, tmp_path: Path
) -> None:
    """All widths, on small pictures: two steps at once, and one after the other."""
    if not os.environ.get("METAPORTRAIT_TEST_HEAVY"):
        pytest.skip("METAPORTRAIT_TEST_HEAVY is not set")
    whole: MegaHighTraining = getattr(MegaHighTraining, name)()
    config = replace(
        whole, model=replace(whole.model, size=32), steps=2, batch=1, warm_up=1, held_out=0.0
    )

    def run(folder: Path, stop: int | None) -> None:
        options = replace(EVERY_STEP, stop_at=stop)
        train_mega_high(config, base, prepared, folder, options=options)

    same_in_pieces(run, tmp_path, stop=1)


def test_it_learns_goes_on_and_keeps_the_base(prepared: Path, base: Path, tmp_path: Path) -> None:
    records: list[Record] = []

    def run(folder: Path, stop: int | None) -> None:
        train_mega_high(
            HIGH,
            base,
            prepared,
            folder,
            options=replace(EVERY_STEP, stop_at=stop),
            on_record=records.append,
        )

    same_in_pieces(run, tmp_path, stop=1)
    terms = {"mae", "adversarial", "features", "adversarial_other", "cycle"}
    assert records[0]["terms"].keys() == terms | {"total", "gradient", "critic"}
    made = tmp_path / WHOLE / "last.safetensors"
    before, after = (load_network(BaseModel, path, part="base") for path in (base, made))
    for key, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[key])
    assert load_network(MegaEnhancer, made, part="enhancer").config == HIGH.model


def test_what_does_not_belong_together_is_refused(
    prepared: Path, base: Path, tmp_path: Path
) -> None:
    other = replace(HIGH, model=replace(HIGH.model, size=64))
    with pytest.raises(UsageError, match="paints 32 pixels"):
        train_mega_high(other, base, prepared, tmp_path / "a", options=EVERY_STEP)
    with pytest.raises(MediaError, match="fewer than two"):
        train_mega_high(
            replace(HIGH, held_out=1.0), base, prepared, tmp_path / "b", options=EVERY_STEP
        )
