"""The released pipeline on tiny networks: folders of the authors, the bridge, super-resolution."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metaportrait_cli.errors import MediaError, UsageError, WeightsError
from metaportrait_cli.face.face import Face
from metaportrait_cli.networks.refinement import RefinementConfig, RefinementNetwork
from metaportrait_cli.networks.temporal_sr import TemporalSR, TemporalSRConfig
from metaportrait_cli.networks.warping import WarpingConfig, WarpingNetwork
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.released import networks as released
from metaportrait_cli.render.released.bridge669 import to_669
from metaportrait_cli.render.released.folder import read_map, read_source
from metaportrait_cli.render.released.networks import (
    NO_IDENTITY_NETWORK,
    ReleasedRenderer,
    TemporalEnhancer,
    has_super_resolution,
)
from metaportrait_cli.weights.store import load_network, save_networks
from tests.clips import decoded, write_clip

WARPING = WarpingConfig(
    motion_widths=(4, 4, 4, 4, 4, 4),
    motion_dim=8,
    encoder_widths=(4, 4, 4, 4, 4),
    decoder_widths=(4, 4, 4),
    modulation_hidden=4,
    spectral_norm=False,
)
REFINEMENT = RefinementConfig(
    encoder_widths=(4, 4, 4),
    decoder_widths=(4, 4, 4),
    block_widths=(6, 6, 6, 5, 5, 4, 4),
    condition_hidden=4,
    spectral_norm=False,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "released.safetensors"
    parts = {"warping": WarpingNetwork(WARPING), "refinement": RefinementNetwork(REFINEMENT)}
    save_networks(path, parts, architecture="metaportrait-released")
    return path


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


@pytest.fixture
def layout(portrait_face: Face) -> np.ndarray:
    """669 landmarks of the sample portrait."""
    return to_669(portrait_face.points / np.float32(512))


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray, layout: np.ndarray) -> Path:
    """Two driving frames of two sources in the authors' layout."""
    for key in ("0", "1"):
        Image.fromarray(np.roll(picture, int(key), axis=1)).save(tmp_path / f"src_{key}.png")
        np.save(tmp_path / f"src_{key}_ldmk.npy", layout)
        np.save(tmp_path / f"src_{key}_theta.npy", np.zeros((2, 3), np.float32))
        np.save(tmp_path / f"src_{key}_id.npy", np.full((1, 256), float(key), np.float32))
        (tmp_path / key / "ldmks").mkdir(parents=True)
        np.save(tmp_path / key / "ldmks" / f"frame{key}_ldmk.npy", layout + np.float32(0.01))
    with (tmp_path / "src_map_dict.pkl").open("wb") as file:
        pickle.dump({"frame0.png": 1, "frame1.png": 0}, file)
    return tmp_path


def test_folder_of_the_authors(folder: Path, weights: Path, layout: np.ndarray) -> None:
    renderer = ReleasedRenderer.load(weights)
    rendered = dict(renderer.render_folder(folder))
    assert list(rendered) == ["frame0", "frame1"]
    # frame0 is driven for source 1, as the map says.
    with Image.open(folder / "src_1.png") as image:
        source = renderer.encode(np.asarray(image), layout, identity=np.ones(256, np.float32))
    expected = renderer.render(source, (layout + np.float32(0.01))[None])
    assert expected.shape == (1, 256, 256, 3)
    assert expected.dtype == np.uint8
    assert np.array_equal(rendered["frame0"], expected[0])
    assert not np.array_equal(rendered["frame0"], rendered["frame1"])


def test_frames_do_not_depend_on_their_window(
    weights: Path, picture: np.ndarray, layout: np.ndarray
) -> None:
    renderer = ReleasedRenderer.load(weights)
    source = renderer.encode(picture, layout, identity=np.ones(256, np.float32))
    motion = np.stack([layout + np.float32(shift) for shift in (0, 0.02, -0.01)])
    together = renderer.render(source, motion)
    assert np.array_equal(together[1:2], renderer.render(source, motion[1:2]))


def test_identity_is_fitted_with_one_notice(
    weights: Path, portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "FIT_STEPS", 4)
    picture = np.full((256, 256, 3), 230, np.uint8)
    renderer = ReleasedRenderer.load(weights)
    points = portrait_face.points / np.float32(512)
    notices: list[str] = []
    errors: list[float] = []
    paint = RefinementNetwork.paint

    def watched(network: RefinementNetwork, *inputs: Any) -> torch.Tensor:
        image = paint(network, *inputs)
        errors.append((image - 230 / 255).abs().mean().item())
        return image

    monkeypatch.setattr(RefinementNetwork, "paint", watched)
    steps: list[int] = []
    fitted = renderer.encode(
        picture,
        points,
        on_notice=notices.append,
        on_progress=lambda _, done, total: steps.append(done),
    )
    assert notices == [NO_IDENTITY_NETWORK]
    assert steps == [1, 2, 3, 4]
    assert errors[-1] < errors[0]
    unfitted = renderer.encode(picture, points, identity=np.ones(256, np.float32))
    assert not torch.equal(fitted.state.seed, unfitted.state.seed)


def test_pixels_are_cut_not_rounded(
    weights: Path, picture: np.ndarray, layout: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = ReleasedRenderer.load(weights)
    source = renderer.encode(picture, layout, identity=np.zeros(256, np.float32))
    image = torch.full((1, 3, 256, 256), 99.9 / 255)
    image[:, 1], image[:, 2] = -0.5, 1.5
    monkeypatch.setattr(RefinementNetwork, "forward", lambda *_, **__: image)
    assert renderer.render(source, layout[None])[0, 0, 0].tolist() == [99, 0, 255]


def test_super_resolution_rounds_and_loses_no_frame(tmp_path: Path, weights: Path) -> None:
    torch.manual_seed(0)
    network = TemporalSR(TemporalSRConfig(output_size=32, style_dim=8, narrow=8 / 512))
    path = tmp_path / "sr.safetensors"
    save_networks(path, {"temporal_sr": network}, architecture="metaportrait-released")
    assert has_super_resolution(path)
    assert not has_super_resolution(weights)
    clip = list(np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8))
    enhanced = list(TemporalEnhancer.load(path).enhance(iter(clip)))
    assert len(enhanced) == 9
    tensor = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = network.eval()(tensor).clamp(0, 1).mul(255).round().permute(0, 2, 3, 1)
    difference = np.abs(np.stack(enhanced).astype(int) - expected.numpy())
    assert difference.max() <= 1
    assert difference.mean() < 0.01
    assert len(list(TemporalEnhancer.load(path, window=4).enhance(iter(clip)))) == 9


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


def test_malicious_map_is_refused_and_runs_nothing(folder: Path) -> None:
    (folder / "src_map_dict.pkl").write_bytes(pickle.dumps({"a": Evil(folder / "executed")}))
    with pytest.raises(MediaError, match="mkdir"):
        read_map(folder)
    assert not (folder / "executed").exists()


def test_map_may_be_json_or_absent(folder: Path) -> None:
    assert read_map(folder) == {"frame0.png": "1", "frame1.png": "0"}
    (folder / "src_map_dict.json").write_text(json.dumps({"frame0.png": "0"}))
    assert read_map(folder) == {"frame0.png": "0"}
    (folder / "src_map_dict.json").write_text(json.dumps([1]))
    with pytest.raises(MediaError, match="not a map"):
        read_map(folder)


def test_pictures_are_opened_as_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = folder / "src_1.png"
    Image.open(picture).convert("RGB").save(picture, "EPS")  # which Ghostscript would be run for
    with pytest.raises(MediaError, match="src_1"):
        read_source(folder, "1")
    Image.new("RGB", (300, 300)).save(picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(MediaError, match="src_1"):
        read_source(folder, "1")


@pytest.mark.parametrize("damage", ["pickled", "shape", "missing", "header", "infinite"])
def test_damaged_landmarks_are_media_errors(folder: Path, weights: Path, damage: str) -> None:
    path = folder / "src_1_ldmk.npy"
    if damage == "pickled":
        np.save(path, np.array([Evil(folder / "executed")], object), allow_pickle=True)
    elif damage == "shape":
        np.save(path, np.zeros((68, 2)))
    elif damage == "header":
        path.write_bytes(path.read_bytes().replace(b"}", b"("))
    elif damage == "infinite":
        np.save(path, np.full((669, 2), 1e300))
    else:
        path.unlink()
    with pytest.raises(MediaError, match="src_1_ldmk"):
        list(ReleasedRenderer.load(weights).render_folder(folder))
    assert not (folder / "executed").exists()


def test_animate_with_converted_weights(
    weights: Path, driver_path: Path, portrait_path: Path, tmp_path: Path
) -> None:
    """Warp, refine and super-resolution behind the same pipeline as the analytic warp."""
    torch.manual_seed(1)
    sr = TemporalSRConfig(output_size=512, style_dim=16, channel_multiplier=1, narrow=1 / 8)
    parts = {
        "warping": load_network(WarpingNetwork, weights, part="warping"),
        "refinement": load_network(RefinementNetwork, weights, part="refinement"),
        "temporal_sr": TemporalSR(sr),
    }
    with_sr = tmp_path / "with_sr.safetensors"
    save_networks(with_sr, parts, architecture="metaportrait-released")
    driver = write_clip(tmp_path / "short.mp4", decoded(driver_path)[:3])
    for path in (weights, with_sr):
        output = tmp_path / f"{path.stem}.mp4"
        options = AnimateOptions(full=False, size=256, window=4)
        report = animate(portrait_path, driver, output, options, engine=Engine(path))
        frames = decoded(output)
        assert len(frames) == 3
        assert frames[0].shape == (256, 256, 3)
        assert NO_IDENTITY_NETWORK in report.notes
        assert set(report.weights) == {path.name}
        assert ("enhance" in report.stage_ms_per_frame) == (path == with_sr)


def test_animate_folder_of_the_authors(folder: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    report = animate(None, folder, output, engine=Engine(weights))
    assert report.frames == 2
    frames = decoded(output)
    expected = dict(ReleasedRenderer.load(weights).render_folder(folder))
    assert len(frames) == 2
    assert np.abs(frames[0].astype(int) - expected["frame0"]).mean() < 6


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="identity"):
        rendering_named("identity")
    with pytest.raises(WeightsError, match="no such file"):
        rendering_named(str(tmp_path / "missing.safetensors"))
    with pytest.raises(UsageError, match="`device`"):
        rendering_named("none", device="tpu")
    with pytest.raises(UsageError, match="`precision`"):
        rendering_named("none", precision="int3")
