"""What only turned heads need is made while the driver is still looked at."""

from __future__ import annotations

import numpy as np

from metaportrait_cli.face.face import Face
from metaportrait_cli.pipeline.driver import FRAMES_BETWEEN_TURNS, TURN, _Turning
from tests.face.test_correspondence import turned


def test_a_turn_is_told_once(portrait_face: Face) -> None:
    told: list[int] = []
    number = 0
    turning = _Turning(lambda: told.append(number))
    degrees = [0.0, 0.4, -0.5, 0.9, 1.3, -1.3, 0.0]
    for number, share in enumerate(np.repeat(degrees, FRAMES_BETWEEN_TURNS)):
        angle = float(np.degrees(TURN) * share)
        turning.look(turned(portrait_face.points, degrees=angle), number)
    assert told == [4 * FRAMES_BETWEEN_TURNS]
