"""Super-resolution after the renderer: when it comes in, and what it gets to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact import CompactConfig, CompactModel
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.pipeline.animate import AnimateOptions, animate, doublings_for
from metaportrait_cli.render import enhanced as enhance
from metaportrait_cli.render.enhanced import PortraitEnhancer
from metaportrait_cli.render.learned import LearnedRenderer, Moved
from metaportrait_cli.render.named import Rendering
from metaportrait_cli.render.protocol import Session
from metaportrait_cli.render.super_resolution import CompactFaces
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights.store import save_networks
from tests.clips import decoded, scene, write_clip

SMALL = CompactSRConfig(fine_width=8, width=8, stages=2)


@pytest.fixture(scope="module")
def source(portrait: NDArray[np.uint8], portrait_face: Face) -> Source:
    crop = Crop.around(portrait_face.points)
    return Source(Path("p.png"), portrait, portrait_face, faces_seen=1, crop=crop)


@pytest.fixture(scope="module")
def session(source: Source) -> Session:
    return LearnedRenderer(CompactModel(CompactConfig.small())).open(source, size=256)


def driven(source: Source, count: int) -> NDArray[np.float32]:
    points = source.landmarks(256)[None].repeat(count, axis=0)
    points[:, :, 0] += np.arange(count, dtype=np.float32)[:, None]
    return points


def enhanced(
    network: CompactSR,
    session: Session,
    source: Source,
    *,
    windows: list[int],
    doublings: int = 1,
) -> NDArray[np.uint8]:
    faces = CompactFaces(network.eval().requires_grad_(False))
    enhancer = PortraitEnhancer(faces, doublings=doublings, own=256)
    points = driven(source, sum(windows))

    def rendered() -> Iterator[Moved]:
        start = 0
        for count in windows:
            yield enhancer.window(session, points[start : start + count])
            start += count

    return np.concatenate(list(enhancer.enhance(rendered(), source)))


def referring() -> CompactSR:
    """A network that takes over the whole of the reference's detail, and nothing else."""
    network = CompactSR(SMALL)
    with torch.no_grad():
        assert network.head.bias is not None
        network.head.bias.view(4, 4)[3] = 1  # channel 3 of each of the four phases
    return network


def test_frames_in_are_frames_out_whatever_the_windows(session: Session, source: Source) -> None:
    torch.manual_seed(0)
    network = CompactSR(SMALL)
    torch.nn.init.normal_(network.head.weight, std=0.02)
    together = enhanced(network, session, source, windows=[7])
    apart = enhanced(network, session, source, windows=[1, 4, 2])
    assert together.shape == (7, 512, 512, 3)
    assert np.abs(together.astype(int) - apart).max() <= 1


def test_untrained_it_enlarges(session: Session, source: Source) -> None:
    frames = session.render(driven(source, 2))
    plain = np.stack([cv2.resize(f, (512, 512), interpolation=cv2.INTER_CUBIC) for f in frames])
    result = enhanced(CompactSR(SMALL), session, source, windows=[2]).astype(int)
    assert np.abs(result - plain).mean() < 0.5


def test_the_source_lends_its_detail_where_it_moved(source: Source) -> None:
    """The same as the composite of `learned.at_full_size`, nearly: the source at full size."""
    large = cv2.resize(source.picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, large.shape), (0, 0), 0.8)
    points = source.face.points * 4
    face = replace(source.face, points=points)
    picture = np.clip(large + grain, 0, 255).astype(np.uint8)
    detailed = replace(source, picture=picture, face=face, crop=Crop.around(points))
    session = LearnedRenderer(CompactModel(CompactConfig.small())).open(detailed, size=256)
    plain = enhanced(CompactSR(SMALL), session, detailed, windows=[3]).astype(float)
    ours = enhanced(referring(), session, detailed, windows=[3]).astype(float)
    sharp = WarpRenderer().open(detailed, size=512).render(driven(detailed, 3) * 2)
    middle = (slice(None), slice(150, 350), slice(180, 330))
    before, after = (np.abs(frames - sharp)[middle].mean() for frames in (plain, ours))
    assert after < 0.7 * before


def test_twice(session: Session, source: Source) -> None:
    result = enhanced(referring(), session, source, windows=[2, 1], doublings=2)
    assert result.shape == (3, 1024, 1024, 3)
    once = enhanced(referring(), session, source, windows=[2, 1])
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


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "w.safetensors"
    save_networks(path, {"compact": CompactModel(CompactConfig.small())}, architecture="compact")
    return str(path)


@pytest.mark.usefixtures("here")
def test_a_network_of_fixed_size_is_followed_by_it_when_asked(
    portrait_path: Path, driver: Path, weights: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    options = AnimateOptions(weights=weights, full=False, size=512, window=2)
    report = animate([portrait_path], driver, output, options)
    assert [frame.shape for frame in decoded(output)] == [(512, 512, 3)] * 5
    assert "super-resolution: 256 to 512 pixels" in report.notes
    assert set(report.weights) == {"w.safetensors", "compact_sr.safetensors"}
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
    portrait_path: Path, driver: Path, weights: str, tmp_path: Path
) -> None:
    for number, name in enumerate((weights, "none")):
        unasked = AnimateOptions(weights=name, full=False)
        report = animate([portrait_path], driver, tmp_path / f"{number}.mp4", unasked)
        assert "compact_sr.safetensors" not in report.weights
    asked = AnimateOptions(weights="none", full=False, size=1024)
    report = animate([portrait_path], driver, tmp_path / "b.mp4", asked)
    assert any("super-resolution" in note for note in report.notes)
    assert [frame.shape for frame in decoded(tmp_path / "b.mp4")] == [(1024, 1024, 3)] * 5


def test_without_its_weights_the_picture_is_enlarged_plainly(
    portrait_path: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise WeightsError("compact_sr: not here")

    monkeypatch.setattr(enhance, "load_compact", missing)
    options = AnimateOptions(weights="none", full=False, size=1024)
    report = animate([portrait_path], driver, tmp_path / "out.mp4", options)
    assert "enlarged without super-resolution: compact_sr: not here" in report.notes
