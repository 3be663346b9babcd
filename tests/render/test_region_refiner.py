"""Repainting mouths and eyes of rendered frames, and weights that hold only some networks."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face import identity as identity_module
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.identity import Identity
from metaportrait_cli.face.regions import (
    KINDS,
    PATCHES,
    REGIONS,
    Kind,
    patch_side,
    patch_to_picture,
)
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact_warping import CompactWarping, CompactWarpingConfig
from metaportrait_cli.networks.mouth import REGION_NETWORKS, MouthNetwork
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import RegionConfig, RegionNetwork
from metaportrait_cli.networks.swift import function
from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.networks.swift.quantized import key_of
from metaportrait_cli.networks.swift.repainted import below_teeth, painted
from metaportrait_cli.render import compact
from metaportrait_cli.render.mouths.teeth import bundled_teeth
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.protocol import Driven, Frames
from metaportrait_cli.render.regions import TOGETHER, RegionRefiner
from metaportrait_cli.render.warped import RefinedWarpRenderer, WarpRenderer
from metaportrait_cli.weights.join import join_files
from metaportrait_cli.weights.store import read_header, save_networks

NOTHING = np.zeros((20, 2), np.float32)


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity()


def network(kind: Kind, *, red: float = 0.0) -> RegionNetwork:
    """One that does nothing, or adds `red` wherever it paints, with a mask of one half."""
    torch.manual_seed(0)
    config = RegionConfig(patch=PATCHES[kind], widths=(8, 8, 16), code_dim=8)
    made = REGION_NETWORKS[kind](config)
    with torch.no_grad():
        # Rows: red, green, blue, mask; columns: the four phases.
        made.head.load_state_dict(
            {
                "weight": made.head.weight,
                "bias": torch.tensor([red, 0.0, 0.0, 0.0]).repeat_interleave(4),
            }
        )
    return made


def test_untrained_it_changes_nothing(
    portrait: NDArray[np.uint8], portrait_face: Face, identity: Identity
) -> None:
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth()).of_networks(
        {kind: network(kind) for kind in KINDS}
    )
    frame = portrait.copy()
    opened = refiner.open(portrait, portrait_face.points)
    opened.repaint(frame[None], portrait_face.points[None], [NOTHING])
    np.testing.assert_array_equal(frame, portrait)


def test_all_sources_of_a_person_share_what_repaints_them(identity: Identity) -> None:
    networks = {kind: network(kind) for kind in KINDS}
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth())
    adapted = refiner.of_networks(networks)
    assert refiner.of_networks(dict(networks)) is adapted
    assert refiner.of_networks({"eyes": network("eyes")}) is not adapted


def test_for_many_sources_the_identity_network_is_loaded_once(
    portrait: NDArray[np.uint8], portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    class Counted(SwiftFunction):
        def __init__(self, make: Callable[[], Function], running: Running, *, name: str) -> None:
            loaded.append(name)
            super().__init__(make, running, name=name)

    monkeypatch.setattr(identity_module, "SwiftFunction", Counted)
    refiner = RegionRefiner({}, Identity(), teeth=bundled_teeth())
    with refiner.for_many():
        for _ in range(3):
            refiner.open(portrait, portrait_face.points)
    assert loaded == ["identity"]
    refiner.open(portrait, portrait_face.points)
    assert loaded == ["identity"] * 2


def test_it_paints_in_the_patches_alone_and_fades_out_at_their_border(
    portrait: NDArray[np.uint8], portrait_face: Face, identity: Identity
) -> None:
    points = portrait_face.points
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth()).of_networks(
        {kind: network(kind, red=-0.4) for kind in KINDS}
    )
    grey = np.full_like(portrait, 200)
    refiner.open(portrait, points).repaint(grey[None], points[None], [NOTHING])
    change = 200 - grey[..., 0].astype(int)
    assert not (200 - grey[..., 1:]).any()
    for region in REGIONS:
        matrix = patch_to_picture(points, region)
        x, y = np.rint(matrix @ (patch_side(region) / 2, patch_side(region) / 2, 1)).astype(int)
        assert change[y, x] == pytest.approx(0.5 * 0.4 * 255, abs=1)
    steps = np.abs(np.diff(change, axis=1))
    assert steps.max() < 20
    assert (change > 0).mean() < 0.2


def test_a_window_is_painted_as_its_frames_one_by_one(
    portrait: NDArray[np.uint8], portrait_face: Face, identity: Identity
) -> None:
    networks = {kind: network(kind, red=-0.2) for kind in KINDS}
    with torch.no_grad():
        for made in networks.values():
            made.head.weight += 0.02 * torch.randn_like(made.head.weight)
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth()).of_networks(networks)
    opened = refiner.open(portrait, portrait_face.points)
    count = TOGETHER + 2
    moves = np.linspace(0, 12, count, dtype=np.float32)
    driven = portrait_face.points + moves[:, None, None] * np.array([1, 0.5, 0])
    driven = driven.astype(np.float32)
    gaps = [NOTHING] * count
    window = np.stack([np.roll(portrait, t, axis=1) for t in range(count)])
    singly = window.copy()
    opened.repaint(window, driven, gaps)
    for t in range(count):
        opened.repaint(singly[t : t + 1], driven[t : t + 1], gaps[t : t + 1])
    assert (window != np.stack([np.roll(portrait, t, axis=1) for t in range(count)])).any()
    assert np.abs(window.astype(int) - singly).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_parts_of_the_first_convolution_are_the_whole(kind: Kind, identity: Identity) -> None:
    """What is drawn nowhere, somewhere, and up to the patch's corner."""
    made = network(kind)
    torch.nn.init.normal_(made.head.weight, std=0.2)
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth()).of_networks({kind: made})
    draw, size = np.random.default_rng(0), PATCHES[kind]
    patches = draw.integers(0, 256, (3, made.channels, size, size), np.uint8)
    patches[:, 3:6] = patches[:1, 3:6]
    patches[:, 9:11] = patches[:1, 9:11]
    drawn = np.zeros((3, 1, size, size), bool)
    drawn[1, :, 31:50, 20:91] = drawn[2, :, 99:, 77:] = True
    patches[:, 11:] *= drawn
    known = draw.standard_normal((1, 128), np.float32)
    own = refiner.of_source(kind, patches[0, [3, 4, 5, 9, 10]])
    found = refiner.changes(kind, patches, known, of_source=[own] * 3)
    heads = made.found(torch.from_numpy(patches) / 255, torch.from_numpy(known).expand(3, -1))[0]
    for change, head, patch in zip(found, heads.numpy(), patches, strict=True):
        wanted = painted(head, patch, keep_shown=False)
        if change.light is not None:
            wanted = below_teeth(wanted, patch, change.light)
        np.testing.assert_allclose(change.pixels, 255 * wanted, atol=0.05)


def test_a_stream_shows_what_its_windows_do(
    portrait: NDArray[np.uint8], portrait_face: Face, identity: Identity
) -> None:
    networks = {kind: network(kind, red=-0.2) for kind in KINDS}
    refiner = RegionRefiner({}, identity, teeth=bundled_teeth()).of_networks(networks)
    crop = Crop.around(portrait_face.points)
    source = Source(Path("portrait.png"), portrait, portrait_face, faces_seen=1, crop=crop)
    session = RefinedWarpRenderer(refiner).open(source, size=128, rate=Fraction(25))
    moves = np.linspace(0, 6, 9, dtype=np.float32)[:, None, None] * np.array([1, 0.5, 0])
    driven = Driven.of((source.landmarks(128) + moves).astype(np.float32))
    windows = [driven.at(slice(first, first + 2)) for first in range(0, 9, 2)]
    plain = [session.render(window).frames for window in windows]
    session.recall({})
    streamed = [rendered.frames for rendered in session.stream(windows)]
    for one, other in zip(plain, streamed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_may_hold_any_of_the_networks(
    tmp_path: Path, portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    torch.manual_seed(0)
    warping = CompactWarping(CompactWarpingConfig())
    save_networks(tmp_path / "a.safetensors", {"warping": warping}, architecture="compact")
    parts: dict[str, Network] = {kind: network(kind) for kind in KINDS}
    save_networks(tmp_path / "b.safetensors", parts, architecture="compact")
    both = join_files(
        [tmp_path / "a.safetensors", tmp_path / "b.safetensors"],
        tmp_path / "both.safetensors",
        half=True,
    )
    assert sorted(read_header(both).configs) == ["eyes", "mouth", "warping"]
    assert both.stat().st_size < 0.6 * (tmp_path / "a.safetensors").stat().st_size

    source = Source(
        Path("portrait.png"),
        portrait,
        portrait_face,
        faces_seen=1,
        crop=Crop.around(portrait_face.points),
    )
    points = source.landmarks(256)[None] + np.array([4, -3, 0], np.float32)
    plain = WarpRenderer().open(source, size=256).render(Driven.of(points)).frames
    for name, precision in (("a", "fp32"), ("both", "fp32"), ("both", "bf16")):
        path = str(tmp_path / f"{name}.safetensors")
        renderer = rendering_named(path, precision=precision).renderer
        # Untrained networks leave the analytic flow as it is, to the rounding of positions.
        found = renderer.open(source, size=256).render(Driven.of(points)).frames
        assert np.abs(found.astype(int) - plain).max() <= 2


def test_what_does_not_belong_together_is_not_joined(tmp_path: Path) -> None:
    first = tmp_path / "a.safetensors"
    save_networks(first, {"mouth": network("mouth")}, architecture="compact")
    other = tmp_path / "b.safetensors"
    save_networks(other, {"eyes": network("eyes")}, architecture="identity")
    with pytest.raises(WeightsError, match="architecture 'identity'"):
        join_files([first, other], tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match="holds mouth too"):
        join_files([first, first], tmp_path / "out.safetensors")


def test_a_network_for_other_patches_is_refused(tmp_path: Path) -> None:
    coarse = MouthNetwork(RegionConfig(patch=64, widths=(8, 16)))
    path = tmp_path / "coarse.safetensors"
    save_networks(path, {"mouth": coarse}, architecture="compact")
    with pytest.raises(WeightsError, match="paints 64 pixels where this version paints 128"):
        rendering_named(str(path))


def test_bytes_stand_in_for_fractions_unless_these_are_asked_for_or_a_person_was_learnt(
    tmp_path: Path,
    portrait: NDArray[np.uint8],
    portrait_face: Face,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = network("mouth")
    torch.nn.init.normal_(made.head.weight, std=0.02)
    path = tmp_path / "mouth.safetensors"
    save_networks(path, {"mouth": made}, architecture="compact")
    weights = (m.weight for m in made.modules() if isinstance(m, torch.nn.Conv2d))
    ranges = {key_of(weight.detach().numpy().tobytes()): 16.0 for weight in weights}
    monkeypatch.setattr(compact, "known_ranges", lambda: ranges)
    crop = Crop.around(portrait_face.points)
    source = Source(Path("portrait.png"), portrait, portrait_face, faces_seen=1, crop=crop)
    points = source.landmarks(256)[None] + np.array([4, -3, 0], np.float32)

    def frame(precision: str, *, fast: bool = True, delta: float | None = None) -> Frames:
        monkeypatch.setattr(function, "is_fast", lambda: fast)
        deltas = {} if delta is None else {"mouth.head.bias": torch.full((16,), delta)}
        renderer = rendering_named(str(path), precision=precision, deltas=deltas).renderer
        return renderer.open(source, size=256).render(Driven.of(points)).frames

    exact, rounded = frame("fp32"), frame("auto")
    difference = np.abs(rounded.astype(int) - exact)
    assert 0 < difference.max() < 16
    assert difference.mean() < 0.05
    np.testing.assert_array_equal(frame("auto", fast=False), exact)
    np.testing.assert_array_equal(frame("auto", delta=0.0), exact)
