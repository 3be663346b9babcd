"""The student's network: what it costs, and what it shows before it has learnt anything."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metaportrait_cli.networks.student import FLOW_UNIT, LANDMARKS, Student, StudentConfig

TINY = StudentConfig(size=64, coarse=16, terms=4, code=8, fields=6, features=4, width=8)


def test_it_is_small_at_256_and_at_512() -> None:
    for size in (256, 512):
        student = Student(StudentConfig(size=size)).eval()
        landmarks = torch.zeros(1, LANDMARKS, 3)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            picture = student(landmarks, student.pictures_at(size))
        assert picture.shape == (1, 3, size, size)
        assert counter.get_total_flops() / 2 < 0.4e9
        assert sum(value.numel() for value in student.parameters()) < 2.4e6


def test_untaught_it_shows_its_first_picture_where_the_fields_move_it() -> None:
    student = Student(TINY).eval()
    student.pictures.random_(0, 256, generator=torch.Generator().manual_seed(0))
    own = student.pictures_at(64)
    with torch.no_grad():
        student.base[4:] = -30  # neither of the others
        still = student(torch.zeros(2, LANDMARKS, 3), own)
        student.base[0] = 8 / 32 / FLOW_UNIT  # eight pixels further right, everywhere
        moved = student(torch.zeros(2, LANDMARKS, 3), own)
        half = student(torch.zeros(1, LANDMARKS, 3), student.pictures_at(32))
    assert torch.allclose(still, own[:1].expand(2, -1, -1, -1), atol=1e-5)
    assert torch.allclose(moved[..., :-8], still[..., 8:], atol=1e-5)
    assert half.shape == (1, 3, 32, 32)


def test_sizes_must_go_together() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        StudentConfig(size=96, coarse=16)
    with pytest.raises(ValueError, match="must be a picture"):
        StudentConfig(pictures=0)
