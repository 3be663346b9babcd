"""The picture that shows many clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaportrait_cli.errors import UsageError
from metaportrait_cli.pipeline.evaluation.contact_sheet import CELL, LABEL, ContactSheet
from metaportrait_cli.pipeline.evaluation.evaluate import evaluate
from metaportrait_cli.pipeline.person.personalize import personalize


def test_a_sheet_has_no_columns_that_no_clip_fills(tmp_path: Path) -> None:
    red, blue = (np.full((40, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = ContactSheet(["truth", "warp"], groups=3)
    sheet.add("one", red, [[blue, blue]])
    sheet.add("two", red, [[blue, blue], [blue, red]])
    sheet.save(tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (3 * LABEL + 2 * CELL, 5 * CELL, 3)
    assert (pixels[-1, -1] == (255, 0, 0)).all()


def test_another_kind_of_picture_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="png"):
        evaluate([tmp_path / "none.mp4"], sheet=tmp_path / "sheet.txt")
    with pytest.raises(UsageError, match="png"):
        personalize(tmp_path / "p.portrait", video=tmp_path / "none.mp4", sheet="sheet.gif")
