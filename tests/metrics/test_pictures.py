"""Likeness of pictures: known values, and order where values are not known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.convert.caffe_squeezenet import convert_squeezenet
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.face import Face
from metaportrait_cli.metrics.landmarks import landmark_distance
from metaportrait_cli.metrics.perceptual import lpips_like
from metaportrait_cli.metrics.pictures import psnr, ssim
from metaportrait_cli.metrics.regions import cut_region, eye_regions, mouth_region
from metaportrait_cli.metrics.summary import bootstrap
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network


@pytest.fixture(scope="module")
def network() -> SqueezeNet:
    path = bundled_path("squeezenet.safetensors")
    return load_network(SqueezeNet, path, part="squeezenet").float()


def blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def test_psnr_of_a_known_offset() -> None:
    truth = np.full((2, 20, 30, 3), 100, np.uint8)
    result = truth.copy()
    result[1] += 16
    values = psnr(as_tensor(result), as_tensor(truth))
    assert values[0] == 100
    assert float(values[1]) == pytest.approx(20 * np.log10(255 / 16), abs=1e-3)


def test_ssim_is_one_for_equal_and_falls_with_blur(portrait: NDArray[np.uint8]) -> None:
    pictures = np.stack([portrait, blurred(portrait, 1), blurred(portrait, 4)])
    values = ssim(as_tensor(pictures), as_tensor(np.stack([portrait] * 3)))
    assert float(values[0]) == pytest.approx(1)
    assert values[0] > values[1] > values[2]
    # Of plain pictures only the brightness term is left, by hand.
    plain = torch.full((1, 3, 16, 20), 0.5), torch.full((1, 3, 16, 20), 0.25)
    wanted = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert float(ssim(*plain)) == pytest.approx(wanted, abs=1e-4)


def test_perceptual_distance_grows_with_blur(
    network: SqueezeNet, portrait: NDArray[np.uint8]
) -> None:
    small = portrait[:256, 96:352]
    pictures = np.stack([small, *(blurred(small, sigma) for sigma in (0.7, 1.5, 3))])
    values = lpips_like(network, as_tensor(pictures), as_tensor(np.stack([small] * 4)))
    assert values[0] == 0
    assert (values.diff() > 0.01).all()
    assert values[-1] < 1


def test_perceptual_distance_minds_blur_more_than_brightness(
    network: SqueezeNet, portrait: NDArray[np.uint8]
) -> None:
    """The point of deep features: pixels say the opposite here."""
    small = portrait[:256, 96:352]
    brighter = np.clip(small.astype(int) + 20, 0, 255).astype(np.uint8)
    results = as_tensor(np.stack([blurred(small, 2), brighter]))
    truth = as_tensor(np.stack([small, small]))
    assert psnr(results, truth)[0] > psnr(results, truth)[1]
    distances = lpips_like(network, results, truth)
    assert distances[0] > 2 * distances[1]


def test_features_have_the_depths_of_lpips(network: SqueezeNet) -> None:
    maps = network(torch.rand(1, 3, 64, 96))
    assert [x.shape[1] for x in maps] == [64, 128, 256, 384, 384, 512, 512]
    assert maps[0].shape[2:] == (31, 47)


def test_another_caffe_file_is_refused(tmp_path) -> None:
    path = tmp_path / "other.caffemodel"
    path.write_bytes(b"\x0a\x03abc")
    with pytest.raises(WeightsError, match="is not SqueezeNet"):
        convert_squeezenet(path, tmp_path / "out.safetensors")


def test_regions_hold_mouth_and_eyes(portrait: NDArray[np.uint8], portrait_face: Face) -> None:
    points = portrait_face.points
    mouth, (right, left) = mouth_region(points), eye_regions(points)
    assert _holds(mouth, points[13])  # the upper lip's middle
    assert not _holds(mouth, points[168])  # between the eyes
    assert _holds(right, points[468])
    assert _holds(left, points[473])
    assert not _holds(right, points[473])
    assert right.x0 < left.x0  # the person's right eye is on the picture's left
    assert cut_region(portrait, mouth).shape == (96, 96, 3)
    # Lips are redder than the skin around the eyes.
    redness = [
        float(cut_region(portrait, region)[..., 0].mean())
        - float(cut_region(portrait, region)[..., 1].mean())
        for region in (mouth, right)
    ]
    assert redness[0] > redness[1]


def _holds(region, point: NDArray[np.float32]) -> bool:
    x, y = point[0] - region.x0, point[1] - region.y0
    return 0 <= x < region.side and 0 <= y < region.side


def test_landmark_distance_is_in_percent_of_the_eye_distance(portrait_face: Face) -> None:
    points = portrait_face.points[None]
    unit = float(np.linalg.norm(points[0, 473, :2] - points[0, 468, :2]))
    moved = points + np.array([0.03 * unit, 0.04 * unit, 9], np.float32)
    assert float(landmark_distance(moved, points)[0]) == pytest.approx(5, rel=1e-3)


def test_bootstrap_holds_the_mean_and_repeats() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    summary = bootstrap(values)
    assert summary.mean == 4
    assert 1 < summary.low < 4 < summary.high < 10
    assert bootstrap(values) == summary
    assert bootstrap([2.0]).low == bootstrap([2.0]).high == 2
