"""A student from a picture to a clip: taught, resumed, animated, exported, and nobody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from metaportrait_cli import Engine
from metaportrait_cli.cli.app import app
from metaportrait_cli.errors import UsageError, WeightsError
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.networks.student import Student, StudentConfig
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, evaluate
from metaportrait_cli.pipeline.live.performer import Performer, open_portrait
from metaportrait_cli.pipeline.person.distill import (
    DistillOptions,
    DistillReport,
    distill,
    portrait_of_source,
)
from metaportrait_cli.pipeline.person.onnx_file import export_onnx
from metaportrait_cli.pipeline.person.personalize import personalize
from metaportrait_cli.pipeline.person.portrait_file import load_portrait, save_portrait
from metaportrait_cli.pipeline.verify import verify_all
from metaportrait_cli.pixels import as_pictures
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.painted.student import load_student
from metaportrait_cli.render.protocol import Driven, DriverLooks
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights.store import load_network
from tests.clips import decoded, write_clip

TINY = DistillOptions(
    steps=2,
    lessons=60,
    model=StudentConfig(size=64, coarse=16, terms=8, code=8, fields=8, features=4, width=8),
)
PLAIN = Engine("none")


@pytest.fixture(scope="module")
def made(portrait_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """A student that was broken off after its first step, and finished."""
    path = tmp_path_factory.mktemp("student") / "me.student"
    reports = []
    for stop in (1, None):
        reports.append(
            distill(
                path,
                TINY,
                source=portrait_path,
                engine=PLAIN,
                run=RunOptions(stop_at=stop),
            )
        )
        if stop:
            assert path.with_name("me.student.distill").is_dir()
            with pytest.raises(UsageError, match="other settings"):
                distill(
                    path,
                    replace(TINY, lessons=70),
                    source=portrait_path,
                    engine=PLAIN,
                    overwrite=True,
                )
    return path, reports


@pytest.fixture(scope="module")
def clip(driver_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("c") / "c.mp4", decoded(driver_path)[:4], rate="12")


def test_it_goes_on_where_it_stopped(made: tuple[Path, list[DistillReport]]) -> None:
    path, (first, last) = made
    assert (first.step, last.step, last.steps) == (1, 2, 2)
    assert (last.lessons, set(last.kept)) == (48, {"l1", "psnr", "perceptual"})
    assert last.bytes == path.stat().st_size
    assert not path.with_name("me.student.distill").exists()
    assert "portrait of 1 view," in str(verify_all([str(path)])[0])


def test_it_animates_its_own_picture_alone(
    made: tuple[Path, list], clip: Path, portrait_path: Path, tmp_path: Path
) -> None:
    path, _ = made
    out = tmp_path / "a.mp4"
    report = animate(None, clip, out, AnimateOptions(window=3), portrait=path)
    assert (report.frames, len(decoded(out))) == (4, 4)
    assert list(report.weights) == ["me.student"]
    with pytest.raises(WeightsError, match="was made for"):
        animate(None, clip, tmp_path / "b.mp4", portrait=path, engine=PLAIN)

    # The very picture serves as source; another one is refused in words.
    student = Engine(path)
    animate(portrait_path, clip, tmp_path / "c.mp4", engine=student)
    other = tmp_path / "other.png"
    mirrored = np.asarray(Image.open(portrait_path).convert("RGB"))[:, ::-1]
    Image.fromarray(mirrored).save(other)
    with pytest.raises(WeightsError, match=r"knows one picture of one person.*other\.png"):
        animate(other, clip, tmp_path / "d.mp4", engine=student)


def test_it_learns_nobody_else(
    made: tuple[Path, list], portrait_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"me\.student: knows its people by heart"):
        personalize(tmp_path / "a.portrait", photos=[portrait_path], engine=Engine(made[0]))


def test_it_is_judged_on_clips_of_its_person(
    made: tuple[Path, list], clip: Path, portrait: NDArray[np.uint8], tmp_path: Path
) -> None:
    lit = np.clip(portrait * 0.7, 0, 255).astype(np.uint8)  # no picture that it was taught with
    own = write_clip(tmp_path / "own.mp4", [lit] * 5, rate="12")
    judged = EvaluateOptions(weights=("none", str(made[0])), frames=4)
    (result,) = evaluate([own], judged).clips
    # What it paints is the picture that it has, not the dark one.
    assert result.values["none"]["psnr"] > 25 > result.values[str(made[0])]["psnr"] > 8
    assert result.values[str(made[0])]["identity_distance"] < 0.06
    stranger = write_clip(tmp_path / "stranger.mp4", [*decoded(clip), decoded(clip)[-1]], rate="12")
    arguments = ["evaluate", str(own), str(stranger), "--weights", str(made[0]), "--frames", "4"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == WeightsError.exit_code
    wanted = r"me\.student: knows one person, and .*stranger\.mp4 shows somebody else; judge it on"
    assert re.search(wanted, " ".join(refused.stderr.split()))


def test_the_file_is_portrait_and_weights_at_once(made: tuple[Path, list]) -> None:
    path, _ = made
    portrait = load_portrait(path)
    assert portrait.base.name == str(path)
    assert portrait.source.face.blendshapes.any()
    network = load_network(Student, path, part="student")
    assert network.config == TINY.model
    assert network.fields.dtype == torch.float16


def test_it_can_be_shown_live(made: tuple[Path, list], portrait: NDArray[np.uint8]) -> None:
    with Engine() as engine:
        opened = open_portrait(engine, None, portrait=made[0], size=256)
    assert (opened.name, opened.side) == ("me.student", 64)
    with closing(Performer(opened, size=256, marked=False, strength=1.0)) as performer:
        assert performer.perform(portrait, 0.04).shape == (256, 256, 3)


def test_pictures_are_the_networks_own(
    made: tuple[Path, list], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = load_portrait(made[0]).source
    points = np.stack([source.landmarks(128) + np.array([k, 0, 0]) for k in range(6)])
    points[5] = np.nan  # no face at all
    driven = Driven.of(points.astype(np.float32))
    network = load_network(Student, made[0], part="student").float()
    with torch.no_grad():
        shown = network(torch.from_numpy(driven.landmarks / 128), network.pictures_at(64))
    wanted = as_pictures(shown).astype(int)
    # The second one comes from the shelf; bf16 places pixels less exactly.
    for precision, mean, most in (("fp32", 0.05, 2), ("fp32", 0.05, 2), ("bf16", 2, 64)):
        renderer = rendering_named(str(made[0]), device="cpu", precision=precision).renderer
        found = renderer.open(source, size=128).render(driven).frames
        assert (renderer.fixed_size, renderer.keeps_detail) == (64, True)
        assert found.shape == (6, 64, 64, 3)
        apart = np.abs(found.astype(int) - wanted)
        assert apart.mean() < mean
        assert apart.max() <= most


def test_of_a_driver_nothing_but_landmarks_is_shown(made: tuple[Path, list]) -> None:
    source = load_portrait(made[0]).source
    session = rendering_named(str(made[0]), device="cpu").renderer.open(source, size=64)
    driven = Driven.of(source.landmarks(64)[None])
    shown = session.render(driven).frames
    for grey in (0, 255):
        looks = DriverLooks(np.full((1, 64, 64, 3), grey, np.uint8), driven.landmarks)
        assert np.array_equal(session.render(replace(driven, seen=looks)).frames, shown)


def test_known_students_start_without_torch(made: tuple[Path, list], tmp_path: Path) -> None:
    code = """if 1:
        import sys
        from pathlib import Path
        from metaportrait_cli.pipeline.person.portrait_file import load_portrait
        from metaportrait_cli.render.named import rendering_named
        from metaportrait_cli.render.protocol import Driven
        path = Path(sys.argv[1])
        source = load_portrait(path).source
        session = rendering_named(str(path), device="auto").renderer.open(source, size=64)
        session.render(Driven.of(source.landmarks(64)[None]))
        print("torch" in sys.modules)
    """
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    command = [sys.executable, "-c", code, str(made[0])]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    assert [run(command, env=env).stdout.strip() for _ in range(2)] == ["True", "False"]


def test_onnx_runs_to_a_thousandth(made: tuple[Path, list], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network = load_network(Student, made[0], part="student").float()
    export_onnx(network, tmp_path / "me.onnx")
    session = runtime.InferenceSession(tmp_path / "me.onnx")
    own = load_portrait(made[0]).source.landmarks(1)[None]
    points = torch.from_numpy(own + np.random.default_rng(0).normal(0, 0.01, own.shape))
    points = points.float()
    with torch.no_grad():
        wanted = network(points, network.pictures_at(64)).clamp(0, 1).numpy()
    (found,) = session.run(None, {"landmarks": points.numpy()})
    assert found.shape == (1, 3, 64, 64)
    assert np.abs(found - wanted).max() < 1e-3


def test_one_file_holds_several_people(
    portrait: NDArray[np.uint8], clip: Path, tmp_path: Path
) -> None:
    files = {}
    for name, picture in (("anna", portrait), ("ben", portrait[:, ::-1].copy())):
        files[name] = tmp_path / f"{name}.portrait"
        save_portrait(files[name], portrait_of_source(picture, LARGEST_FACE, engine=PLAIN))
    path = tmp_path / "us.student"
    teach = partial(
        distill, path, TINY, portrait=files["anna"], others=[files["ben"]], overwrite=True
    )
    teach(run=RunOptions(stop_at=1))
    report = teach()
    alone = sum(each.numel() for each in load_student(path).parameters())
    assert (report.step, report.people, report.lessons) == (2, ["anna", "ben"], 96)
    assert alone < report.parameters < 2 * alone

    # The identity tensors are each one's own, the convolutions are everybody's.
    anna, ben = (load_student(path, number) for number in (0, 1))
    assert torch.equal(anna.body.conv.weight, ben.body.conv.weight)
    assert not torch.equal(anna.fields, ben.fields)
    for number, name in enumerate(files):
        known = load_portrait(Path(f"{path}:{name}"))
        points = known.source.landmarks(64)[None]
        renderer = rendering_named(str(path), device="cpu").renderer
        shown = renderer.open(known.source, size=64).render(Driven.of(points)).frames[0]
        own = load_student(path, number).pictures[0].permute(1, 2, 0).numpy()
        assert np.abs(shown.astype(int) - own).mean() < 8
    assert animate(None, clip, tmp_path / "b.mp4", portrait=f"{path}:ben").frames == 4

    with pytest.raises(WeightsError, match=r"holds anna, ben; choose as in .*us\.student:anna"):
        load_portrait(Path(f"{path}:carl"))
    with pytest.raises(WeightsError, match="holds anna, ben"):
        animate(None, clip, tmp_path / "c.mp4", portrait=path)
    with pytest.raises(WeightsError, match="one person, who needs no name"):
        load_portrait(Path(f"{files['anna']}:anna"))
    with pytest.raises(UsageError, match="rename the file"):
        teach(others=[files["anna"]])


def test_what_it_needs_is_said(tmp_path: Path, portrait_path: Path) -> None:
    with pytest.raises(UsageError, match="either `portrait` or `source`"):
        distill(tmp_path / "a.student")
    with pytest.raises(UsageError, match="not more than 48"):
        DistillOptions(lessons=20)
