"""One picture that shows source, truth and results of many clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.stills import write_still

CELL = 160
LABEL = 18
INK, PAPER = (20, 20, 20), 245


class ContactSheet:
    """A row a clip: the source, then groups of truth and results. Rows are kept small."""

    def __init__(self, group: list[str], *, groups: int) -> None:
        """`group` names the pictures of one moment; a row has up to `groups` moments."""
        self._groups = groups
        self._columns = 1 + len(group) * groups
        self._filled = 1
        self._rows = [self._labels(["source", *(group * groups)])]

    def add(self, title: str, source: NDArray[np.uint8], moments: list[list]) -> None:
        """A clip: its source (H, W, 3), and for each moment its pictures in the group's order."""
        self._rows.append(self._labels([title]))
        row = np.full((CELL, CELL * self._columns, 3), PAPER, np.uint8)
        pictures = [source, *(picture for moment in moments[: self._groups] for picture in moment)]
        for index, picture in enumerate(pictures):
            cell = cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_AREA)
            row[:, index * CELL : (index + 1) * CELL] = cell
        self._filled = max(self._filled, len(pictures))
        self._rows.append(row)

    def save(self, path: Path) -> None:
        """Writes the sheet as wide as its longest row; it appears when it is complete."""
        write_still(path, np.concatenate(self._rows)[:, : CELL * self._filled])

    def _labels(self, names: list[str]) -> NDArray[np.uint8]:
        row = np.full((LABEL, CELL * self._columns, 3), PAPER, np.uint8)
        for index, name in enumerate(names):
            place = (index * CELL + 4, LABEL - 5)
            cv2.putText(row, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
        return row
