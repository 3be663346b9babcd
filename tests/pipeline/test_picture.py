"""A picture as driver gives a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.topology import head_axes
from metaportrait_cli.motion.alignment import vector_of
from metaportrait_cli.pipeline.animate import animate, default_output
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from tests.clips import decoded


def test_pose_and_expression_of_a_picture(
    portrait_path: Path, driver_path: Path, tmp_path: Path
) -> None:
    frame = decoded(driver_path)[-1]
    driver = tmp_path / "look.png"
    Image.fromarray(frame).save(driver)
    output = tmp_path / "result.jpg"
    with Engine("none") as engine:
        report = animate(portrait_path, driver, output, AnimateOptions(), engine=engine)
        shown = np.asarray(Image.open(output))
        faces = [engine.detector.search(p)[0].points[None] for p in (shown, frame)]
    assert report.frames == 1
    assert report.inputs["driver"] == str(driver)
    assert shown.shape == np.asarray(Image.open(portrait_path)).shape
    turn = head_axes(faces[0]) @ np.swapaxes(head_axes(faces[1]), 1, 2)
    assert np.degrees(np.linalg.norm(vector_of(turn))) < 6


def test_the_result_is_named_as_a_picture(portrait_path: Path, tmp_path: Path) -> None:
    assert default_output(Path("me.jpg"), portrait_path) == Path("me--portrait.png")
    with pytest.raises(UsageError, match=r"\.png"), Engine("none") as engine:
        animate(portrait_path, portrait_path, tmp_path / "out.mp4", engine=engine)
