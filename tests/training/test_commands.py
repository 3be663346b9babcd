"""`prepare` and `train …` as users start them, on tiny data."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from metaportrait_cli.cli.app import app
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.fewshot import FewShotConfig
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.gaze import GazeConfig
from metaportrait_cli.training import loop
from metaportrait_cli.training.morphable import learn as morphable
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import read_header
from tests.mega import TINY


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(done: Result, *, code: int) -> str:
    """The one line that tells why not; nothing may be on stdout."""
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line]
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    return lines[-1]


def trained(done: Result, folder: Path, *, parts: set[str]) -> None:
    """That a training of one step went well: its card on stdout, the rest on stderr."""
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert card == json.loads((folder / "card.json").read_text())
    assert card["step"] == 1
    assert done.stderr.splitlines()[-1].startswith("step 1: ")
    assert read_header(folder / "last.safetensors").configs.keys() == parts


@pytest.fixture(scope="module")
def regions_run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("regions") / "run"
    done = run("train", "regions", prepared, "-o", folder, "--steps", 1, "--batch", 1, "--json")
    return folder, done


@pytest.fixture
def tracks(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of tracks of so many invented people."""
    model = MorphableModel.load(bundled_path("morphable"))

    def make(people: int) -> Path:
        folder = tmp_path / "tracks"
        folder.mkdir()
        for person in range(people):
            random = np.random.default_rng(person)
            faces = model.shape(
                random.normal(size=model.identity_size).astype(np.float32),
                random.normal(size=(6, model.expression_size)).astype(np.float32),
                np.zeros((6, 2, 2), np.float32),
            )
            np.savez(folder / f"{person}.npz", landmarks=60 * faces + 200)
        return folder

    return make


def test_prepare_packs_faces(footage: Path, tmp_path: Path) -> None:
    options = ("--size", 64, "--frames-per-identity", 4)
    done = run("prepare", footage, "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert "1 files left out" in done.stderr
    assert json.loads((tmp_path / "out" / "index.json").read_text())["size"] == 64


def test_prepare_packs_runs(footage: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run("prepare", footage, "-o", output, "--size", 128, "--runs", 1, "--json", "-q")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert json.loads(done.stdout)["frames"] == 7


def test_prepare_tells_at_once_what_it_can_not_do(footage: Path, tmp_path: Path) -> None:
    assert "index.tsv" in refusal(run("prepare", tmp_path, "-o", tmp_path / "o"), code=3)
    (tmp_path / "file").touch()
    assert "folder" in refusal(run("prepare", footage, "-o", tmp_path / "file"), code=2)
    sized = run("prepare", footage, "-o", tmp_path / "o", "--size", 100)
    assert "multiple of 32" in refusal(sized, code=2)
    large = run("prepare", footage, "-o", tmp_path / "o", "--runs", 1)
    assert "no real clip" in refusal(large, code=3)
    assert not (tmp_path / "o").exists()


def test_train_warping(prepared: Path, tmp_path: Path) -> None:
    done = run(
        *("train", "warping", prepared, "-o", tmp_path, "--steps", 1, "--batch", 1, "--size", 32),
        "--json",
    )
    trained(done, tmp_path, parts={"warping"})


def test_train_regions(regions_run: tuple[Path, Result]) -> None:
    trained(regions_run[1], regions_run[0], parts={"mouth", "eyes"})


def test_train_shading(prepared: Path, tmp_path: Path) -> None:
    done = run(
        *("train", "shading", prepared, "-o", tmp_path, "--steps", 1, "--batch", 1, "--json")
    )
    trained(done, tmp_path, parts={"shading"})


def test_train_meta(regions_run: tuple[Path, Result], tmp_path: Path) -> None:
    base = regions_run[0] / "last.safetensors"
    done = run(
        *("train", "meta", base, regions_run[0], "-o", tmp_path, "--steps", 1, "--inner", 1),
        *("--people", 1, "--json"),
    )
    trained(done, tmp_path, parts={"mouth", "eyes"})


def test_train_fewshot(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FewShotConfig(size=32, widths=(8, 8, 16), halvings=2, blocks=1)
    monkeypatch.setattr(FewShotConfig, "lite", lambda: tiny)
    done = run(
        *("train", "fewshot", prepared, "-o", tmp_path, "--steps", 1, "--batch", 1, "--json"),
        "--feed-forward",
    )
    trained(done, tmp_path, parts={"embedder", "generator", "discriminator"})
    assert json.loads(done.stdout)["variant"] == "feed-forward"


def test_train_gaze_and_mega(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = GazeConfig(widths=(4, 4, 4, 4, 4), eye=32, vector=4, points=4)
    monkeypatch.setattr(GazeConfig, "lite", lambda: small)
    gaze = tmp_path / "gaze"
    done = run("train", "gaze", prepared, "-o", gaze, "--steps", 1, "--json")
    trained(done, gaze, parts={"gaze"})
    monkeypatch.setattr(MegaConfig, "lite", lambda: TINY)
    mega = tmp_path / "mega"
    command = ("train", "mega", prepared, "-o", mega, "--steps", 1, "--batch", 1, "--json")
    done = run(*command, "--gaze", gaze / "last.safetensors", "--no-cosine")
    trained(done, mega, parts={"base"})
    assert json.loads(done.stdout)["gaze_loss"]


def test_train_sr(runs: Path, tmp_path: Path) -> None:
    done = run(
        *("train", "sr", runs, "-o", tmp_path, "--steps", 1, "--batch", 1, "--patch", 16),
        "--json",
    )
    trained(done, tmp_path, parts={"compact_sr"})


def test_train_morphable(
    tracks: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(morphable, "learn", partial(morphable.learn, rounds=1))
    output = tmp_path / "model.safetensors"
    sizes = ("--identity-size", 4, "--expression-size", 3)
    command = ("train", "morphable", tracks(60), "-o", output, *sizes, "--json")
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["people"] == 60
    assert MorphableModel.load(output).identity_size == 4
    before = output.read_bytes()
    assert "overwrite" in refusal(run(*command), code=2)
    assert output.read_bytes() == before


def test_train_morphable_tells_what_is_wrong_with_tracks(
    tracks: Callable[[int], Path], tmp_path: Path
) -> None:
    output = tmp_path / "m.safetensors"
    assert "no .npz" in refusal(run("train", "morphable", tmp_path, "-o", output), code=3)
    folder = tracks(2)
    assert "more people" in refusal(run("train", "morphable", folder, "-o", output), code=3)
    (folder / "x.npz").write_bytes(b"none")
    assert "x.npz" in refusal(run("train", "morphable", folder, "-o", output), code=3)
    assert not output.exists()


@pytest.mark.parametrize("name", ["warping", "regions", "sr", "fewshot"])
def test_a_folder_without_data_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    line = refusal(run("train", name, tmp_path / "none", "-o", tmp_path / "run"), code=3)
    assert "prepare" in line
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_settings_is_told_before_the_work(prepared: Path, tmp_path: Path) -> None:
    command = ("train", "warping", prepared, "-o", tmp_path, "--batch", 1, "--size", 32)
    assert run(*command, "--steps", 1, "-q").exit_code == 0
    line = refusal(run(*command, "--steps", 2), code=5)
    assert "other settings (steps)" in line


def test_a_piece_of_a_run_says_how_to_go_on(prepared: Path, tmp_path: Path) -> None:
    command = ("train", "warping", prepared, "-o", tmp_path, "--batch", 1, "--steps", 3)
    done = run(*command, "--minutes", 0)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path}\n"
    assert "step 0 of 3; the same command goes on" in done.stderr


def test_commands_of_the_docs_are_understood() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    lines = re.findall(r"^    metaportrait (.*?)(?: *#.*)?$", page, re.MULTILINE)
    assert len(lines) > 8
    for line in lines:
        command, arguments = typer.main.get_command(app), shlex.split(line)
        context = command.make_context("metaportrait", arguments, resilient_parsing=True)
        while isinstance(command, TyperGroup):
            _, command, arguments = command.resolve_command(context, arguments)
            assert command is not None, line
            command.make_parser(context).parse_args(list(arguments))


def test_an_interrupted_training_exits_as_every_command(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_train", interrupted)
    done = run("train", "warping", prepared, "-o", tmp_path, "--steps", 1)
    assert "interrupted" in refusal(done, code=130)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from metaportrait_cli.cli.app import app\n"
        "for command in 'warping', 'regions', 'meta', 'sr', 'morphable', 'fewshot':\n"
        "    result = CliRunner().invoke(app, ['train', command, '--help'])\n"
        "    assert result.exit_code == 0 and '--output' in result.output, result.output\n"
        "result = CliRunner().invoke(app, ['prepare', '--help'])\n"
        "words = result.output.split()\n"
        "assert not {'file', 'split', 'kind', 'identity', 'origin'} - set(words), words\n"
        "assert not {'torch', 'numpy', 'cv2', 'mediapipe'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
