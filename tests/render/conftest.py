"""The sample portrait's crop, for all that draws in it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.dental_arch import LOWER_LIP, UPPER_LIP
from metaportrait_cli.face.face import Face

SIZE = 512


@pytest.fixture
def points(portrait_face: Face) -> NDArray[np.float32]:
    """Of the portrait's crop, with lips that touch."""
    shut = Crop.around(portrait_face.points).to_crop(portrait_face.points, SIZE)
    shut[list(LOWER_LIP[1:-1]), 1] = shut[list(UPPER_LIP[1:-1]), 1]
    return shut


@pytest.fixture
def crop(portrait: NDArray[np.uint8], portrait_face: Face) -> NDArray[np.uint8]:
    return Crop.around(portrait_face.points).cut(portrait, SIZE)
