"""A person learnt from the sample clip, and from photos; what is no use is refused or left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError, WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.regions import KINDS, PATCHES
from metaportrait_cli.face.track import FaceChoice
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.networks.fewshot import Discriminator, Embedder, FewShotConfig, Generator
from metaportrait_cli.networks.mouth import REGION_NETWORKS
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import RegionConfig
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person import fine_tuning
from metaportrait_cli.pipeline.person.atlas import choose_canvas, choose_views
from metaportrait_cli.pipeline.person.contest import Contest, Yardstick, photo_trials
from metaportrait_cli.pipeline.person.making import Kit, meta_learnt_start, split
from metaportrait_cli.pipeline.person.personalize import personalize
from metaportrait_cli.pipeline.person.portrait_file import Base, load_portrait
from metaportrait_cli.pipeline.person.recording import Looker, Recording
from metaportrait_cli.pipeline.person.told import PersonalizeOptions, PersonalizeReport
from metaportrait_cli.render.compact import region_networks
from metaportrait_cli.render.protocol import Driven
from metaportrait_cli.training.adapt import AdaptConfig
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import save_networks
from tests.clips import decoded, scene, write_clip

PICTURES = 36
PLAIN = Engine("none")


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit.load()


@pytest.fixture(scope="module")
def looker(kit: Kit) -> Iterator[Looker]:
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
        yield Looker(detector, kit.identity, kit.model)


@pytest.fixture(scope="module")
def clip(driver_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third picture of the sample clip."""
    frames = decoded(driver_path)[::3][:PICTURES]
    return write_clip(tmp_path_factory.mktemp("me") / "me.mp4", frames, rate="8")


@pytest.fixture(scope="module")
def short_clip(driver_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every ninth picture of the sample clip."""
    return write_clip(tmp_path_factory.mktemp("me") / "s.mp4", decoded(driver_path)[::9], rate="3")


@pytest.fixture(scope="module")
def recording(clip: Path, looker: Looker) -> Recording:
    return looker.video(clip)


@pytest.fixture(scope="module")
def made(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PersonalizeReport]:
    folder = tmp_path_factory.mktemp("portrait")
    path = folder / "me.portrait"
    return path, personalize(path, engine=PLAIN, video=clip, sheet=folder / "sheet.png")


def test_the_atlas_covers_the_clip(recording: Recording) -> None:
    assert len(recording.looks) == PICTURES
    canvas = choose_canvas(recording)
    views = choose_views(recording, canvas, most=8)
    assert views[0] == canvas
    assert len(set(views)) == len(views) == 8
    turns = recording.fitted.angles[:, 0]
    assert np.ptp(turns[views]) > 0.6 * np.ptp(turns)
    known, held = split(recording)
    assert held is not None
    assert len(held.looks) == PICTURES // 6
    numbers = [
        [n for n, each in enumerate(recording.looks) for look in part.looks if each is look]
        for part in (known, held)
    ]
    # Runs at the thirds of the clip, with a look left out on either side.
    assert numbers[1] == [10, 11, 22, 23, 34, 35]
    assert numbers[0] == [*range(9), *range(13, 21), *range(25, 33)]


def test_blurred_looks_are_not_taken(recording: Recording) -> None:
    dull = tuple(
        replace(look, sharpness=look.sharpness / 3) if n % 2 else look
        for n, look in enumerate(recording.looks)
    )
    blurred = replace(recording, looks=dull)
    assert all(n % 2 == 0 for n in choose_views(blurred, choose_canvas(blurred)))


def test_a_portrait_is_no_worse_than_its_canvas(made: tuple[Path, PersonalizeReport]) -> None:
    path, report = made
    before, after = report.quality["before"], report.quality["after"]
    assert after["lpips_like"] <= before["lpips_like"]
    assert after["mouth_lpips_like"] <= before["mouth_lpips_like"]
    assert report.bytes == path.stat().st_size < 5_000_000
    assert report.held_out == PICTURES // 6
    assert np.asarray(Image.open(report.sheet)).shape == (6 * 256, 3 * 256, 3)
    assert json.loads(json.dumps(report.as_json()))["views"] == len(load_portrait(path).views)


def test_it_is_animated_without_a_source(
    made: tuple[Path, PersonalizeReport], clip: Path, tmp_path: Path
) -> None:
    options = AnimateOptions(full=False, size=64)
    report = animate([], clip, tmp_path / "out.mp4", options, portrait=made[0])
    assert report.frames == len(decoded(tmp_path / "out.mp4")) == PICTURES
    assert report.faces["source"]["further_views"] == made[1].views - 1
    with pytest.raises(UsageError, match="either"):
        animate([clip], clip, tmp_path / "both.mp4", options, portrait=made[0])


def test_the_same_recording_makes_the_same_file(short_clip: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "once.portrait", tmp_path / "again.portrait"]
    for path in paths:
        personalize(path, engine=PLAIN, video=short_clip)
    first, second = map(load_portrait, paths)
    assert len(first.views) == len(second.views)
    for ours, theirs in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(ours.picture, theirs.picture)


def test_weights_are_adapted_and_kept_only_if_they_help(short_clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks: dict[str, Network] = {
        kind: REGION_NETWORKS[kind](RegionConfig(patch=PATCHES[kind], widths=(8, 16)))
        for kind in KINDS
    }
    weights = tmp_path / "base.safetensors"
    save_networks(weights, networks, architecture="compact")
    report = personalize(
        tmp_path / "me.portrait",
        PersonalizeOptions(seconds=2),
        video=short_clip,
        engine=Engine(weights, device="cpu"),
    )
    person = load_portrait(tmp_path / "me.portrait")
    assert person.base.name == f"sha256:{person.base.sha256}"
    assert report.adaptation["steps"] > 0
    assert bool(person.deltas) == bool(report.adaptation["kept"])
    assert all(bool(torch.isfinite(delta).all()) for delta in person.deltas.values())
    before, after = report.quality["before"], report.quality["after"]
    assert after["mouth_lpips_like"] <= before["mouth_lpips_like"]


def test_photos_are_judged_in_turn(driver_path: Path, tmp_path: Path) -> None:
    frames = decoded(driver_path)
    paths = [tmp_path / f"{n}.png" for n in (0, 40, 80, 100)]
    for path in paths:
        Image.fromarray(frames[int(path.stem)]).save(path)
    report = personalize(tmp_path / "me.portrait", engine=PLAIN, photos=paths)
    assert report.looks == 4
    assert report.held_out == 3
    assert report.quality["after"]["lpips_like"] <= report.quality["before"]["lpips_like"]
    two = personalize(tmp_path / "two.portrait", engine=PLAIN, photos=paths[:2])
    assert not two.quality
    assert any("fewer than three" in note for note in two.notes)


def test_what_is_no_use_is_refused(
    portrait: NDArray[np.uint8], portrait_path: Path, looker: Looker, tmp_path: Path
) -> None:
    empty = write_clip(tmp_path / "empty.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 12)
    with pytest.raises(NoFaceError, match="no face"):
        looker.video(empty)
    short = write_clip(tmp_path / "short.mp4", [portrait] * 5)
    with pytest.raises(MediaError, match="longer"):
        looker.video(short)
    dark = write_clip(tmp_path / "dark.mp4", [(portrait * 0.12).astype(np.uint8)] * 12)
    with pytest.raises((MediaError, NoFaceError)):
        looker.video(dark)
    with pytest.raises(UsageError, match="`photos`"):
        looker.video(portrait_path)
    pair = scene(portrait, [(0, 20, 200), (210, 20, 190)], width=420)
    both = write_clip(tmp_path / "pair.mp4", [pair] * 12)
    found = looker.video(both)
    assert "choose one" in found.notes[0]
    assert found.points[..., 0].max() < 210
    right = replace(looker, choice=FaceChoice(2)).video(both)
    assert right.points[..., 0].min() > 200
    with pytest.raises(NoFaceError, match="face 5"):
        replace(looker, choice=FaceChoice(5)).video(both)
    with pytest.raises(UsageError, match="either"):
        personalize(tmp_path / "x.portrait")
    assert not list(tmp_path.glob("*.portrait"))


class Turned(MediaPipeDetector):
    """Sees every face turned a further 50 degrees to the side."""

    def search(self, image: NDArray[np.uint8], *, all_faces: bool = True) -> list[Face]:
        return [self._turned(face) for face in super().search(image, all_faces=all_faces)]

    def detect(
        self, image: NDArray[np.uint8], *, hint: NDArray[np.float32] | None = None
    ) -> list[Face]:
        return [self._turned(face) for face in super().detect(image, hint=hint)]

    def _turned(self, face: Face) -> Face:
        middle = face.points.mean(0)
        turned = (face.points - middle) @ rotation_of(np.radians([50.0, 0, 0])).T + middle
        return replace(face, points=turned.astype(np.float32))


def test_a_profile_all_the_time_is_refused(
    portrait: NDArray[np.uint8], kit: Kit, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "profile.mp4", [portrait] * 10)
    with (
        Turned(bundled_path("face_landmarker.task")) as detector,
        pytest.raises(NoFaceError, match="turned away"),
    ):
        Looker(detector, kit.identity, kit.model).video(clip)


def test_the_bundled_start_is_one_for_the_bundled_weights() -> None:
    compact = bundled_path("compact")
    base = Base(name="compact", sha256=hashlib.sha256(compact.read_bytes()).hexdigest())
    start, own = meta_learnt_start(base), region_networks(compact)
    assert start is not None
    assert start.keys() == own.keys()
    for kind, network in start.items():
        learnt = dict(network.named_parameters())
        for name, parameter in own[kind].named_parameters():
            same = torch.equal(parameter, learnt[name])
            assert same or name.partition(".")[0] in AdaptConfig().trained, name
    assert meta_learnt_start(Base()) is None


def test_few_shot_weights_learn_a_person_in_steps(
    portrait_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "steps_for", lambda _pictures: 3)
    torch.manual_seed(0)
    config = FewShotConfig(size=64, widths=(8, 8, 16, 16), halvings=2, blocks=1)
    parts: dict[str, Network] = {"embedder": Embedder(config), "generator": Generator(config)}
    weights = tmp_path / "fewshot.safetensors"
    save_networks(weights, parts, architecture="fewshot")
    output = tmp_path / "me.portrait"
    with Engine(str(weights)) as engine, pytest.raises(WeightsError, match="no discriminator"):
        personalize(output, photos=[portrait_path], engine=engine)
    save_networks(weights, parts | {"discriminator": Discriminator(config)}, architecture="fewshot")
    with Engine(str(weights)) as engine:
        report = personalize(output, photos=[portrait_path], engine=engine)
        assert report.adaptation == {"steps": 3, "planned": 3, "kept": 3, "pictures": 1}
        portrait = load_portrait(output)
        assert portrait.deltas["generator.projection.bias"].any()
        own, base = engine.rendering(portrait).renderer, engine.rendering().renderer
        driven = Driven.of(portrait.source.landmarks(64)[None])
        shown, before = (
            each.open(portrait.source, size=64).render(driven).frames.astype(int)
            for each in (own, base)
        )
    truth = portrait.source.crop.cut(portrait.source.picture, 64)
    assert np.abs(shown - truth).mean() < np.abs(before - truth).mean()


def test_one_of_three_photos_judges_what_the_others_taught(recording: Recording, kit: Kit) -> None:
    photos = replace(recording.of(np.array([0, 9, 20])), kind="photos")
    canvas = choose_canvas(photos)
    yardstick = Yardstick(
        photo_trials(photos, canvas), features=kit.features, identity=kit.identity
    )
    renderer = PLAIN.rendering().renderer
    learnt, contest = fine_tuning.set_apart(
        photos,
        canvas,
        Contest(yardstick, renderer),
        renderer,
        features=kit.features,
        identity=kit.identity,
    )
    (judged,) = {0, 1, 2} - set(learnt)
    assert judged != canvas
    (trial,) = contest.trials
    wanted = Crop.around(photos.looks[judged].points, within=photos.looks[judged].size)
    assert np.array_equal(trial.truth[0], wanted.cut(photos.looks[judged].picture(), 256))
