"""What the ingredients are worth, after one short training each with the same budget.

    python -m benchmarks.ablations warp DATA RUNS [--steps 500]
    python -m benchmarks.ablations regions RUN RUNS [--steps 500]

`warp` trains the warping network on prepared data: with all it is told, with 68 of the 478
landmarks (the others follow by a thin-plate spline), and without the prior flow. `regions` trains
the networks for mouth and eyes on the patches of a `train regions` run, with and without the
source's identity embedding. Values are those of people kept aside, lower is better; runs that are
in the folder RUNS go on, finished ones are only shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.face.conditions import Condition, Conditioner
from metaportrait_cli.face.regions import KINDS
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.render.mouths.teeth import bundled_teeth
from metaportrait_cli.training.data import pairs as dataset
from metaportrait_cli.training.data.pairs import Sample
from metaportrait_cli.training.data.patches import Patches
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.regions import RegionTraining, train_regions
from metaportrait_cli.training.state import CARD
from metaportrait_cli.training.warping import WarpingTraining, train_warping
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

# The 68 points of the iBUG layout (Sagonas et al., ICCV workshops 2013) among MediaPipe's: jaw,
# brows, nose, eyes, lips.
SPARSE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
BATCH = 16

Ablation = Callable[[Sample, Conditioner, NDArray[np.float32], NDArray[np.float32]], None]


def sparse(
    sample: Sample, conditioner: Conditioner, source: NDArray[np.float32], driven: NDArray
) -> None:
    """The conditions as if only `SPARSE` had been seen of the driven points (478, 3)."""
    _put(sample, conditioner(filled_in(source, driven)))


def without_prior(
    sample: Sample, conditioner: Conditioner, source: NDArray[np.float32], driven: NDArray
) -> None:
    """The landmark image alone tells what is driven."""
    del conditioner, source, driven
    sample["flow"] = torch.zeros_like(sample["flow"])
    sample["gap"] = torch.zeros_like(sample["gap"])


ABLATIONS: dict[str, Ablation | None] = {
    "all": None,
    "68 landmarks": sparse,
    "no prior flow": without_prior,
}


def filled_in(source: NDArray[np.float32], driven: NDArray[np.float32]) -> NDArray[np.float32]:
    """Driven points (478, 3) of which all but `SPARSE` follow those by a thin-plate spline."""
    chosen = list(SPARSE)
    centre, scale = source[:, :2].mean(0), float(np.ptp(source[:, :2]))
    places = (source[:, :2].astype(np.float64) - centre) / scale

    def kernel(points: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = ((points[:, None] - places[None, chosen]) ** 2).sum(-1)
        return 0.5 * apart * np.log(np.maximum(apart, 1e-12))

    def affine(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([np.ones(len(points)), points])

    known = affine(places[chosen])
    system = np.block([[kernel(places[chosen]), known], [known.T, np.zeros((3, 3))]])
    moved = (driven - source)[chosen].astype(np.float64)
    weights = np.linalg.solve(system, np.concatenate([moved, np.zeros((3, 3))]))
    shift = np.column_stack([kernel(places), affine(places)]) @ weights
    return (source + shift).astype(np.float32)


def ablate_warp(data: Path, runs: Path, *, steps: int, perceptual: PerceptualLoss) -> None:
    """Trains the warping network with each of `ABLATIONS` and prints a table."""
    config = WarpingTraining(steps=steps, batch=BATCH, warm_up=50, average=0.995)
    whole = dataset.as_sample
    print("| warping network | ℓ1 | features | features, face |\n|---|---|---|---|")
    for name, ablation in ABLATIONS.items():
        # Samples are made in one place, in training and in judging.
        dataset.as_sample = whole if ablation is None else _ablated(whole, ablation)  # type: ignore[assignment]
        folder = runs / name.replace(" ", "-")
        card = _finished(folder, steps) or train_warping(
            config,
            data,
            folder,
            options=RunOptions(precision="bf16", judge_every=steps, save_minutes=2),
            perceptual=perceptual,
        )
        scores = card["held_out"]
        if name == "all":
            print(_row("analytic warp", scores["analytic"]))
        print(_row(name, scores["model"]), flush=True)


def ablate_regions(run: Path, runs: Path, *, steps: int, perceptual: PerceptualLoss) -> None:
    """Trains the region networks with and without identity and prints a table."""
    identity = load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()
    print("| mouth and eyes | mouth ℓ1 | features | eyes ℓ1 | features |\n|---|---|---|---|---|")
    for name in ("all", "no identity"):
        folder = runs / name.replace(" ", "-")
        for part in ("learnt", "judged"):
            if not (folder / "patches" / part / "complete").is_file():
                _copy_patches(run, folder, part, known=name == "all")
        card = _finished(folder, steps) or train_regions(
            RegionTraining(steps=steps, average=0.99, warm_up=50),
            run,
            folder,
            identity=identity,
            teeth=bundled_teeth(),
            perceptual=perceptual,
            options=RunOptions(precision="bf16", judge_every=steps),
        )
        scores = card["held_out"]
        if name == "all":
            print(_region_row("warp", scores, prefix="warped_"))
        print(_region_row(name, scores), flush=True)


def _finished(folder: Path, steps: int) -> dict[str, Any] | None:
    """The card of a run that has made its steps."""
    if not (folder / CARD).is_file():
        return None
    card: dict[str, Any] = json.loads((folder / CARD).read_text())
    return card if card["step"] == steps else None


def _copy_patches(run: Path, folder: Path, part: str, *, known: bool) -> None:
    into = folder / "patches" / part
    into.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        patches = Patches.load(run / "patches" / part, kind)
        if not known:
            patches = replace(patches, identity=np.zeros_like(patches.identity))
        patches.save(into, kind)
    (into / "complete").touch()


def _ablated(whole: Callable[..., Sample], ablation: Ablation) -> Callable[..., Sample]:
    def as_sample(conditioner: Conditioner, **told: Any) -> Sample:
        sample = whole(conditioner, **told)
        ablation(sample, conditioner, conditioner.source_points, told["points"])
        return sample

    return as_sample


def _put(sample: Sample, condition: Condition) -> None:
    sample["flow"] = torch.from_numpy(np.ascontiguousarray(condition.flow.transpose(2, 0, 1)))
    sample["lines"] = torch.from_numpy(np.ascontiguousarray(condition.lines.transpose(2, 0, 1)))
    sample["gap"] = torch.from_numpy(condition.gap)[None]


def _row(name: str, scores: Mapping[str, float]) -> str:
    values = (scores[key] for key in ("l1", "perceptual", "face_perceptual"))
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |"


def _region_row(name: str, scores: Mapping[str, Mapping[str, float]], prefix: str = "") -> str:
    values = (scores[kind][prefix + key] for kind in KINDS for key in ("l1", "perceptual"))
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |"


def main() -> None:
    """Prints one of the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["warp", "regions"])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    chosen = parser.parse_args()
    perceptual = PerceptualLoss.load(bundled_path("mobilenet"))
    if chosen.what == "warp":
        ablate_warp(chosen.data, chosen.runs, steps=chosen.steps, perceptual=perceptual)
    else:
        ablate_regions(chosen.data, chosen.runs, steps=chosen.steps, perceptual=perceptual)


if __name__ == "__main__":
    main()
