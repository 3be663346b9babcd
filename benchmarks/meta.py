"""How fast a person is learnt, from two starts (paper, Figure 7): distance against steps.

    python benchmarks/meta.py RUN compact.safetensors meta.safetensors [--people 8]

RUN is the folder of a `train regions` run. People that it kept aside are learnt by the steps that
`personalize` takes and judged on patches whose targets, a third of them, were not learnt from:
LPIPS-like distance by SqueezeNet, mean over people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from metaportrait_cli.face.regions import KINDS, Kind
from metaportrait_cli.metrics.perceptual import lpips_like
from metaportrait_cli.networks.mouth import REGION_NETWORKS
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.training.adapt import Adaptation, AdaptConfig
from metaportrait_cli.training.data.patches import Patches, as_tensors
from metaportrait_cli.training.meta import patches_of, people_with_patches
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

CPU = torch.device("cpu")
STEPS = (0, 5, 10, 20, 33, 50, 75, 100)


def main() -> None:
    """Prints the two curves as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("starts", nargs="+", type=Path)
    parser.add_argument("--people", type=int, default=8)
    chosen = parser.parse_args()
    patches = {kind: Patches.load(chosen.run / "patches" / "judged", kind) for kind in KINDS}
    people = people_with_patches(patches)[: chosen.people]
    network = load_network(SqueezeNet, bundled_path("squeezenet"), part="squeezenet").float()
    perceptual = PerceptualLoss.load(bundled_path("mobilenet"))

    @torch.no_grad()
    def judge(adapted: RegionNetwork, held: Patches) -> float:
        inputs, target, identity = as_tensors(held, np.arange(len(held.inputs)), device=CPU)
        image = adapted.eval()(inputs, identity).image.clamp(0, 1)
        return float(lpips_like(network, image, target).mean())

    print("| start | region |", " | ".join(map(str, STEPS)), "|")
    print("|---" * (2 + len(STEPS)) + "|")
    for start in chosen.starts:
        networks: dict[Kind, RegionNetwork] = {
            kind: load_network(REGION_NETWORKS[kind], start, part=kind).float() for kind in KINDS
        }
        curves = []
        for person in people:
            own = {kind: apart(each) for kind, each in patches_of(patches, person).items()}
            curves.append(
                curve(
                    Adaptation(
                        networks,
                        {kind: learnt for kind, (learnt, _) in own.items()},
                        config=AdaptConfig(),
                        perceptual=perceptual,
                        device=CPU,
                        seed=0,
                    ),
                    {kind: held for kind, (_, held) in own.items()},
                    judge,
                )
            )
        for kind in KINDS:
            means = [np.mean([found[step][kind] for found in curves]) for step in STEPS]
            cells = " | ".join(f"{value:.4f}" for value in means)
            print(f"| {start.stem} | {kind} | {cells} |", flush=True)


def curve(
    under_way: Adaptation,
    held: Mapping[Kind, Patches],
    judge: Callable[[RegionNetwork, Patches], float],
) -> dict[int, dict[Kind, float]]:
    """How near the networks come to a person's held patches after so many steps on the others."""
    found = {}
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            found[step] = {
                kind: judge(network, held[kind]) for kind, network in under_way.adapted().items()
            }
        under_way.advance()
    return found


def apart(patches: Patches) -> tuple[Patches, Patches]:
    """A person's patches to learn from and to judge by; no target is in both."""
    flat = np.asarray(patches.target).reshape(len(patches.target), -1)
    found, which = np.unique(flat, axis=0, return_inverse=True)
    held = which >= len(found) - max(1, len(found) // 3)
    learnt, judged = (
        replace(
            patches,
            inputs=patches.inputs[chosen],
            target=patches.target[chosen],
            person=patches.person[chosen],
        )
        for chosen in (~held, held)
    )
    return learnt, judged


if __name__ == "__main__":
    main()
