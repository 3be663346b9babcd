"""Portraits turned."""

from __future__ import annotations

from pathlib import Path

from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, evaluate
from metaportrait_cli.pipeline.evaluation.sampling import find_clips
from metaportrait_cli.pipeline.evaluation.turning import TURNS


def test_a_photo_is_judged_in_all_turns(portrait_path: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    options = EvaluateOptions(mode="turn", weights=("none",))
    done = evaluate([portrait_path], options, sheet=sheet)
    assert done.clips[0].frames == len(TURNS)
    values = done.clips[0].values
    assert values["none"]["background_motion"] < 1.5
    assert values["none"]["folded_share"] < values["none"]["stretched_share"] < 0.5
    assert 0 < values["none"]["identity_distance"] < 0.06
    assert sheet.is_file()


def test_folders_give_photos_and_clips(tmp_path: Path) -> None:
    for name in ("b.png", "a.mp4", "notes.txt", "._a.mp4"):
        (tmp_path / name).touch()
    for or_photos, names in ((True, ["a.mp4", "b.png"]), (False, ["a.mp4"])):
        assert [path.name for path in find_clips([tmp_path], or_photos=or_photos)] == names
