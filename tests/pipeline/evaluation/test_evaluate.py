"""Evaluation: which frames, which values, and what stops it."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from metaportrait_cli.cli.app import app
from metaportrait_cli.errors import MediaError, NoFaceError, UsageError, WeightsError
from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from metaportrait_cli.pipeline.evaluation.sampling import find_clips, pick_runs, sample_runs
from tests.clips import scene, write_clip


@pytest.fixture(scope="module")
def evaluated(driver_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    sheet = tmp_path_factory.mktemp("sheet") / "sheet.png"
    return evaluate([driver_path], EvaluateOptions(frames=8), sheet=sheet), sheet


@pytest.mark.parametrize(
    ("first", "stop", "frames", "wanted"),
    [(1, 101, 24, 6), (0, 24, 24, 6), (1, 11, 24, 2), (3, 7, 4, 1), (0, 3, 4, 0), (5, 405, 9, 2)],
)
def test_runs_are_even_and_apart(first: int, stop: int, frames: int, wanted: int) -> None:
    runs = sample_runs(first=first, stop=stop, frames=frames)
    assert len(runs) == wanted
    numbers = list(chain.from_iterable(runs))
    assert len(set(numbers)) == 4 * wanted
    assert all(first <= number < stop for number in numbers)
    starts = np.diff([run.start for run in runs])
    assert len(starts) == 0 or starts.max() - starts.min() <= 1


def test_runs_are_picked_whole_or_not_at_all() -> None:
    runs = [range(2, 6), range(8, 12)]
    numbered = ((n, f"frame {n}") for n in range(11))
    assert list(pick_runs(numbered, runs)) == [[f"frame {n}" for n in range(2, 6)]]


def test_frames_after_the_last_run_are_not_asked_for() -> None:
    asked = []
    numbered = ((n, asked.append(n)) for n in range(100))
    assert len(list(pick_runs(numbered, [range(4)]))) == 1
    assert max(asked) <= 4


def test_warp_beats_the_copy(evaluated: tuple[Evaluation, Path]) -> None:
    values = evaluated[0].clips[0].values
    assert values["none"]["psnr"] > values["copy"]["psnr"] + 0.5
    assert values["none"]["ssim"] > values["copy"]["ssim"]
    for metric in ("lpips_like", "mouth_lpips_like", "eyes_lpips_like", "aed", "apd"):
        assert values["none"][metric] < values["copy"][metric], metric
    assert values["none"]["landmark_distance"] < values["copy"]["landmark_distance"] / 2
    for method in ("copy", "none"):
        assert 0 < values[method]["identity_distance"] < 0.06
        assert values[method]["faces_lost"] == 0


def test_the_copy_stands_still(evaluated: tuple[Evaluation, Path]) -> None:
    values = evaluated[0].clips[0].values
    assert values["copy"]["warping_error_still"] == 0
    assert values["copy"]["landmark_jitter"] == 0
    assert values["copy"]["warping_error"] > values["truth"]["warping_error"]
    assert values["truth"]["warping_error_still"] > values["truth"]["warping_error"]


def test_tells_what_arrives_of_the_expression(evaluated: tuple[Evaluation, Path]) -> None:
    values = evaluated[0].clips[0].values
    gains = [name for name in values["none"] if name.startswith("gain_")]
    assert len(gains) == len([name for name in values["none"] if name.startswith("correlation_")])
    for name in gains:
        assert values["copy"][name] == 0, name


def test_result_is_plain_and_complete(evaluated: tuple[Evaluation, Path]) -> None:
    done = json.loads(json.dumps(evaluated[0].as_json()))
    assert done["mode"] == "self"
    assert done["clips"][0]["frames"] == 8
    assert list(done["summary"]) == ["truth", "copy", "none", "compact"]
    mean = done["clips"][0]["values"]["none"]["psnr"]
    assert done["summary"]["none"]["psnr"] == {"mean": mean, "low": mean, "high": mean}


def test_sheet_shows_the_clip(evaluated: tuple[Evaluation, Path]) -> None:
    image = np.asarray(Image.open(evaluated[1]))
    assert image.shape == (160 + 2 * 18, 7 * 160, 3)  # the source, and two moments
    # Source, then truth and warp side by side: alike, not the same.
    source, truth, warp = (image[36:, k * 160 : (k + 1) * 160].astype(int) for k in range(3))
    assert 0 < np.abs(truth - warp).mean() < 20
    assert source.std() > 20


def test_cross_keeps_the_source(
    portrait: NDArray[np.uint8], driver_path: Path, tmp_path: Path
) -> None:
    still = scene(portrait, [(60, 20, 200)], width=320, height=240)
    clip = write_clip(tmp_path / "portrait.mp4", [still] * 6)
    done = evaluate([clip, driver_path], EvaluateOptions(mode="cross", frames=4))
    by_driver = {Path(result.driver).stem: result for result in done.clips}
    assert by_driver["driver"].source == str(clip)
    assert by_driver["portrait"].source == str(driver_path)
    for result in done.clips:
        values = result.values["none"]
        assert values["identity_distance"] < values["driver_identity_distance"]
        assert values["leakage_share"] < 0.5
        assert "psnr" not in values
        assert set(result.values["driven"]) < set(values)


def test_cross_needs_two_people(driver_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two people"):
        evaluate([driver_path, driver_path], EvaluateOptions(mode="cross", frames=4))


def test_faceless_clip_stops_with_its_exit_code(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "grey.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 6)
    with pytest.raises(NoFaceError, match=r"grey\.mp4"):
        evaluate([clip])
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--json"])
    assert done.exit_code == 4
    assert done.stdout == ""
    assert "grey.mp4" in done.stderr


def test_short_clip_is_refused(portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    frames = [scene(portrait, [(60, 20, 200)])] * 4
    clip = write_clip(tmp_path / "short.mp4", frames)
    with pytest.raises(MediaError, match="fewer than 4 frames"):
        evaluate([clip])


def test_bad_options_and_paths(tmp_path: Path, driver_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights of that name"):
        evaluate([driver_path], EvaluateOptions(weights=("best",)))
    with pytest.raises(UsageError, match="none of self, cross"):
        EvaluateOptions(mode="both")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(UsageError, match="less than a run"):
        EvaluateOptions(frames=3)
    with pytest.raises(MediaError, match="no clip found"):
        find_clips([tmp_path])
    with pytest.raises(MediaError, match="no such file"):
        find_clips([tmp_path / "missing"])


@pytest.mark.data
def test_the_networks_beat_the_warp_and_the_warp_the_copy_on_real_clips(data_folder: Path) -> None:
    clips = find_clips([data_folder / "clips" / "test"])[::9]
    summary = evaluate(clips, EvaluateOptions(frames=8)).summary()
    assert summary["none"]["psnr"].mean > summary["copy"]["psnr"].mean
    assert summary["none"]["mouth_lpips_like"].mean < summary["copy"]["mouth_lpips_like"].mean
    assert summary["none"]["landmark_distance"].mean < 5
    for metric in ("lpips_like", "mouth_lpips_like", "eyes_lpips_like", "warping_error"):
        assert summary["compact"][metric].mean < summary["none"][metric].mean, metric
