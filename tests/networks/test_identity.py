"""The identity network equals dlib's, tells people apart, and can be trained through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.convert.dlib_resnet import read_dlib_resnet
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.identity import ALIGNMENT_POINTS, chip_to_picture, cut_chips, embed
from metaportrait_cli.metrics.identity import identity_distance, other_person
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network
from tests.clips import decoded

# The sample portrait's aligned face, and what dlib 20.0.1 with the original file makes of it.
GOLDEN = Path(__file__).with_name("dlib_golden.npz")


@pytest.fixture(scope="module")
def network() -> IdentityNetwork:
    path = bundled_path("identity.safetensors")
    return load_network(IdentityNetwork, path, part="identity").float()


def face_of(network: IdentityNetwork, image: NDArray[np.uint8]) -> Tensor:
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
        face = detector.search(image)[0]
    return embed(network, image[None], face.points[None])[0]


def test_equals_dlib(network: IdentityNetwork) -> None:
    golden = np.load(GOLDEN)
    with torch.no_grad():
        ours = network(as_tensor(golden["chip"][None]))
    theirs = torch.from_numpy(golden["embedding"])[None]
    assert float(identity_distance(ours.double(), theirs.double())) < 1e-6
    assert float((ours - theirs).abs().max()) < 1e-3


def test_chip_is_the_one_given_to_dlib(portrait: NDArray[np.uint8], portrait_face: Face) -> None:
    matrix = torch.from_numpy(chip_to_picture(portrait_face.points))[None]
    chip = cut_chips(as_tensor(portrait[None]), matrix)
    golden = as_tensor(np.load(GOLDEN)["chip"][None])
    assert float((chip - golden).abs().mean()) < 2 / 255


def test_chip_places_the_eyes_as_dlib_does(portrait_face: Face) -> None:
    """A turned, scaled and shifted face comes out upright: x and y can't be swapped."""
    matrix = chip_to_picture(portrait_face.points)
    turn = np.array([[0.0, -3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0]], np.float32)
    moved = portrait_face.points @ turn.T + np.array([700, 40, 0], np.float32)
    for points, to_picture in ((portrait_face.points, matrix), (moved, chip_to_picture(moved))):
        inverse = np.linalg.inv(np.vstack([to_picture, [0, 0, 1]]))[:2]
        seen = points[list(ALIGNMENT_POINTS), :2]
        left, _, right, _, nose = seen @ inverse[:, :2].T + inverse[:, 2]
        assert left == pytest.approx((111, 46), abs=4)
        assert right == pytest.approx((37, 46), abs=4)
        assert nose == pytest.approx((74, 88), abs=6)


def test_same_person_is_near_and_another_far(
    network: IdentityNetwork, portrait: NDArray[np.uint8], driver_path: Path
) -> None:
    own = face_of(network, portrait)
    smaller = face_of(network, np.ascontiguousarray(portrait[:400:2, 50:450:2]))
    mirrored = face_of(network, np.ascontiguousarray(portrait[:, ::-1]))
    other = face_of(network, decoded(driver_path)[0])
    assert float(identity_distance(own, smaller)) < 0.03
    assert float(identity_distance(own, mirrored)) < 0.03
    assert float(identity_distance(own, other)) > 0.1
    assert not other_person(own, smaller)
    assert other_person(own, other)


def test_gradient_reaches_the_picture(
    network: IdentityNetwork, portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    pictures = as_tensor(portrait[None]).requires_grad_()
    matrix = torch.from_numpy(chip_to_picture(portrait_face.points))[None]
    network(cut_chips(pictures, matrix)).square().sum().backward()
    assert pictures.grad is not None
    x, y = portrait_face.points[1, :2].astype(int)
    assert pictures.grad[0, :, y - 20 : y + 20, x - 20 : x + 20].abs().max() > 0
    assert pictures.grad[0, :, -60:].abs().max() == 0  # far below the face


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.dat"
    path.write_bytes(b"\x01\x05con_4" + bytes(300))
    with pytest.raises(WeightsError, match="is not dlib's face recognition network"):
        read_dlib_resnet(path)
