"""The person's share of each pixel of prepared pictures: found once, kept beside the shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from metaportrait_cli.face.matte import Segmenter, Silhouette, matte
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.weights import bundled_path

FILE = "mattes.safetensors"
SIDE = 128
"""Side at which they are kept; the segmenter's own picture has twice as much"""
SEGMENTER = "selfie_segmenter"


def mattes_of(
    faces: Faces,
    folder: Path,
    *,
    silhouette: Callable[[], Silhouette] = lambda: Segmenter(bundled_path(SEGMENTER)),
    on_progress: Progress = silent,
) -> NDArray[np.uint8]:
    """(N, 128, 128) in [0, 255], of all pictures of a prepared folder.

    Where no person is told apart all of the picture is taken for one.
    """
    path, count = folder / FILE, len(faces.images)
    if path.is_file():
        found = load_file(path)["mattes"]
        if len(found) == count:
            return found
    likely = silhouette()
    found = np.full((count, SIDE, SIDE), 255, np.uint8)
    for number in range(count):
        alpha = matte(faces.images[number], faces.points[number], likely)
        if alpha is not None:
            small = cv2.resize(alpha, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            found[number] = np.rint(255 * small)
        on_progress("matte", number + 1, count)
    with atomic_output(path) as partial:
        save_file({"mattes": found}, partial)
    return found
