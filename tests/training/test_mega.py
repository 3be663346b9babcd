"""MegaPortraits in training: samples, losses, going on where it stopped, the gaze network."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.critic import MegaCriticConfig
from metaportrait_cli.networks.mega.encoders import aligned
from metaportrait_cli.networks.mega.gaze import GazeConfig, GazeNetwork
from metaportrait_cli.render.mega.pose import aligned_face, head_matrices
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.mega.base import MegaTraining, train_mega
from metaportrait_cli.training.mega.gaze import EyeLoss, GazeTraining, looks_of, train_gaze
from metaportrait_cli.training.mega.losses import cosine_loss
from metaportrait_cli.training.mega.mattes import FILE, mattes_of
from metaportrait_cli.training.mega.samples import MegaDataset, Subjects, disguised, sample_of
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights.store import load_network, read_header
from tests.mega import TINY as SMALLEST

from .in_pieces import same_in_pieces

EVERY_STEP = RunOptions(log_every=1)
TINY = MegaTraining(
    model=SMALLEST,
    critic=MegaCriticConfig(widths=(4, 8)),
    steps=4,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


@pytest.fixture(scope="module")
def data(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pictures, with mattes of a segmenter that finds people in the middle."""
    folder = tmp_path_factory.mktemp("mega") / "prepared"
    # Other tests may have left theirs.
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns(FILE))
    seen = []

    def middle(picture: np.ndarray) -> np.ndarray:
        seen.append(picture)
        likely = np.zeros(picture.shape[:2], np.float32)
        likely[4:-4, 4:-4] = 1
        return likely

    faces = Faces.load(folder)
    found = mattes_of(faces, folder, silhouette=lambda: middle)
    assert len(seen) == len(found) == len(faces.images)
    again = mattes_of(faces, folder, silhouette=lambda: middle)
    assert len(seen) == len(found)  # read from the file
    assert np.array_equal(found, again)
    return folder


@pytest.fixture(scope="module")
def subjects(data: Path) -> Subjects:
    faces = Faces.load(data)
    return Subjects(faces, mattes_of(faces, data), SMALLEST)


def test_the_margin_counts_and_only_on_positives() -> None:
    anchor = torch.tensor([[1.0, 0.0]])
    near, far = torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1.0]])
    # cos+ = 0.8, cos- = 0; -log(e^(5 (.8 - .2)) / (e^(5 (.8 - .2)) + e^0)).
    assert cosine_loss([anchor], near, far) == pytest.approx(-math.log(math.e**3 / (math.e**3 + 1)))
    losses = [float(cosine_loss([anchor], near, far, margin=m)) for m in (0.0, 0.2, 0.4)]
    assert losses[0] < losses[1] < losses[2]
    assert cosine_loss([anchor, anchor], near, far) == pytest.approx(2 * losses[1])
    assert cosine_loss([anchor], far, near) > losses[1]
    # Two alike: each has the other's driver as a negative, too.
    pair = [each.expand(2, 2) for each in (anchor, near, far)]
    assert cosine_loss([pair[0]], pair[1], pair[2]) == pytest.approx(
        -math.log(math.e**3 / (math.e**3 + 2))
    )


def test_heads_are_where_landmarks_say() -> None:
    """A mean face, turned, scaled and moved: found again, in a picture of any size."""
    model = MorphableModel.bundled()
    angle = np.radians(25)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    points = (model.mean @ turn.T * 30 + (90, 70, 12)).astype(np.float32)
    small, large = (head_matrices(points[None] * k, side=160 * k, model=model)[0] for k in (1, 2))
    np.testing.assert_allclose(small, large, atol=1e-4)
    canonical = np.concatenate([model.mean * 0.4, np.ones((478, 1))], axis=1)
    found = (canonical @ small.T)[:, :2]
    np.testing.assert_allclose(found, points[:, :2] / 80 - 1, atol=1e-3)


def test_looks_are_cut_alike_with_numpy_and_torch(subjects: Subjects) -> None:
    picture, head = subjects.faces.images[0], subjects.heads[0]
    ours = aligned_face(picture, head, size=48)
    planes = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32))
    theirs = aligned(planes, torch.from_numpy(head[None]), size=48)[0].permute(1, 2, 0).numpy()
    inner = (slice(8, -8),) * 2
    assert np.abs(ours - theirs)[inner].mean() < 1.5  # cv2 samples at 1/32 of a pixel


def test_samples_are_the_same_whoever_draws_them_and_of_two_people(subjects: Subjects) -> None:
    def drawn() -> MegaDataset:
        return MegaDataset(subjects, names=["a", "b", "c"], length=9, seed=1)

    one, again = drawn()[4], drawn()[4]
    assert drawn().persons == 2  # the photo is no video
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(again, name)), name
    assert one.source.shape == one.driver.shape == one.other_source.shape == (3, 32, 32)
    assert one.look.shape == one.other_look.shape == (3, 32, 32)
    assert (one.matte.shape, one.eyes.shape) == ((1, 32, 32), (1, 32, 32))
    assert one.driver[:, :1].max() < 16  # no background
    assert not torch.equal(one.source_head, one.driver_head)


def test_shut_eyes_count(subjects: Subjects) -> None:
    points = subjects.faces.points.copy()
    for name in ("right_eye", "left_eye"):
        ring = topology.ring(name)
        points[0, ring, 1] = points[0, ring, 1].mean()
    shut = replace(subjects, faces=replace(subjects.faces, points=points))
    assert (shut.eyes(0) > 128).sum() > 4
    assert not subjects.eyes(0)[-8:].any()


def test_a_mirrored_sample_is_the_mirrored_sample(subjects: Subjects) -> None:
    plain = sample_of(subjects, (0, 3), (1, 2))
    mirrored = sample_of(subjects, (0, 3), (1, 2), mirror=True)
    for name in ("source", "driver", "matte", "look"):
        assert torch.equal(getattr(mirrored, name), getattr(plain, name).flip(-1)), name
    # The mirrored picture's head, by its own landmarks.
    points = subjects.points(3)[topology.mirror()] * (-1, 1, 1) + (32, 0, 0)
    assert np.allclose(mirrored.points, points)
    head = head_matrices(points[None].astype(np.float32), side=32, model=MorphableModel.bundled())
    assert np.allclose(mirrored.driver_head, head[0], atol=0.02)


def test_disguise_changes_shape_and_colours_but_not_where_the_face_is() -> None:
    look = np.zeros((64, 64, 3), np.float32)
    look[20:44, 20:44] = (200, 120, 80)
    one, other = (disguised(look, np.random.default_rng(n)) for n in (1, 2))
    assert np.abs(one - other).mean() > 2
    for each in (one, other):
        rows = np.flatnonzero(np.ptp(each.mean(axis=2), axis=1) > 20)
        assert abs(rows.mean() - 31.5) < 3


def test_stopping_and_going_on_is_the_same_as_not_stopping(data: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_mega(TINY, data, folder, options=replace(EVERY_STEP, stop_at=stop))

    assert same_in_pieces(run, tmp_path, stop=2).keys() >= {"base", "critic_critic"}


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["lite", "paper"])
def test_the_real_configurations_go_on_where_they_stopped(
    name: str, data: Path, tmp_path: Path
) -> None:
    """All widths, on small pictures: two steps at once, and one after the other."""
    if not os.environ.get("METAPORTRAIT_TEST_HEAVY"):
        pytest.skip("METAPORTRAIT_TEST_HEAVY is not set")
    whole: MegaTraining = getattr(MegaTraining, name)()
    model = replace(
        whole.model, size=64, depth=8, global_size=64, look=64, warp=whole.model.warp[:2]
    )
    config = replace(whole, model=model, steps=2, batch=1, held_out=0.0)

    def run(folder: Path, stop: int | None) -> None:
        train_mega(config, data, folder, options=replace(EVERY_STEP, stop_at=stop))

    same_in_pieces(run, tmp_path, stop=1)


def test_it_learns_with_all_terms_and_what_is_saved_can_be_opened(
    data: Path, tmp_path: Path
) -> None:
    records: list[Record] = []
    card = train_mega(
        replace(TINY, steps=2),
        data,
        tmp_path,
        options=EVERY_STEP,
        perceptual=PerceptualLoss(MobileNetFeatures()),
        eyes=EyeLoss(GazeNetwork(replace(GazeConfig.lite(), eye=16))),
        on_record=records.append,
    )
    assert records[0]["terms"].keys() == {
        *("pixel", "matte", "perceptual", "face", "gaze", "adversarial", "features", "cosine"),
        *("total", "gradient", "critic"),
    }
    assert card["gaze_loss"]
    assert read_header(tmp_path / "last.safetensors").architecture == "mega"
    base = load_network(BaseModel, tmp_path / "last.safetensors", part="base")
    assert base.config == SMALLEST


def test_without_the_cosine_loss_one_person_is_enough(data: Path, tmp_path: Path) -> None:
    alone = replace(TINY, held_out=0.5, steps=2)  # of "a", "b" and "c" only "a" is learnt from
    with pytest.raises(MediaError, match="two people"):
        train_mega(alone, data, tmp_path / "with", options=EVERY_STEP)
    card = train_mega(alone.without_cosine(), data, tmp_path / "without", options=EVERY_STEP)
    assert card["held_out"].keys() == {"copied", "painted"}


def test_eyes_alone_move_the_gaze_loss() -> None:
    torch.manual_seed(0)
    loss = EyeLoss(GazeNetwork(GazeConfig.lite()))
    points = torch.from_numpy(MorphableModel.bundled().mean[None] * 20 + (32, 32, 0)).float()
    target = torch.rand(1, 3, 64, 64)
    where = torch.zeros(1, 1, 64, 64)
    where[..., 20:30, :] = 1
    image = target.clone()
    image[..., 40:, :] = 0
    assert loss(image, target, points, where) == 0
    image[..., 20:30, :] = 0
    assert loss(image.requires_grad_(), target, points, where) > 0


def test_gaze_is_learnt_from_irises_and_lids(data: Path, tmp_path: Path) -> None:
    faces = Faces.load(data)
    gaze, openness = looks_of(faces.points, MorphableModel.bundled())
    assert gaze.shape == (len(faces.points), 2)
    assert openness.shape == (len(faces.points), 1)
    assert 0 < openness.mean() < 1
    config = GazeTraining(
        model=GazeConfig(widths=(4, 4, 4, 4, 4), eye=32, vector=8, points=8),
        steps=3,
        batch=4,
        held_out=0.5,
    )
    card = train_gaze(config, data, tmp_path, options=EVERY_STEP)
    assert card["held_out"].keys() == {"gaze", "openness"}
    assert EyeLoss.load(tmp_path / "last.safetensors").network.config == config.model
