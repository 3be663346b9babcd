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
        assert sum(value.numel() for value in student.parameters()) < 2.7e6


def faces(count: int) -> torch.Tensor:
    """Landmarks that lie anywhere, the same in each."""
    draw = torch.Generator().manual_seed(1)
    return torch.rand(1, LANDMARKS, 3, generator=draw).expand(count, -1, -1)


def untaught() -> Student:
    """A student that knows nothing but its pictures, and what head stands still."""
    student = Student(TINY).eval().requires_grad_(False)
    student.pictures.random_(0, 256, generator=torch.Generator().manual_seed(0))
    places = torch.cat([2 * faces(1)[0, :, :2] - 1, torch.ones(LANDMARKS, 1)], dim=1)
    student.aligner.copy_(torch.linalg.pinv(places))
    student.base[4:6] = -30  # neither of the others
    return student


def test_untaught_it_shows_its_first_picture_where_it_is_moved_to() -> None:
    student = untaught()
    own = student.pictures_at(64)
    still = student(faces(2), own)
    student.base[0] = 8 / 32 / FLOW_UNIT  # from eight pixels further right, everywhere
    moved = student(faces(2), own)
    inside = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(still[inside], own[:1].expand(2, -1, -1, -1)[inside], atol=1e-4)
    assert torch.allclose(moved[..., 2:-2, 2:-10], still[..., 2:-2, 10:-2], atol=1e-4)
    assert student(faces(1), student.pictures_at(32)).shape == (1, 3, 32, 32)


def test_what_is_rigid_moves_with_the_head() -> None:
    student = untaught()
    student.base[6] = 1
    own = student.pictures_at(64)
    aside = faces(1) + torch.tensor([8 / 64, -4 / 64, 0])
    moved = student(aside, own)
    assert torch.allclose(moved[..., 2:-6, 10:-2], own[:1, :, 6:-2, 2:-10], atol=1e-3)
    # And what it sees of the face is the same, but for where the head is.
    head, seen = student.observed(torch.cat([faces(1), aside]))
    assert torch.allclose(seen[0, :-6], seen[1, :-6], atol=1e-4)
    assert torch.allclose(head[1, 2] - head[0, 2], torch.tensor([-0.25, 0.125]), atol=1e-4)


def test_a_stranger_s_shape_is_not_seen() -> None:
    """Of shapes only the axes of the person's own motion are read; the rest says whose face it
    is."""
    student = untaught()
    draw = torch.Generator().manual_seed(2)
    axes = torch.randn(student.axes.shape, generator=draw)
    axes[2 * LANDMARKS :] = 0  # flat faces, for pose and depth
    student.axes.copy_(axes)
    for name in ("base", "fields", "features", "amounts.weight"):
        student.get_parameter(name).normal_(generator=draw)
    points = faces(1)
    # Neither the axes nor the aligner see this.
    read = torch.cat([axes[: 2 * LANDMARKS].T, torch.kron(student.aligner, torch.eye(2))])
    change = torch.randn(2 * LANDMARKS, generator=draw)
    change -= torch.linalg.pinv(read) @ (read @ change)
    stranger, moved = points.clone(), points.clone()
    stranger[..., :2] += 0.02 * change.view(LANDMARKS, 2)
    moved[..., :2] += 0.02 * torch.randn(LANDMARKS, 2, generator=draw)
    own = student.pictures_at(64)
    pictures = [student(each, own) for each in (points, stranger, moved)]
    assert torch.allclose(pictures[0], pictures[1], atol=1e-3)
    assert (pictures[0] - pictures[2]).abs().max() > 0.05


def test_no_face_at_all_is_no_crash() -> None:
    student = untaught()
    nowhere = torch.full((1, LANDMARKS, 3), torch.nan)
    assert student(nowhere, student.pictures_at(64)).shape == (1, 3, 64, 64)


def test_sizes_must_go_together() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        StudentConfig(size=96, coarse=16)
    with pytest.raises(ValueError, match="must be a picture"):
        StudentConfig(pictures=0)
