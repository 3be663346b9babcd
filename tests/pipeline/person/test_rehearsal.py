from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.rehearsal import Rehearsal
from metaportrait_cli.pipeline.source import load_source
from metaportrait_cli.render.protocol import Adaptable, Driven, Warped
from metaportrait_cli.weights import bundled_path

SIZE = 128


@pytest.fixture(scope="module")
def source(portrait_path: Path) -> Source:
    """The sample, with itself mirrored for another picture."""
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
        first = load_source(portrait_path, choice=LARGEST_FACE, detector=detector)
        mirrored = np.ascontiguousarray(first.picture[:, ::-1])
        other = load_source(mirrored, choice=LARGEST_FACE, detector=detector)
    return replace(first, others=(other,))


@pytest.fixture(scope="module")
def renderer() -> Adaptable:
    adaptable = Engine("compact", device="cpu").rendering().adaptable
    assert adaptable is not None
    return adaptable


def test_a_rehearsal_shows_what_the_renderer_does(renderer: Adaptable, source: Source) -> None:
    driven = nodding(source)
    rehearsal = Rehearsal(renderer, renderer.networks)
    for lends in ("head", "face"):
        asked = replace(source, lends=lends)
        wanted = Engine("compact", device="cpu").rendering().renderer.open(asked, size=SIZE)
        found = rehearsal.open(asked, size=SIZE).render(driven).frames
        assert np.abs(found.astype(int) - wanted.render(driven).frames).max() <= 1


def test_frames_are_moved_once_for_all_ways_and_networks(
    renderer: Adaptable, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = nodding(source)
    moved: list[tuple[int, bytes]] = []
    opened = type(renderer.open_warp(source, size=SIZE))

    def counted(
        self: Warped, points: NDArray[np.float32], change: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], Correspondence]:
        moved.append((id(self), points.tobytes()))
        return original(self, points, change)

    original = opened.moved
    monkeypatch.setattr(opened, "moved", counted)
    rehearsal = Rehearsal(renderer, renderer.networks)
    for way in (rehearsal, rehearsal, rehearsal.adapted(renderer.networks)):
        for asked in (replace(source, others=()), replace(source, lends="head")):
            way.open(asked, size=SIZE).render(driven)
    assert len(moved) == len(set(moved)) <= 2 * len(driven)
    # Of pictures that lend their faces alone, the first one is moved; the rest of the others isn't.
    rehearsal.open(replace(source, lends="face"), size=SIZE).render(driven)
    assert len({session for session, _ in moved}) == 2


def nodding(source: Source) -> Driven:
    points = source.landmarks(SIZE)
    return Driven.of(np.stack([points, points + np.array([0, 3, 0], np.float32)]))
