"""Runs that are broken off go on where they were, with the same pictures and sound."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import NoFaceError, UsageError
from metaportrait_cli.face.track import FaceChoice
from metaportrait_cli.media.probe import probe
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.pipeline import sightings, work
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.report import RunReport
from metaportrait_cli.pipeline.upscale import UpscaleOptions, upscale
from metaportrait_cli.render import enhanced
from metaportrait_cli.render.protocol import Driven, Rendered
from metaportrait_cli.render.super_resolution import CompactFaces
from metaportrait_cli.render.warped import WarpRenderer, WarpSession
from tests.clips import decoded, scene, write_clip

Image = NDArray[np.uint8]
FRAMES = 14
SMALL = AnimateOptions(full=False, size=128, window=3)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("none") as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four frames."""
    monkeypatch.setattr(work, "PIECE_SECONDS", Fraction(4, 25))
    monkeypatch.setattr(work, "QUICK_PIECES", 1)


@pytest.fixture(scope="module")
def driver(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [scene(portrait, [(60 + 2 * i, 20, 200)]) for i in range(FRAMES)]
    sound = ("-f", "lavfi", "-t", "0.6", "-i", "sine=f=440:r=48000")
    path = tmp_path_factory.mktemp("resume") / "moving.mp4"
    return write_clip(path, frames, inputs=sound)


@pytest.fixture
def run(engine: Engine, portrait_path: Path, driver: Path) -> Callable[..., RunReport]:
    """Animates the portrait into a file."""

    def animated(
        output: Path, options: AnimateOptions = SMALL, source: Path = portrait_path, **more: Any
    ) -> RunReport:
        return animate([source], driver, output, options, engine=engine, **more)

    return animated


class PowerCutError(Exception):
    """No error that anyone expects."""


def cut_at(
    frame: int, stages: Sequence[str] = ("render", "upscale")
) -> Callable[[str, int, int | None], None]:
    def progress(stage: str, done: int, _total: int | None) -> None:
        if stage in stages and done == frame:
            raise PowerCutError

    return progress


def same(first: Path, second: Path) -> None:
    frames, others = decoded(first), decoded(second)
    assert len(frames) == len(others) == FRAMES
    for frame, other in zip(frames, others, strict=True):
        np.testing.assert_array_equal(frame, other)
    assert [track.codec for track in probe(second).audio] == ["aac"]


@pytest.mark.parametrize("cuts", [[1, 6], [4, 9, 14]])
def test_animate_goes_on(cuts: list[int], run: Callable[..., RunReport], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    options = replace(SMALL, compare=True)
    run(whole, options)
    for frame in cuts:
        with pytest.raises(PowerCutError):
            run(broken, options, begun="resume", on_progress=cut_at(frame))
        assert not broken.exists()
    report = run(broken, options, begun="resume")
    assert report.frames == FRAMES
    assert report.resumed_at == max(cuts) // 4 * 4
    same(whole, broken)
    assert sorted(os.listdir(tmp_path)) == ["broken.mp4", "whole.mp4"]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each frame that faces are looked for in."""
    frames: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> sightings.Glance:
        frames.append(len(frames))
        return glance(*args, **kwargs)

    glance = sightings._glance
    monkeypatch.setattr(sightings, "_glance", counted)
    # None is looked at before what the last one shows is told.
    monkeypatch.setattr("metaportrait_cli.pipeline.driver.prefetched", lambda items, **_: items)
    return frames


def test_looking_for_landmarks_goes_on(
    run: Callable[..., RunReport], tmp_path: Path, looked_at: list[int]
) -> None:
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    run(whole)
    for frame, new in ((3, 3), (6, 6), (13, 9), (14, 2)):
        looked_at.clear()
        with pytest.raises(PowerCutError):
            run(broken, begun="resume", on_progress=cut_at(frame, ["landmarks"]))
        assert len(looked_at) == new
    job = tmp_path / ".broken.mp4.work"
    (job / "seen-000002.npz").write_bytes(bytes(9))  # a power cut
    looked_at.clear()
    run(broken, begun="resume")
    assert len(looked_at) == FRAMES - 8
    same(whole, broken)
    assert sorted(os.listdir(tmp_path)) == ["broken.mp4", "whole.mp4"]


def test_nothing_is_kept_of_a_clip_without_the_face(
    run: Callable[..., RunReport], tmp_path: Path
) -> None:
    with pytest.raises(NoFaceError):
        run(tmp_path / "a.mp4", AnimateOptions(face=FaceChoice(3)))
    assert os.listdir(tmp_path) == []


def test_super_resolution_goes_on(
    portrait_path: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = CompactSR(CompactSRConfig(fine_width=8, width=8, stages=2)).eval()
    torch.nn.init.normal_(network.head.weight, std=0.02)
    faces = CompactFaces(network.requires_grad_(False))
    monkeypatch.setattr(enhanced, "load_compact", lambda *_, **__: (faces, {}))
    monkeypatch.setattr(WarpRenderer, "fixed_size", 64)
    options = AnimateOptions(full=False, size=128, window=3)
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    with Engine("none") as engine:
        animate([portrait_path], driver, whole, options, engine=engine)
        for frame in (5, 10):
            with pytest.raises(PowerCutError):
                animate(
                    [portrait_path],
                    driver,
                    broken,
                    options,
                    engine=engine,
                    begun="resume",
                    on_progress=cut_at(frame),
                )
        rendered: list[int] = []

        def stream(session: WarpSession, windows: Iterable[Driven]) -> Iterator[Rendered]:
            for driven in windows:
                rendered.extend(driven.numbers.tolist())
                yield session.render(driven)

        monkeypatch.setattr(WarpSession, "stream", stream)
        report = animate([portrait_path], driver, broken, options, engine=engine, begun="resume")
    assert report.resumed_at == 8
    assert rendered == list(range(6, FRAMES))
    same(whole, broken)


def test_what_was_begun_is_of_one_job(
    run: Callable[..., RunReport], portrait_path: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.mp4"
    with pytest.raises(PowerCutError):
        run(output, on_progress=cut_at(10))
    with pytest.raises(UsageError, match="begun and not finished; `resume`"):
        run(output)
    with pytest.raises(UsageError, match=r"its size was 128 and is 64"):
        run(output, replace(SMALL, size=64), begun="resume")
    other = tmp_path / "other.png"
    other.write_bytes(portrait_path.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="its input 2 was"):
        run(output, source=other, begun="resume")
    job = tmp_path / ".a.mp4.work" / "job.json"
    job.write_text("{")
    with pytest.raises(UsageError, match="can't be read"):
        run(output, begun="resume")
    assert run(output, begun="discard").resumed_at == 0
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "other.png"]


def test_short_clips_are_made_at_once(
    run: Callable[..., RunReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PIECE_SECONDS", 5)
    with pytest.raises(PowerCutError):
        run(tmp_path / "a.mp4", on_progress=cut_at(10))
    assert os.listdir(tmp_path) == []


def test_pieces_are_longer_where_pictures_are_made_quickly(
    run: Callable[..., RunReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "QUICK_PIECES", 2)
    with pytest.raises(PowerCutError):
        run(tmp_path / "a.mp4", on_progress=cut_at(13))
    assert run(tmp_path / "a.mp4", begun="resume").resumed_at == 8


@pytest.mark.parametrize("options", [UpscaleOptions(window=2), UpscaleOptions(face_only=True)])
def test_upscale_goes_on(options: UpscaleOptions, driver: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    upscale(driver, whole, options)
    with pytest.raises(PowerCutError):
        upscale(driver, broken, options, on_progress=cut_at(13))
    report = upscale(driver, broken, options, begun="resume")
    assert report.resumed_at == 12
    same(whole, broken)
    assert sorted(os.listdir(tmp_path)) == ["broken.mp4", "whole.mp4"]
