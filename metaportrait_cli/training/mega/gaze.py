"""`train gaze`: the network that tells how eyes look (appendix B.5), and the loss made of it.

    metaportrait train gaze prepared -o gaze --config lite

The paper distils RT-GENE and RT-BENE. Ours learns what landmarks say of irises and lids, from
pictures of eyes alone and where their rims lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from metaportrait_cli.face import topology
from metaportrait_cli.motion.alignment import similarity, to_frame
from metaportrait_cli.motion.apertures import eye_openness
from metaportrait_cli.motion.morphable import MorphableModel, gaze_of
from metaportrait_cli.networks.mega.gaze import GazeConfig, GazeNetwork
from metaportrait_cli.networks.network import Network
from metaportrait_cli.training.data.pairs import Faces, is_held_out
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.architectures import GAZE
from metaportrait_cli.weights.store import load_network

PART = "gaze"
AROUND = 0.9
"""Half a side of an eye's picture, in eye widths"""
MAE, MSE = 15.0, 10.0  # weights of the paper
LAYERS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Weights of the layers in the loss, finest first"""
JUDGED = 256


@dataclass(frozen=True)
class GazeTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: GazeConfig = field(default_factory=GazeConfig.paper)
    steps: int = 56_000  # 60 epochs of 60,000 pictures
    batch: int = 64
    lr: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.999)
    average: float = 0.99

    @classmethod
    def paper(cls) -> GazeTraining:
        """VGG-16 at 64²."""
        return cls()

    @classmethod
    def lite(cls) -> GazeTraining:
        """An eighth as wide: minutes on a CPU."""
        return cls(model=GazeConfig.lite(), steps=6000)


@dataclass(frozen=True)
class Eyes:
    """What is learnt of some pictures of faces."""

    eyes: Tensor
    """(…, 2, 3, E, E) uint8: right and left"""
    points: Tensor
    """(…, 32, 2), see `key_points`"""
    gaze: Tensor
    """(…, 2): to the picture's right and down, relative to the head"""
    openness: Tensor
    """(…, 1): mean of both, in eye widths"""

    @classmethod
    def batch(cls, found: Sequence[Eyes]) -> Eyes:
        """Several, stacked."""
        each = [vars(one) for one in found]
        return cls(**{name: torch.stack([one[name] for one in each]) for name in each[0]})

    def to(self, device: torch.device) -> Eyes:
        """The same elsewhere."""
        return Eyes(**{name: value.to(device) for name, value in vars(self).items()})


class EyesDataset(Dataset[Eyes]):
    """Picture number `i` of a drawn order."""

    def __init__(
        self, faces: Faces, numbers: NDArray[np.intp], *, size: int, length: int, seed: int
    ) -> None:
        self._faces, self._numbers, self._size = faces, numbers, size
        self._length, self._seed = length, seed
        self._gaze, self._openness = looks_of(faces.points, MorphableModel.bundled())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Eyes:
        draw = np.random.default_rng((self._seed, index))
        return self.at(int(self._numbers[draw.integers(len(self._numbers))]), draw)

    def at(self, number: int, draw: np.random.Generator | None = None) -> Eyes:
        """Of one picture, in varied light and framing with `draw`."""
        image, points = self._faces.images[number], self._faces.points[number]
        gain, jitter = 1.0, np.zeros((2, 3), np.float32)
        if draw is not None:
            gain, jitter = draw.uniform(0.7, 1.3), draw.normal(0, 0.04, (2, 3))
        eyes = []
        for matrix, noise in zip(eye_matrices(points[None])[0], jitter, strict=True):
            moved = matrix.copy()
            moved[:, 2] += noise[:2] * np.abs(matrix[0, 0])
            moved[:, :2] *= 1 + noise[2]
            eyes.append(_cut(image, moved, self._size))
        light = np.clip(np.stack(eyes) * gain, 0, 255).astype(np.uint8)
        return Eyes(
            eyes=torch.from_numpy(np.ascontiguousarray(light.transpose(0, 3, 1, 2))),
            points=torch.from_numpy(key_points(points[None])[0]),
            gaze=torch.from_numpy(self._gaze[number]),
            openness=torch.from_numpy(self._openness[number]),
        )


def looks_of(
    points: NDArray[np.float32], model: MorphableModel
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gaze (N, 2) and openness (N, 1) of landmarks (N, 478, 3), both eyes' mean."""
    mesh = points[:, : topology.MESH_POINTS]
    pose = similarity(model.mean[None, : topology.MESH_POINTS], mesh, model.rigid_weight[None])
    faces = to_frame(points, *pose)
    gaze = gaze_of(faces).reshape(len(points), 2, 2).mean(axis=1)
    return gaze.astype(np.float32), eye_openness(faces).mean(1, keepdims=True).astype(np.float32)


def key_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rims of both eyes (N, 32, 2) about their middle, in distances between the eyes."""
    rims = np.concatenate([topology.ring("right_eye"), topology.ring("left_eye")])
    eyes = points[:, rims, :2]
    middle = eyes.mean(axis=1, keepdims=True)
    apart = eyes[:, :16].mean(axis=1) - eyes[:, 16:].mean(axis=1)
    unit = np.linalg.norm(apart, axis=1)[:, None, None]
    return ((eyes - middle) / unit).astype(np.float32)


def eye_matrices(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where pictures of eyes lie, (N, 2, 2, 3): places (x, y, 1) from -1 to 1 → pixels.

    Upright along the line of an eye's corners.
    """
    found = np.empty((len(points), 2, 2, 3), np.float32)
    for eye, (outer, inner) in enumerate(topology.EYE_CORNERS):
        ends = (outer, inner) if eye == 0 else (inner, outer)  # from the picture's left to right
        left, right = (points[:, end, :2] for end in ends)
        x = (right - left) * AROUND  # (N, 2)
        found[:, eye, :, 0] = x
        found[:, eye, :, 1] = x[:, ::-1] * (-1, 1)
        found[:, eye, :, 2] = (left + right) / 2
    return found


def _cut(image: NDArray[np.uint8], matrix: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """An eye's picture (size, size, 3)."""
    affine = matrix.astype(np.float64)
    affine[:, :2] *= 2 / size
    affine[:, 2] += matrix[:, :2] @ np.full(2, 1 / size - 1) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)


class EyeLoss(nn.Module):
    """L_gaze: how differently two pictures' eyes look to the gaze network."""

    def __init__(self, network: GazeNetwork) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path) -> EyeLoss:
        """By weights of `train gaze`. Raises `WeightsError`."""
        return cls(load_network(GazeNetwork, path, part=PART))

    def forward(self, image: Tensor, target: Tensor, points: Tensor, where: Tensor) -> Tensor:
        """Of pictures (B, 3, S, S) with the target's points (B, 478, 3) in pixels.

        What lies beside the eyes, where `where` (B, 1, S, S) is 0, is the target's in both.
        """
        image = where * image + (1 - where) * target
        size, side = self.network.config.eye, image.shape[-1]
        places = torch.from_numpy(eye_matrices(points.cpu().numpy())).to(image)
        places = places * (2 / side)  # pixels → [-1, 1]
        places[..., 2] -= 1
        grid = F.affine_grid(places.flatten(0, 1), [2 * len(image), 3, size, size], False)

        def seen(picture: Tensor) -> list[Tensor]:
            both = picture.repeat_interleave(2, dim=0)
            return self.network.eye(F.grid_sample(both, grid, align_corners=False))[0]

        with torch.no_grad():
            wanted = seen(target)
        layers = [
            weight * F.l1_loss(ours, theirs)
            for weight, ours, theirs in zip(LAYERS, seen(image), wanted, strict=True)
        ]
        return torch.stack(layers).sum()


def train_gaze(
    config: GazeTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card."""
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = GazeTask(config, data, place)
        return train(task, folder, options=options, place=place, on_record=on_record)


class GazeTask(Task[Eyes]):
    """Eyes of prepared pictures."""

    architecture = GAZE

    def __init__(self, config: GazeTraining, data: Path, place: Place) -> None:
        self.config = config
        self._place = place
        self._data = data.name
        faces = Faces.load(data)
        held = np.concatenate(
            [
                np.full(clip.count, is_held_out(clip.identity, share=config.held_out))
                for clip in faces.clips
            ]
        )
        size = config.model.eye
        length = config.steps * config.batch * place.world
        self._eyes = EyesDataset(
            faces, np.flatnonzero(~held), size=size, length=length, seed=config.seed
        )
        self._judged = [self._eyes.at(int(n)) for n in np.flatnonzero(held)[:JUDGED]]
        torch.manual_seed(config.seed)
        self._descent = Descent({PART: GazeNetwork(config.model)}, config, place)

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, Network]:
        return self._descent.averaged

    def batches(self, steps: range) -> Iterator[Eyes]:
        return self._place.batches(self._eyes, steps, count=self.config.batch, collate=Eyes.batch)

    def step(self, batch: Eyes, number: int) -> Terms:
        batch = batch.to(self._place.device)
        network = self._descent.networks[PART]

        def terms() -> Terms:
            gaze, openness = network(batch.eyes.float() / 255, batch.points)
            return {
                "gaze": apart(gaze.float(), batch.gaze),
                "blink": apart(openness.float(), batch.openness),
            }

        return self._descent.step(number, terms)

    @torch.no_grad()
    def judge(self) -> Scores:
        if not self._judged:
            return {}
        batch = Eyes.batch(self._judged).to(self._place.device)
        gaze, openness = self._descent.averaged[PART](batch.eyes.float() / 255, batch.points)
        found = {"gaze": (gaze, batch.gaze), "openness": (openness, batch.openness)}
        return {
            name: {
                "error": round(float((ours - true).abs().mean()), 5),
                "spread": round(float((true - true.mean(dim=0)).abs().mean()), 5),
            }
            for name, (ours, true) in found.items()
        }

    def merit(self, scores: Scores) -> float:
        return sum(each["error"] / each["spread"] for each in scores.values())

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"data": {"folder": self._data}}


def apart(found: Tensor, wanted: Tensor) -> Tensor:
    """15 MAE + 10 MSE."""
    return MAE * F.l1_loss(found, wanted) + MSE * F.mse_loss(found, wanted)
