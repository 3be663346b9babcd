from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.head_sheet import HeadFrame, HeadSheet, Layout
from metaportrait_cli.face.matte import Segmenter, matte
from metaportrait_cli.face.source import Source
from metaportrait_cli.pipeline.source import with_headroom
from metaportrait_cli.render.behind.far_side import FarSide
from metaportrait_cli.render.layered import Layers
from metaportrait_cli.render.protocol import Driven
from metaportrait_cli.render.warped import SEGMENTER, WarpRenderer
from metaportrait_cli.weights import bundled_path
from tests.face.test_correspondence import turned

SIZE = 256


def source_of(picture: NDArray[np.uint8], face: Face) -> Source:
    crop = Crop.around(face.points, within=(picture.shape[1], picture.shape[0]))
    return Source(Path("portrait.png"), picture, face, 1, crop)


@pytest.fixture(scope="module")
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    return source_of(portrait, portrait_face)


def far(source: Source) -> Driven:
    return Driven.of(turned(source.landmarks(SIZE), degrees=25)[None])


def test_a_turn_leaves_the_background_where_it_is(source: Source) -> None:
    """With one flow for everything it bends beside the head."""
    layered, sheet = WarpRenderer(), WarpRenderer()
    sheet._layers = lambda *_: None  # type: ignore[method-assign]
    crop = source.crop.cut(source.picture, SIZE).astype(int)
    alpha = matte(crop.astype(np.uint8), source.landmarks(SIZE), Segmenter(bundled_path(SEGMENTER)))
    assert alpha is not None
    away = cv2.dilate(np.uint8(alpha > 0), np.ones((51, 51), np.uint8)) == 0
    assert away.mean() > 0.05
    moved = {
        name: np.abs(r.open(source, size=SIZE).render(far(source)).frames[0][away] - crop[away])
        for name, r in (("layered", layered), ("sheet", sheet))
    }
    assert moved["layered"].max() <= 1
    assert moved["sheet"].mean() > 10 * moved["layered"].mean()


def test_a_head_that_moves_far_is_in_layers_though_it_does_not_turn(source: Source) -> None:
    session = WarpRenderer().open_warp(source, size=SIZE)
    points = source.landmarks(SIZE)
    width = HeadFrame.of(points).width
    aside = np.array([width, 0, 0], np.float32)
    near, far = ((points + share * aside).astype(np.float32)[None] for share in (0.1, 0.2))
    assert not session.move.needs_layers(near)
    assert session.move.needs_layers(far)


def test_shoulders_stand_still_in_small_pictures_too(source: Source) -> None:
    source = with_headroom(source)
    for size in (48, SIZE):
        driven = turned(source.landmarks(size), degrees=25)[None]
        frame = WarpRenderer().open(source, size=size).render(Driven.of(driven)).frames[0]
        crop = source.crop.cut(source.picture, size)
        corner = np.s_[-size // 8 :, : size // 4]
        assert np.abs(frame[corner].astype(int) - crop[corner]).mean() < 2


def test_between_one_flow_and_layers_no_hair_stays_where_the_head_was(source: Source) -> None:
    session = WarpRenderer().open_warp(source, size=SIZE)
    points = turned(source.landmarks(SIZE), degrees=10)
    opened = session.move.layers()
    assert opened is not None
    assert session.move.needs_layers(points[None])
    _, found = session.move(points)
    bare = opened.layers.sheet.layout(points, side=SIZE, grid=len(found.shift)).cover == 0
    assert bare.any()
    assert np.allclose(found.shift[bare], session.move._warp(points).shift[bare])


def test_layers_are_made_while_what_needs_none_is_drawn(source: Source) -> None:
    session = WarpRenderer().open_warp(source, size=SIZE)
    still = Driven.of(np.stack([source.landmarks(SIZE)] * 2))
    assert not session.move.needs_layers(still.landmarks)
    given = 0
    made_by: list[str] = []
    make = session.move._make_layers

    def noted() -> Layers | None:
        made_by.append(threading.current_thread().name)
        return make()

    session.move._make_layers = noted

    def windows() -> Iterator[Driven]:
        nonlocal given
        for driven in (still, still, far(source)):
            given += 1
            yield driven

    with closing(session.stream(windows())) as pictures:
        next(pictures)
        assert given == 3
        assert len(list(pictures)) == 2
    assert [name.startswith("aside") for name in made_by] == [True]


@pytest.mark.parametrize("face", [True, False])
def test_what_folds_before_something_else_has_a_clean_soft_edge(source: Source, face: bool) -> None:
    """Between two parts of the sheet there is nothing of what lies between them in the source."""
    session = WarpRenderer().open_warp(source, size=SIZE)
    opened = session.move.layers()
    assert opened is not None
    columns = np.repeat([0, 1, 2], [64, 128, 64])  # red, green, blue from left to right
    person = np.zeros((SIZE, SIZE, 4), np.uint8)
    person[..., :3] = np.eye(3, dtype=np.uint8)[columns] * 255
    person[..., 3] = 255
    layers = replace(opened.layers, person=person, twice=None)
    grid = SIZE // 2
    at = (np.arange(grid, dtype=np.float32) + 0.5) * 2
    place = np.dstack(np.meshgrid(at, at))
    behind = place[..., 0] < 0.6 * place[..., 1]  # a slanting edge
    place[..., 0] = np.where(behind, 20, 230)
    whole = np.ones((grid, grid), np.float32)
    around = behind.astype(np.float32) if face else whole
    layout = Layout(place, whole, around, np.zeros((3, 2), np.float32))
    frame = layers.composed(layout).astype(int)
    assert frame[..., 1].max() == 0
    mixed = (frame[..., 0] > 20) & (frame[..., 2] > 20)
    assert 2 <= mixed.sum(1)[SIZE // 2] <= 8
    if face:  # its edge has no stairs
        edge = frame[20:-20, :, 0].sum(1) / 255
        straight = np.polyval(np.polyfit(np.arange(len(edge)), edge, 1), np.arange(len(edge)))
        assert np.abs(edge - straight).max() < 0.8


def test_where_a_turned_face_was_nothing_of_its_shoulders_is_left(source: Source) -> None:
    """Beside its far cheek there is but background, as far as what is around tells."""
    points = turned(source.landmarks(SIZE), degrees=50)
    mesh = np.zeros((SIZE, SIZE), np.uint8)
    for corners in points[topology.triangles(), :2]:
        cv2.fillConvexPoly(mesh, np.rint(corners).astype(np.int32), 1)
    mesh[int(points[:, 1].max()) + 8 :] = 1
    crop = np.full((SIZE, SIZE, 3), 120, np.uint8)
    everywhere = np.ones((SIZE, SIZE), np.float32)
    layers = Layers.of(crop, points, alpha=mesh.astype(np.float32), loose=everywhere, plate=crop)
    assert layers.twice is not None
    assert layers.instead is not None
    shown = layers.instead[layers.twice > 0.9][:, 3]
    assert len(shown) > 20
    assert np.median(shown) == 0


def test_small_motions_need_no_layers(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = WarpRenderer()
    monkeypatch.setattr(renderer, "_layers", lambda *_: pytest.fail("layers were made"))
    points = source.landmarks(SIZE)
    frames = renderer.open(source, size=SIZE).render(Driven.of((points + 2)[None])).frames
    assert frames.shape == (1, SIZE, SIZE, 3)


def test_frames_change_steadily_where_layers_set_in(source: Source) -> None:
    size = SIZE // 2
    points = source.landmarks(size)
    turns = np.stack([turned(points, degrees=angle) for angle in np.arange(4, 20, 1.0)])
    frames = WarpRenderer().open(source, size=size).render(Driven.of(turns)).frames.astype(int)
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.max() < 2.5 * np.median(steps)


def test_without_a_silhouette_the_report_tells(source: Source, portrait_face: Face) -> None:
    heard: list[str] = []
    grey = source_of(np.full_like(source.picture, 128), portrait_face)
    session = WarpRenderer(on_notice=heard.append).open(grey, size=SIZE)
    assert session.render(far(grey)).frames.shape == (1, SIZE, SIZE, 3)
    assert len(heard) == 1
    assert "portrait.png" in heard[0]


def test_a_person_cut_off_by_the_edge_goes_on_beyond_it(source: Source) -> None:
    opened = WarpRenderer().open_warp(source, size=SIZE).move.layers()
    assert opened is not None
    person = np.zeros((SIZE, SIZE, 4), np.uint8)
    person[:, 40:100] = (250, 0, 0, 255)  # from the upper edge down
    person[12:60, 150:200] = (250, 0, 0, 255)  # begins below it
    plate = np.full((SIZE, SIZE, 3), 90, np.uint8)
    layers = replace(opened.layers, person=person, plate=plate, twice=None)
    grid = SIZE // 2
    at = (np.arange(grid, dtype=np.float32) + 0.5) * 2
    place = np.dstack(np.meshgrid(at, at - 30))  # all moves down
    whole = np.ones((grid, grid), np.float32)
    frame = layers.composed(Layout(place, whole, whole, np.zeros((3, 2), np.float32)))
    assert (frame[4:60, 44:96] == (250, 0, 0)).all()
    assert (frame[4:36, 150:200] == 90).all()
    assert (frame[50:80, 160:190] == (250, 0, 0)).all()


def test_what_a_turned_source_hides_is_mirrored_as_it_is_turned_back(source: Source) -> None:
    """A white patch where the near ear would be comes into view on the other side."""
    points = turned(source.landmarks(SIZE), degrees=25)
    head = HeadFrame.of(points)
    sign = np.sign(head.axes[2, 0])  # where the face looks
    crop = np.full((SIZE, SIZE, 3), 120, np.uint8)
    person = np.zeros((SIZE, SIZE), np.uint8)
    for corners in points[topology.triangles(), :2]:
        cv2.fillConvexPoly(person, np.rint(corners).astype(np.int32), 1)
    near = points[:, 0].argmin() if sign > 0 else points[:, 0].argmax()
    ear = points[near, :2] - (sign * 0.15 * head.width, 0)
    cv2.circle(person, np.rint(ear).astype(int).tolist(), int(0.2 * head.width), 1, -1)
    cv2.circle(crop, np.rint(ear).astype(int).tolist(), int(0.08 * head.width), (255,) * 3, -1)
    everywhere = np.ones((SIZE, SIZE), np.float32)
    layers = Layers.of(
        crop,
        points,
        alpha=person.astype(np.float32),
        loose=everywhere,
        plate=np.zeros_like(crop),
    )
    far_side = FarSide.of(layers, crop)
    assert far_side is not None
    there = far_side.before(layers.plate, points, grid=SIZE // 2)
    assert there.max() == 0  # the source as it is hides it
    back = far_side.before(layers.plate, turned(points, degrees=-25), grid=SIZE // 2)
    _, columns = np.nonzero(back[..., 0] > 200)
    assert len(columns) > 20
    middle = turned(points, degrees=-25)[:, 0].mean()
    assert (sign * (columns - middle) > 0).all()
    ahead = replace(layers, sheet=HeadSheet(source.landmarks(SIZE), everywhere, everywhere))
    assert FarSide.of(ahead, crop) is None
