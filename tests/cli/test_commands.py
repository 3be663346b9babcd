"""Each command once, on a clip of a few frames: what it prints, writes, and passes over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app
from tests.clips import decoded, scene, write_clip

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a face that moves a little, and a photo of it."""
    folder = tmp_path_factory.mktemp("commands")
    frames = [scene(portrait, [(30 + x, 10, 200)], width=256, height=224) for x in range(6)]
    write_clip(folder / "clip.mp4", frames)
    Image.fromarray(frames[0]).save(folder / "face.png")
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(*arguments: str | Path) -> Any:
    """What a command says with --json."""
    done = runner.invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_animate(folder: Path) -> None:
    arguments = ["animate", folder / "face.png", folder / "clip.mp4", "--weights", "none", "-q"]
    told_once = told(*arguments, "-o", "new/out.mp4", "--crop", "--size", "64")
    assert told_once["frames"] == 6
    assert told_once["settings"]["weights"] == "none"
    assert [each.shape for each in decoded(Path("new/out.mp4"))] == [(64, 64, 3)] * 6
    assert told(*arguments, "-o", "new/out.mp4", "--skip-existing")["skipped"]


def test_a_photo_is_turned_without_a_driver(folder: Path) -> None:
    seen = []
    for angle in ("0", "15", "-15"):
        told_once = told(
            *("animate", folder / "face.png", *(() if angle != "0" else [folder / "face.png"])),
            *(f"--yaw={angle}", "--weights=none", "-o", f"{angle}.png", "-q"),
        )
        assert told_once["frames"] == 1
        seen.append(np.asarray(Image.open(f"{angle}.png")).astype(int))
    assert len({picture.shape for picture in seen}) == 1
    assert np.abs(seen[1] - seen[0]).mean() > 0.5
    assert np.abs(seen[2] - seen[1]).mean() > 0.5


def test_a_face_or_frame_that_is_not_there(folder: Path) -> None:
    arguments = ["animate", str(folder / "face.png"), str(folder / "clip.mp4"), "--weights=none"]
    third = runner.invoke(app, [*arguments, "--face", "3"])
    assert third.exit_code == 4
    assert "--face 3 is not there: at most 1 seen" in third.stderr
    beyond = runner.invoke(app, [*arguments, "--reference-frame", "999"])
    assert beyond.exit_code == 2
    assert beyond.stderr == "error: --reference-frame 999: the driver has frames 0 to 5\n"


def test_landmarks(folder: Path) -> None:
    assert told("landmarks", folder / "clip.mp4", "--overlay", "seen.mp4", "-q")["frames"] == 6
    assert len(decoded(Path("seen.mp4"))) == 6
    assert told("landmarks", folder / "clip.mp4", "--skip-existing")["skipped"]


def test_personalize(folder: Path) -> None:
    arguments = ["personalize", folder / "face.png", "--weights", "none", "-q"]
    done = told(*arguments)
    assert done["views"] == 1
    assert Path("face.portrait").is_file()
    assert told(*arguments, "--skip-existing")["skipped"]
    both = runner.invoke(app, ["personalize", "--video", "a.mp4", "--photos", "b.png"])
    assert both.exit_code == 2


def test_evaluate(folder: Path) -> None:
    arguments = ["evaluate", folder / "clip.mp4", "--weights", "none", "--frames", "4", "-q"]
    done = told(*arguments, "--sheet", "sheet.png")
    assert set(done["summary"]) >= {"copy", "none"}
    assert Path("sheet.png").is_file()
    assert told(*arguments, "--sheet", "sheet.png", "--skip-existing")["skipped"]


def test_weights(tmp_path: Path) -> None:
    listed = told("weights", "list")
    assert {entry["name"] for entry in listed} >= {"compact", "compact_sr"}
    pulled = runner.invoke(app, ["weights", "pull", "compact"])
    assert pulled.exit_code == 0
    assert Path(pulled.stdout.strip()).is_file()
    assert told("weights", "verify", "compact")[0]["verdict"] == "sha256 as listed"
    Path("noise.pth").write_bytes(b"\x93" + bytes(range(256)))
    refused = runner.invoke(app, ["weights", "convert", "noise.pth", "-o", "out.safetensors"])
    assert refused.exit_code == 5
    assert "damaged or no PyTorch checkpoint" in refused.stderr
    assert not Path("out.safetensors").exists()


def test_doctor() -> None:
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code in (0, 1)  # 1 where another OpenCV is installed beside ours
    assert "ok      landmark model: loads" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["animate", "", "b.mp4"], "an argument is empty"),
        (["animate", "-s", "a.png", "-d", ""], "-d is empty"),
        (["animate", "a.png", "b.mp4", "--weights="], "--weights is empty"),
        (["upscale", ""], "an argument is empty"),
        (["personalize", "--video", ""], "--video is empty"),
    ],
)
def test_what_is_empty_is_not_the_working_folder(arguments: list[str], told: str) -> None:
    done = runner.invoke(app, arguments)
    assert (done.exit_code, done.stderr) == (2, f"error: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--preview", "0"], 2, "--preview 0 is not a number of seconds above 0"),
        (["--preview", "nan"], 2, "--preview nan is not a number of seconds above 0"),
        (["--start", "nan"], 2, "--start nan is not a time in seconds"),
        (["--weights", "nonsense"], 5, "nonsense: no weights of that name"),
        (["--device", "cuda"], 2, "--device cuda: this machine has none that torch can use"),
        (
            ["out.mp4"],
            2,
            "out.mp4 doesn't exist: the last one drives; a result is named by -",
        ),
        (["-o", "/proc/x.mp4"], 2, "/proc/x.mp4 can't be written"),
    ],
)
def test_what_can_not_be_is_told_before_the_work(
    arguments: list[str], code: int, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    files = ["animate", str(folder / "face.png"), str(folder / "clip.mp4")]
    done = runner.invoke(app, [*files, *arguments])
    assert done.exit_code == code, done.output
    assert done.stderr.startswith(f"error: {told}")
    assert len(done.stderr.splitlines()) == 1


def test_a_photo_that_is_none_is_told_before_the_name_of_its_result(folder: Path) -> None:
    Path("photo.jpg").write_bytes(b"%PDF-1.7 and so on")
    for name in ("nowhere.jpg", "photo.jpg", "http://127.0.0.1:9/a.jpg"):
        done = runner.invoke(app, ["animate", name, "--yaw", "10", "-o", "out.png"])
        assert done.exit_code == 3, done.output
        assert "out.png" not in done.stderr
    forgotten = runner.invoke(app, ["animate", str(folder / "face.png"), "-o", "out.png"])
    assert "is a photo: give a driver too" in forgotten.stderr


def test_a_first_look_is_no_larger_than_the_face(folder: Path) -> None:
    done = told(
        *("animate", folder / "face.png", folder / "clip.mp4", "--preview", "0.1"),
        *("--weights", "none", "-q"),
    )
    assert not [note for note in done["notes"] if "super-resolution" in note]


def test_what_is_transparent_is_told(folder: Path) -> None:
    face = Image.open(folder / "face.png").convert("RGBA")
    face.putpixel((0, 0), (0, 0, 0, 0))
    face.save("face.png")
    done = told("animate", "face.png", "--yaw", "5", "--weights", "none", "-o", "out.png", "-q")
    assert "face.png: what is transparent is shown white" in done["notes"]


def test_a_device_is_not_replaced() -> None:
    os.mkfifo("pipe.mp4")
    done = runner.invoke(app, ["animate", "a.png", "b.mp4", "-o", "pipe.mp4", "--overwrite"])
    assert (done.exit_code, "no regular file" in done.stderr) == (2, True)


def test_the_label_is_on_what_is_made(folder: Path) -> None:
    arguments = ["animate", folder / "face.png", folder / "clip.mp4", "--weights", "none", "-q"]
    pictures = []
    for marked in ("visible", "metadata"):
        told(*arguments, "--end", "0.05", "--compare", "--mark", marked, "-o", f"{marked}.mp4")
        pictures.append(decoded(Path(f"{marked}.mp4"))[0].astype(int))
    apart = np.abs(pictures[0] - pictures[1]).mean(axis=(0, 2))  # by column
    third = len(apart) // 3
    assert apart[2 * third :].mean() > 20 * apart[: 2 * third - 8].mean()
