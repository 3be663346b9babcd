"""Super-resolution after the renderer: when it comes in, and what it gets to see."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.preparation import doublings_for
from metaportrait_cli.render import enhanced as enhance
from metaportrait_cli.render.enhanced import PortraitEnhancer
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Driven, Frames
from metaportrait_cli.render.super_resolution import CompactFaces
from metaportrait_cli.render.warped import WarpRenderer
from tests.clips import decoded, scene, write_clip

SMALL = CompactSRConfig(fine_width=8, width=8, stages=2)


@pytest.fixture(scope="module")
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    crop = Crop.around(portrait_face.points)
    return Source(Path("p.png"), portrait, portrait_face, faces_seen=1, crop=crop)


@pytest.fixture(scope="module")
def frames(source: Source) -> Frames:
    """Seven pictures at 256² of a face that moves."""
    points = source.landmarks(256)[None].repeat(7, axis=0)
    points[:, :, 0] += np.arange(7, dtype=np.float32)[:, None]
    return WarpRenderer().open(source, size=256).render(Driven.of(points)).frames


def enhanced(network: CompactSR, windows: list[Frames], *, doublings: int = 1) -> Frames:
    faces = CompactFaces(network.eval().requires_grad_(False))
    enhancer = PortraitEnhancer(faces, doublings=doublings, own=256)
    return np.concatenate(list(enhancer.enhance(windows)))


def test_frames_in_are_frames_out_whatever_the_windows(frames: Frames) -> None:
    torch.manual_seed(0)
    network = CompactSR(SMALL)
    torch.nn.init.normal_(network.head.weight, std=0.02)
    together = enhanced(network, [frames])
    apart = enhanced(network, np.split(frames, [1, 5]))
    assert together.shape == (7, 512, 512, 3)
    assert np.abs(together.astype(int) - apart).max() <= 1


def test_untrained_it_enlarges(frames: Frames) -> None:
    few = frames[:2]
    plain = np.stack([cv2.resize(f, (512, 512), interpolation=cv2.INTER_CUBIC) for f in few])
    result = enhanced(CompactSR(SMALL), [few]).astype(int)
    assert np.abs(result - plain).mean() < 0.5


def test_twice(frames: Frames) -> None:
    windows = [frames[:2], frames[2:3]]
    result = enhanced(CompactSR(SMALL), windows, doublings=2)
    assert result.shape == (3, 1024, 1024, 3)
    once = enhanced(CompactSR(SMALL), windows)
    half = np.stack([cv2.resize(f, (512, 512), interpolation=cv2.INTER_AREA) for f in result])
    assert np.abs(half.astype(int) - once).mean() < 2


@pytest.mark.parametrize(
    ("size", "own", "count"),
    [(256, 256, 0), (300, 256, 0), (512, 256, 1), (640, 256, 1), (700, 256, 2), (2048, 256, 2)],
)
def test_how_often_a_picture_is_doubled(size: int, own: int, count: int) -> None:
    assert doublings_for(size, own=own) == count


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> tuple[CompactFaces, dict[str, str]]:
        return CompactFaces(CompactSR(SMALL).eval()), {"compact_sr.safetensors": "0" * 64}

    monkeypatch.setattr(enhance, "load_compact", load)


@pytest.fixture
def driver(portrait: NDArray[np.uint8], tmp_path: Path) -> Path:
    frames = [scene(portrait, [(60 + 2 * n, 20, 200)]) for n in range(5)]
    return write_clip(tmp_path / "driver.mp4", frames)


@pytest.mark.usefixtures("here")
def test_a_network_of_fixed_size_is_followed_by_it_when_asked(
    portrait_path: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WarpRenderer, "fixed_size", 256)
    monkeypatch.setattr(WarpRenderer, "keeps_detail", False)
    output = tmp_path / "out.mp4"
    options = AnimateOptions(full=False, size=512, window=2)
    report = animate(portrait_path, driver, output, options, engine=Engine("none"))
    assert [frame.shape for frame in decoded(output)] == [(512, 512, 3)] * 5
    assert "super-resolution: 256 to 512 pixels" in report.notes
    assert set(report.weights) == {"compact_sr.safetensors"}
    assert {"render", "enhance"} <= set(report.stage_ms_per_frame)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("seconds", "asked", "used"), [(9, 0, 0), (9, 1, 1), (0.1, 0, 1)])
def test_a_slow_processor_does_without_unless_asked(
    seconds: float, asked: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PortraitEnhancer, "seconds_per_frame", lambda _: seconds)
    notes: list[str] = []
    found = enhance.super_resolved(
        Rendering(WarpRenderer()),
        own=256,
        doublings=1,
        asked=bool(asked),
        device="cpu",
        precision="auto",
        on_notice=notes.append,
    )
    assert (found is not None) == bool(used)
    assert ("super-resolution: 256" in notes[0]) == bool(used)
    assert used or "9.0 s a frame" in notes[0]


@pytest.mark.usefixtures("here")
def test_moved_pixels_are_enlarged_only_when_asked(
    portrait_path: Path, driver: Path, tmp_path: Path
) -> None:
    engine = Engine("none")
    unasked = AnimateOptions(full=False)
    report = animate(portrait_path, driver, tmp_path / "a.mp4", unasked, engine=engine)
    assert "compact_sr.safetensors" not in report.weights
    asked = AnimateOptions(full=False, size=1024)
    report = animate(portrait_path, driver, tmp_path / "b.mp4", asked, engine=engine)
    assert any("super-resolution" in note for note in report.notes)
    assert [frame.shape for frame in decoded(tmp_path / "b.mp4")] == [(1024, 1024, 3)] * 5


def test_without_its_weights_the_picture_is_enlarged_plainly(
    portrait_path: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise WeightsError("compact_sr: not here")

    monkeypatch.setattr(enhance, "load_compact", missing)
    options = AnimateOptions(full=False, size=1024)
    report = animate(portrait_path, driver, tmp_path / "out.mp4", options, engine=Engine("none"))
    assert "enlarged without super-resolution: compact_sr: not here" in report.notes
