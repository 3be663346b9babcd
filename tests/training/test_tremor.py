"""Landmarks that tremble as a detector's do."""

from __future__ import annotations

import numpy as np
import torch

from metaportrait_cli.face.face import Face
from metaportrait_cli.training.tremor import SIZE, Tremor


def test_neighbours_tremble_together_and_as_much_as_was_measured(portrait_face: Face) -> None:
    points = portrait_face.points
    drawn = Tremor(points).drawn(400, seed=1)
    width = float(np.ptp(points[:, 0]))
    assert 0.95 < float(drawn.std()) / (SIZE * width) < 1.05
    x = drawn[..., 0] / drawn[..., 0].std(0)
    lips, chin = 13, 152
    beside = int(np.argsort(np.hypot(*(points[:, :2] - points[lips, :2]).T))[1])
    assert float((x[:, lips] * x[:, beside]).mean()) > 0.7
    assert abs(float((x[:, lips] * x[:, chin]).mean())) < 0.2


def test_a_seed_draws_the_same_again_and_another_does_not(portrait_face: Face) -> None:
    tremor = Tremor(portrait_face.points)
    assert torch.equal(tremor.drawn(2, seed=3), tremor.drawn(2, seed=3))
    assert not torch.equal(tremor.drawn(2, seed=3), tremor.drawn(2, seed=4))
