"""`upscale` from end to end, and what its pictures are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError, WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.networks.regions import RegionConfig, RegionNetwork
from metaportrait_cli.networks.temporal_sr import TemporalSR, TemporalSRConfig
from metaportrait_cli.pipeline.doubling.faces_in_clip import FacesInClip, find_faces
from metaportrait_cli.pipeline.doubling.pictures import FaceAlone, WholePicture, pictures
from metaportrait_cli.pipeline.driver import shown_frames
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.upscale import UpscaleOptions, default_output, upscale
from metaportrait_cli.progress import Stopwatch, silent
from metaportrait_cli.render import face_stream
from metaportrait_cli.render.face_stream import FaceNetwork, Tape, doubled, put_back
from metaportrait_cli.render.released.networks import TemporalEnhancer
from metaportrait_cli.render.super_resolution import CompactFaces, ReleasedFaces
from metaportrait_cli.weights.store import save_networks
from tests.clips import H264, decoded, scene, write_clip

Image = NDArray[np.uint8]
LOSSLESS = ("-c:v", "libx264rgb", "-crf", "0")


class Brighter:
    """A stand-in whose work can be seen: it adds 40, and notes what came in."""

    pixels_at_once = 10**9
    reach = 0

    def __init__(self, side: int | None = None) -> None:
        self.side = side
        self.batches: list[int] = []

    def working_side(self, side: int) -> int:
        return self.side or side

    def stream(self, batches: Iterable[Image]) -> Iterator[Image]:
        for batch in batches:
            self.batches.append(len(batch))
            for picture in batch:
                yield cv2.add(doubled(picture), (40.0, 40.0, 40.0, 0.0))


def trained(seed: int = 0) -> CompactSR:
    """A network that does something: its last layer isn't zero."""
    torch.manual_seed(seed)
    network = CompactSR(CompactSRConfig(fine_width=8, width=8, stages=2))
    torch.nn.init.normal_(network.head.weight, std=0.02)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "sr.safetensors"
    save_networks(path, {"compact_sr": trained()}, architecture="compact_sr")
    return path


@pytest.fixture(scope="module")
def pair(portrait: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces that move a little, 10 lossless frames of 362 × 214, and a tone."""
    frames = [
        scene(portrait, [(2 + n, 10, 170), (190, 40 - n, 150)], width=362, height=214)
        for n in range(10)
    ]
    path = tmp_path_factory.mktemp("clips") / "pair.mkv"
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=0.4")
    return write_clip(path, frames, inputs=tone, output=(*LOSSLESS, "-c:a", "aac", "-shortest"))


@pytest.fixture(scope="module")
def pair_faces(pair: Path) -> FacesInClip:
    with Engine() as engine:
        return find_faces(pair, engine, Stopwatch(), silent, None)


def drawn(
    clip: Path,
    faces: FacesInClip,
    network: FaceNetwork | None,
    *,
    strength: float = 1.0,
    face_only: bool = False,
    window: int = 16,
) -> list[Image]:
    view = FaceAlone(faces) if face_only else WholePicture(faces)
    return list(pictures(clip, view, network, Stopwatch(), strength=strength, window=window))


def test_every_face_is_found_and_followed(pair_faces: FacesInClip) -> None:
    assert len(pair_faces.paths) == 2
    assert {(path.start, path.stop) for path in pair_faces.paths} == {(0, 10)}


def test_faces_change_and_all_else_is_plain_lanczos(pair: Path, pair_faces: FacesInClip) -> None:
    plain = [doubled(frame) for frame in decoded(pair)]
    results = drawn(pair, pair_faces, Brighter())
    assert len(results) == len(plain) == 10
    for number, (result, before) in enumerate(zip(results, plain, strict=True)):
        assert result.shape == (428, 724, 3)
        change = result.astype(int) - before
        outside = np.ones(result.shape[:2], bool)
        for path in pair_faces.paths:
            crop = path.crop(number)
            x, y, side = 2 * crop.x0, 2 * crop.y0, 2 * crop.side
            outside[max(y, 0) : y + side, max(x, 0) : x + side] = False
            middle = change[y + side // 2 - 20 : y + side // 2 + 20, x + side // 2 - 20 :][:, :40]
            assert np.median(middle) >= 38
        assert outside.mean() > 0.1
        np.testing.assert_array_equal(change[outside], 0)


def test_the_mask_has_no_edge(portrait: Image) -> None:
    picture = np.full((400, 600, 3), 100, np.uint8)
    put_back(picture, np.full((200, 200, 3), 140, np.uint8), Crop(80, 30, 100), weight=1.0)
    assert picture.max() == 140
    assert np.abs(np.diff(picture[..., 0].astype(int), axis=0)).max() <= 3
    assert np.abs(np.diff(picture[..., 0].astype(int), axis=1)).max() <= 3
    # At the picture's own border there is nothing to blend with.
    picture = np.full((400, 600, 3), 100, np.uint8)
    put_back(picture, np.full((200, 200, 3), 140, np.uint8), Crop(0, 30, 100), weight=0.5)
    assert (picture[150:170, 0] == 120).all()
    # Halfway beyond the border.
    put_back(picture, np.full((200, 200, 3), 140, np.uint8), Crop(-50, 150, 100), weight=1.0)


def test_an_untrained_network_leaves_the_picture_nearly_as_it_is(
    pair: Path, pair_faces: FacesInClip
) -> None:
    untrained = CompactFaces(CompactSR(CompactSRConfig(fine_width=8, width=8, stages=1)).eval())
    for result, frame in zip(drawn(pair, pair_faces, untrained), decoded(pair), strict=True):
        assert np.abs(result.astype(int) - doubled(frame)).mean() < 0.5


def test_strength(pair: Path, pair_faces: FacesInClip) -> None:
    plain = [doubled(frame) for frame in decoded(pair)]
    np.testing.assert_array_equal(drawn(pair, pair_faces, Brighter(), strength=0.0), plain)
    half = np.stack(drawn(pair, pair_faces, Brighter(), strength=0.5)).astype(int) - plain
    assert 18 <= half.max() <= 21


def test_windows_do_not_matter(pair: Path, pair_faces: FacesInClip) -> None:
    faces = CompactFaces(trained())
    whole, *others = (drawn(pair, pair_faces, faces, window=size) for size in (64, 1, 3))
    assert np.abs(np.stack(whole).astype(int) - [doubled(f) for f in decoded(pair)]).max() > 4
    for other in others:
        assert np.abs(np.stack(whole).astype(int) - other).max() <= 1


def test_a_window_of_frames_is_held_and_no_more(pair: Path, pair_faces: FacesInClip) -> None:
    network = Brighter()
    drawn(pair, pair_faces, network, window=4)
    assert sorted(network.batches) == [2, 2, 4, 4, 4, 4]

    reads = []

    def endless() -> Iterator[object]:
        for number in range(100):
            reads.append(number)
            yield type("Frame", (), {"image": np.full((2, 2, 3), number, np.uint8)})

    tape = Tape(endless())  # pyrefly: ignore[bad-argument-type]
    assert tape[3][0, 0, 0] == 3
    assert len(reads) == 4
    tape.release(3)
    assert tape[3][0, 0, 0] == 3
    with pytest.raises(IndexError):
        tape[0]
    with pytest.raises(IndexError):
        tape[100]


@pytest.mark.parametrize("side", [64, 320])
def test_a_network_of_its_own_size_loses_no_detail(
    pair: Path, pair_faces: FacesInClip, side: int
) -> None:
    plain = [doubled(frame) for frame in decoded(pair)]
    same = Brighter(side)
    result = np.stack(drawn(pair, pair_faces, same)).astype(int)
    change = result - plain
    path = pair_faces.paths[0]
    x, y, reach = (2 * v for v in (path.corners[0, 0], path.corners[0, 1], path.side))
    # Green and blue: red is saturated in a face.
    inner = change[0, y + reach // 3 : y + reach // 2, x + reach // 3 : x + reach // 2, 1:]
    # Where it had to be shrunk, what that took away comes back.
    assert np.abs(inner - 40).mean() < 3


def test_the_released_network_takes_part(pair: Path, pair_faces: FacesInClip) -> None:
    torch.manual_seed(0)
    network = TemporalSR(replace(TemporalSRConfig(), narrow=1 / 16)).fold()
    results = drawn(pair, pair_faces, ReleasedFaces(TemporalEnhancer(network)))
    assert len(results) == 10


def test_face_only(pair: Path, pair_faces: FacesInClip) -> None:
    results = drawn(pair, pair_faces, Brighter(), face_only=True)
    plain = drawn(pair, pair_faces, None, face_only=True)
    assert {result.shape for result in results} == {(512, 512, 3)}
    change = np.stack(results).astype(int) - plain
    assert np.median(change) == 40
    largest = max(pair_faces.paths, key=lambda path: path.side)
    crop = largest.crop(0)
    wanted = cv2.resize(
        doubled(crop.cut(decoded(pair)[0], crop.side)), (512, 512), interpolation=cv2.INTER_CUBIC
    )
    np.testing.assert_array_equal(plain[0], wanted)


def test_face_only_holds_its_place_while_there_is_no_face(
    pair: Path, pair_faces: FacesInClip
) -> None:
    found = pair_faces
    (path, _) = found.paths
    brief = replace(path, start=4, corners=path.corners[4:7], presence=path.presence[4:7])
    faces = replace(found, paths=[brief])
    results = drawn(pair, faces, Brighter(), face_only=True)
    assert len(results) == 10
    bright = [int(result.mean()) for result in results]
    assert min(bright[4:7]) > max(bright[:4] + bright[7:]) + 20


def test_the_result_keeps_frames_rate_and_sound(pair: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    report = upscale(
        pair, output, UpscaleOptions(weights=str(weights)), engine=Engine(precision="fp32")
    )
    with av.open(str(output)) as result:
        video = result.streams.video[0]
        assert (video.width, video.height, video.frames) == (724, 428, 10)
        assert video.average_rate == 25
        assert len(result.streams.audio) == 1
        assert result.metadata["comment"].startswith("AI-enhanced")
    assert report.frames == 10
    assert report.notes == []
    assert report.faces["clip"]["followed"] == 2
    assert report.faces["clip"]["frames_with_face"] == 10
    assert list(report.weights) == ["sr.safetensors"]

    # The mark stays through a second run that changes nothing.
    again = tmp_path / "again.mp4"
    upscale(output, again, UpscaleOptions(strength=0, audio=False))
    with av.open(str(again)) as result:
        assert result.metadata["comment"].startswith("AI-enhanced")
        assert not result.streams.audio


def test_no_face_is_told_and_enlarged_plainly(weights: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), np.uint8), (0, 0), 3)
    clip = write_clip(tmp_path / "grey.mp4", [noise] * 4)
    output = tmp_path / "out.mp4"
    report = upscale(clip, output, UpscaleOptions(weights=str(weights)))
    assert "no face found in any of 4 frames" in report.notes[0]
    result = decoded(output)
    assert len(result) == 4
    assert np.abs(result[0].astype(int) - doubled(decoded(clip)[0])).mean() < 2
    with pytest.raises(NoFaceError, match="`face_only`"):
        upscale(clip, tmp_path / "face.mp4", UpscaleOptions(weights=str(weights), face_only=True))
    assert not (tmp_path / "face.mp4").exists()


def test_odd_small_and_single(portrait: Image, weights: Path, tmp_path: Path) -> None:
    small = scene(portrait, [(0, 0, 64)], width=65, height=67)
    for name, frames in (("one", [small]), ("three", [small] * 3)):
        clip = write_clip(tmp_path / f"{name}.mkv", frames, output=LOSSLESS)
        output = tmp_path / f"{name}.mp4"
        report = upscale(clip, output, UpscaleOptions(weights=str(weights)))
        assert report.faces["clip"]["followed"] == 1
        assert [frame.shape for frame in decoded(output)] == [(134, 130, 3)] * len(frames)


def test_a_cut_starts_anew_and_faces_come_and_go(
    portrait: Image, weights: Path, tmp_path: Path
) -> None:
    first = [scene(portrait, [(10, 20, 200)])] * 8
    second = [scene(portrait, [(110, 30, 190)], background=10)] * 8
    clip = write_clip(tmp_path / "cut.mp4", first + [np.full_like(first[0], 240)] * 8 + second)
    output = tmp_path / "out.mp4"
    report = upscale(clip, output, UpscaleOptions(weights=str(weights), window=5))
    assert report.frames == 24
    assert report.shots == 3
    frames = [crop["frames"] for crop in report.faces["clip"]["crops"]]
    assert frames == [[0, 8], [16, 24]]


def test_variable_rate_keeps_sync(portrait: Image, weights: Path, tmp_path: Path) -> None:
    frames = [scene(portrait, [(10 + 4 * n, 20, 180)]) for n in range(12)]
    even = write_clip(tmp_path / "even.mkv", frames, output=(*H264, "-bf", "0"))
    clip = tmp_path / "vfr.mkv"
    # The second half runs at half the rate.
    write_clip(
        clip,
        decoded(even),
        output=(*H264, "-vf", "setpts='if(gt(N,5),N*2-6,N)/25/TB'", "-fps_mode", "vfr"),
    )
    output = tmp_path / "out.mp4"
    report = upscale(clip, output, UpscaleOptions(weights=str(weights)))
    assert report.frames == 17
    with av.open(str(output)) as result:
        assert result.streams.video[0].average_rate == 25
        assert result.streams.video[0].frames == 17
    assert shown_frames(np.array([0, 1, 2, 3, 5, 7]) / 25, Fraction(25)) == [0, 1, 2, 3, 3, 4, 4, 5]


def test_what_can_not_be_done_is_said_at_once(pair: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(UsageError, match="strength"):
        UpscaleOptions(strength=1.5)
    with pytest.raises(UsageError, match="window"):
        UpscaleOptions(window=0)
    with pytest.raises(WeightsError):
        upscale(pair, output, UpscaleOptions(weights=str(tmp_path / "none.safetensors")))
    animating = tmp_path / "w.safetensors"
    mouth = RegionNetwork(RegionConfig(widths=(8, 16)))
    save_networks(animating, {"mouth": mouth}, architecture="c")
    with pytest.raises(WeightsError, match="doesn't upscale"):
        upscale(pair, output, UpscaleOptions(weights=str(animating)))
    with pytest.raises(UsageError, match="device"):
        upscale(pair, output, UpscaleOptions(weights=str(weights)), engine=Engine(device="tpu"))
    with pytest.raises(UsageError, match="overwrite"):
        upscale(pair, weights, UpscaleOptions(weights=str(weights)))
    wide = write_clip(tmp_path / "wide.mkv", [np.zeros((2400, 4096, 3), np.uint8)])
    with pytest.raises(MediaError, match="8192x4800"):
        upscale(wide, output, UpscaleOptions(weights=str(weights)))
    # Of a clip so large only a smaller one is ever seen.
    wider = write_clip(
        tmp_path / "wider.avi", [np.zeros((160, 4200, 3), np.uint8)], output=("-c:v", "mjpeg")
    )
    with pytest.raises(MediaError, match="4200x160 is 8400x320"):
        upscale(wider, output, UpscaleOptions(weights=str(weights)))
    assert not output.exists()


def test_default_names() -> None:
    assert default_output(Path("a/b.webm"), face_only=False) == Path("b--2x.mp4")
    assert default_output(Path("a/b.webm"), face_only=True) == Path("b--face.mp4")


def test_detail_that_a_shrunk_crop_lost_comes_back_in_strips(
    portrait: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    crop, side = portrait[:330, :330], 96
    seen = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    seen = cv2.resize(seen, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC)
    monkeypatch.setattr(face_stream, "STRIP_PIXELS", 660 * 50)
    # A network that adds nothing takes nothing away; one that lightens does so everywhere.
    same = face_stream._with_lost_detail(seen, crop, side=side)
    np.testing.assert_array_equal(same, doubled(crop))
    lighter = face_stream._with_lost_detail(cv2.add(seen, (9, 9, 9, 0)), crop, side=side)
    unclipped = (same < 240) & (cv2.resize(seen, (660, 660)) < 240)
    assert np.abs(lighter.astype(int) - same - 9)[unclipped].max() <= 1
