"""What scripts rely on in `metaportrait upscale`: exit codes, stdout, whole results or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.weights.store import save_networks
from tests.cli.test_contract import error_line, run
from tests.clips import decoded, scene, write_clip


@pytest.fixture(scope="module")
def folder(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with a face, one without, and weights."""
    folder = tmp_path_factory.mktemp("upscale")
    write_clip(folder / "face.mp4", [scene(portrait, [(30, 10, 100)], width=160, height=120)] * 3)
    write_clip(folder / "wall.mp4", [np.full((120, 160, 3), 120, np.uint8)] * 3)
    network = CompactSR(CompactSRConfig(fine_width=8, width=8, stages=1))
    save_networks(folder / "sr.safetensors", {"compact_sr": network}, architecture="compact_sr")
    (folder / "broken.safetensors").write_bytes(b"not weights")
    return folder


def test_path_on_stdout_or_the_report(folder: Path, tmp_path: Path) -> None:
    arguments = ["upscale", "-i", folder / "face.mp4", "--weights", folder / "sr.safetensors"]
    done = run([*arguments, "--report", "run.json"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "face--2x.mp4\n"
    assert "3 frames" in done.stderr
    assert decoded(tmp_path / "face--2x.mp4")[0].shape == (240, 320, 3)
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["faces"]["clip"]["followed"] == 1
    assert set(told["stage_ms_per_frame"]) >= {"landmarks", "enhance", "compose", "encode"}

    assert run(arguments, cwd=tmp_path).returncode == 2
    alone = run([*arguments, "--face-only", "--quiet", "--json"], cwd=tmp_path)
    assert alone.returncode == 0
    assert alone.stderr == ""
    assert json.loads(alone.stdout)["output"] == "face--face.mp4"
    assert decoded(tmp_path / "face--face.mp4")[0].shape == (512, 512, 3)


def test_errors_are_one_line_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    good = ["--weights", folder / "sr.safetensors"]
    for arguments, code, words in (
        (["-i", "missing.mp4", *good], 3, "missing.mp4"),
        (["-i", folder / "face.mp4", *good, "--strength", "2"], 2, "--strength 2.0"),
        (["-i", folder / "face.mp4", *good, "-o", "out.xyz"], 2, "out.xyz"),
        (["-i", folder / "face.mp4", "--weights", folder / "broken.safetensors"], 5, "broken"),
        (["-i", folder / "wall.mp4", *good, "--face-only"], 4, "no face found in any of 3"),
    ):
        done = run(["upscale", *arguments], cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert words in error_line(done)
    assert list(tmp_path.iterdir()) == []


def test_no_face_is_a_note(folder: Path, tmp_path: Path) -> None:
    weights = folder / "sr.safetensors"
    done = run(["upscale", "-i", folder / "wall.mp4", "--weights", weights], cwd=tmp_path)
    assert done.returncode == 0
    assert "note: wall.mp4: no face found in any of 3 frames; enlarged as it is" in done.stderr
    assert decoded(tmp_path / "wall--2x.mp4")[2].shape == (240, 320, 3)
