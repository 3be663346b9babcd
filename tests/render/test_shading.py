"""Folds and shading: told in the mesh's own coordinates, multiplied to what the warp moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import Correspondence, CorrespondenceWarp, moved_by
from metaportrait_cli.face.face import Face
from metaportrait_cli.motion.alignment import from_frame, rotation_of, to_frame
from metaportrait_cli.motion.fitting import fit_frames, fit_identity, reconstruct
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.shading import ShadingConfig, ShadingNetwork
from metaportrait_cli.render.shading.creases import creases
from metaportrait_cli.render.shading.folds import Folds
from metaportrait_cli.render.shading.light import GRID, Shading
from metaportrait_cli.render.shading.skin import SIDE, skin_map
from metaportrait_cli.render.shading.tint import Tint

SMILE = (44, 45)
Picture = NDArray[np.uint8]
Points = NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.bundled()


@pytest.fixture(scope="module")
def shading(model: MorphableModel) -> Shading:
    """Whose network darkens the whole skin with anything that an expression changes."""
    torch.manual_seed(0)
    network = ShadingNetwork(ShadingConfig(widths=(8, 8), patterns=1, hidden=8))
    with torch.no_grad():
        network.head.load_state_dict(
            {"weight": torch.zeros_like(network.head.weight), "bias": torch.tensor([-1.0])}
        )
    torch.nn.init.constant_(network.leave.weight, 1.0)
    return Shading(lambda: network, model)


def smiling(model: MorphableModel, points: Points) -> Points:
    """The face with a smile more than it has."""
    fitted = fit_frames(model, points[None], fit_identity(model, points[None]))
    amounts = np.zeros((1, len(model.blendshape_rest)), np.float32)
    amounts[:, list(SMILE)] = 0.8
    fitted.expression[:] += amounts @ model.blendshape_effect
    return reconstruct(model, fitted)[0].astype(np.float32)


def test_a_place_of_the_map_is_the_same_skin_whatever_the_face_does(
    model: MorphableModel, portrait: Picture, portrait_face: Face
) -> None:
    points, skin = portrait_face.points, skin_map(model)
    moved = smiling(model, points) + np.array([9, -6, 0], np.float32)
    warp = CorrespondenceWarp(points, side=len(portrait), fade=np.ones((256, 256), np.float32))
    frame = moved_by(portrait, warp(moved).shift)
    light, seen = skin.light(portrait, points)
    other, also = skin.light(frame, moved)
    sure = (seen > 0.9) & (also > 0.9)
    assert sure.mean() > 0.3
    assert np.median(np.abs(light - other)[sure]) < 0.02
    wrong, _ = skin.light(frame, points)
    assert np.abs(light - other)[sure].mean() < 0.5 * np.abs(light - wrong)[sure].mean()


def test_folds_are_neither_wide_nor_off_the_skin(model: MorphableModel) -> None:
    skin = skin_map(model)
    seen = skin.weight
    slope = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (SIDE, 1))
    line = np.zeros((SIDE, SIDE), np.float32)
    line[40:42, 12:20] = -1
    inside = seen == 1
    assert np.abs(skin.folds(slope + 3, seen)[inside]).max() < 0.2
    assert skin.folds(line, seen)[40, 15] < -0.7
    assert not skin.folds(line + 1, seen)[seen == 0].any()


def test_shade_beside_a_smile_gathers_in_a_fold() -> None:
    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    places = np.stack(np.meshgrid(centres, centres), axis=-1)
    seen = np.ones((SIDE, SIDE), np.float32)
    seen[:, SIDE // 2 :] = 0
    folds = Folds.of(np.full((1, SIDE, SIDE), -0.1, np.float32), seen, places)
    maps = np.zeros((3, SIDE, SIDE), np.float32)
    folds.deepen(maps, np.array([[-1.0], [1.0], [2.0]], np.float32))
    assert not maps[0].any()  # lighter skin has none
    row = maps[1, 41, : SIDE // 2]  # between the nose and the mouth's corner
    assert -0.3 < row.min() < -0.1
    assert 2 <= (row < -0.02).sum() <= 5
    assert row.max() > 0.02  # light around it
    assert abs(row.sum()) < 0.3 * -row.min()
    assert np.abs(maps[1, :, SIDE // 2 :]).max() < 1e-6  # a cheek that isn't seen
    np.testing.assert_allclose(maps[2], 2 * maps[1], atol=1e-6)


def test_without_a_change_of_expression_light_stays(
    shading: Shading, portrait: Picture, portrait_face: Face
) -> None:
    points = portrait_face.points
    opened = shading.open(portrait, points)
    model = shading.model
    fitted = fit_frames(model, points[None], fit_identity(model, points[None]))
    pose = fitted.rotation, fitted.scale, fitted.translation
    faces = to_frame(points[None], *pose)
    turned = from_frame(faces, rotation_of(np.array([[0.2, -0.1, 0.1]])) @ pose[0], *pose[1:])
    driven = np.stack([points, turned[0].astype(np.float32)])
    changes = opened.changes(driven)
    assert np.abs(changes).max() < 1e-3
    flow = CorrespondenceWarp(points, side=len(portrait), fade=np.ones((256, 256), np.float32))
    shone = opened.shine(portrait, changes[0], flow(points), points)
    np.testing.assert_array_equal(shone, portrait)


def test_an_expression_changes_the_light_of_the_skin_alone(
    shading: Shading, portrait: Picture, portrait_face: Face
) -> None:
    points = portrait_face.points
    driven = smiling(shading.model, points)
    opened = shading.open(portrait, points)
    flow = CorrespondenceWarp(points, side=len(portrait), fade=np.ones((256, 256), np.float32))
    grey = np.full_like(portrait, 128)
    change = opened.changes(driven[None])[0]
    frame = opened.shine(grey, change, flow(driven), driven).astype(int) - 128
    x, y = driven[[50, 280], :2].astype(int).T  # cheeks
    assert (np.abs(frame[y, x]) > 4).all()
    lips = driven[[13, 14], :2].astype(int)
    assert np.abs(frame[lips[:, 1], lips[:, 0]]).max() <= 1
    oval = driven[topology.ring("face_oval"), :2]
    low, high = oval.min(0).astype(int) - 2, oval.max(0).astype(int) + 3
    frame[low[1] : high[1], low[0] : high[0]] = 0
    assert not frame.any()


def test_light_goes_where_the_face_went(
    shading: Shading, portrait: Picture, portrait_face: Face
) -> None:
    """A flow that leaves the background where it is leaves its light, too."""
    points = portrait_face.points
    opened = shading.open(portrait, points)
    aside = points + np.array([200, 0, 0], np.float32)
    still = Correspondence(np.zeros((256, 256, 2), np.float32), aside[:3, :2], len(portrait))
    change = opened.changes(smiling(shading.model, points)[None])[0]
    grey = np.full_like(portrait, 128)
    shone = opened.shine(grey, change, still, aside)
    clear = int(aside[:, 0].min()) - 2
    np.testing.assert_array_equal(shone[:, :clear], grey[:, :clear])


def test_light_comes_back_to_skin_in_the_shade_alone(
    shading: Shading, portrait: Picture, portrait_face: Face
) -> None:
    """A closing lid shows skin that the source's picture hides in its dark crease."""
    points = portrait_face.points
    opened = shading.open(portrait, points)
    (x, y), (u, v) = points[[50, 280], :2].astype(int)  # cheeks
    frame = portrait.copy()
    frame[y - 3 : y + 4, x - 3 : x + 4] = 245
    frame[v - 3 : v + 4, u - 3 : u + 4] //= 2
    still = Correspondence(np.zeros((256, 256, 2), np.float32), points[:3, :2], len(portrait))
    shone = opened.shine(frame, np.full((128, 128), 0.3, np.float32), still, points)
    np.testing.assert_array_equal(shone[y, x], frame[y, x])
    assert (shone[v, u] > frame[v, u]).all()


def test_folds_open_to_the_colour_around_them_and_hair_does_not() -> None:
    crop = np.full((256, 256, 3), (210, 170, 150), np.uint8)
    crop[100:104, 60:120] = (185, 137, 115)  # a fold
    crop[180:200, 60:120] = (60, 40, 30)  # hair
    tint = Tint.of(crop, np.ones((128, 128), bool), wide=8)
    colours = tint.of_change(np.full((128, 128), 0.12, np.float32))
    opened = np.array([185, 137, 115]) * np.exp(colours[50, 45])
    red, _, blue = opened / np.array([210, 170, 150])
    assert red == pytest.approx(blue, rel=0.05)
    assert np.abs(colours[95, 45]).max() < 0.01
    # The network tells of less than a fold's depth: in the fold more of it is shown.
    little = tint.of_change(np.full((128, 128), 0.05, np.float32))
    assert little[50, 45].mean() > 1.3 * 0.05
    assert colours[20, 20].max() < 0.15
    darker = tint.of_change(np.full((128, 128), -0.2, np.float32))[20, 20]
    assert darker[0] > darker[1] > darker[2]  # redder


def test_highlights_that_go_leave_skin_and_not_grey() -> None:
    skin, glare = np.array([180, 120, 90], np.uint8), np.uint8(250)
    crop = np.full((64, 64, 3), skin)
    crop[24:40, 24:40] = glare
    tint = Tint.of(crop, np.ones((64, 64), bool), wide=8.0)
    red, _, blue = tint.of_change(np.full((64, 64), -0.3, np.float32))[32, 32]
    assert blue < 2 * red < 0, "white is to become the skin's colour"
    plain = tint.of_change(np.full((64, 64), -0.3, np.float32))[2, 2]
    assert red > plain[0], "a highlight goes less than the light of skin"


def test_grey_pictures_stay_grey(portrait: Picture) -> None:
    grey = np.repeat(portrait.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    tint = Tint.of(grey, np.ones((128, 128), bool), wide=8)
    for change in (0.2, -0.2):
        colours = tint.of_change(np.full((128, 128), change, np.float32))
        assert np.ptp(colours, axis=-1).max() < 0.01


def test_a_crease_goes_with_the_smile_and_a_mole_stays(
    shading: Shading, portrait_face: Face
) -> None:
    points = portrait_face.points
    skin = np.full((512, 512, 3), (210, 170, 150), np.uint8)
    nose, mouth = (points[number, :2].astype(int) for number in (203, 216))
    crop = cv2.line(skin.copy(), tuple(nose.tolist()), tuple(mouth.tolist()), (170, 125, 105), 2)
    crop = cv2.GaussianBlur(crop, (0, 0), 1)
    mole = points[187, :2].astype(int)
    cv2.circle(crop, tuple(mole.tolist()), 2, (120, 80, 70), -1)
    found = creases(shading.model, crop, points, grid=GRID)
    assert len(found) == 1  # the other cheek has none
    flow = CorrespondenceWarp(points, side=512, fade=np.ones((256, 256), np.float32))(points)
    x, y = ((nose + mouth) // 2).tolist()

    def depth_after(change: float) -> float:
        frame = crop.copy()
        found[0].open(frame, np.full((GRID, GRID), change, np.float32), flow, points)
        np.testing.assert_array_equal(frame[mole[1], mole[0]], crop[mole[1], mole[0]])
        np.testing.assert_array_equal(frame[:, 260:], crop[:, 260:])
        assert frame.max() <= crop.max(), "no bright line beside it"
        return 170.0 - float(frame[y - 2 : y + 3, x - 2 : x + 3, 1].min())

    assert depth_after(-0.2) == depth_after(0) > 30
    assert depth_after(0.3) < 0.5 * depth_after(0)
