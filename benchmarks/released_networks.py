"""What caching, folding, merging and bfloat16 are worth on the released base networks.

    python -m benchmarks.released_networks [ckpt_base.pth.tar] [--frames 3] [--rounds 2]

Runs the plain reading of the specification and our networks by turns, each in a process of its
own, on the same weights and inputs, and prints seconds per driving frame, their ratios, and how far
outputs are apart. Without a checkpoint, weights are random. CPU seconds (all threads together) tell
more than wall-clock seconds on a machine with other work to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plain_reading import generate
from metaportrait_cli.convert.base import convert_generator, refinement_keys, warping_keys
from metaportrait_cli.convert.checkpoint import read_checkpoint
from metaportrait_cli.convert.keymap import KeyMap
from metaportrait_cli.devices import keep_freed_memory
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.refinement import RefinementConfig, RefinementNetwork
from metaportrait_cli.networks.warping import WarpingConfig, WarpingNetwork

TOLERANCE = 5e-4
TARGET_RATIO = 1.6
VARIANTS = ("plain", "float32", "bfloat16")


@dataclass(frozen=True)
class Timing:
    wall: float
    """Seconds a driving frame"""
    cpu: float
    """CPU seconds a driving frame"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        timing = run(args.worker, args.checkpoint, args.frames, args.output)
        print(json.dumps(vars(timing)))
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or random_checkpoint(Path(folder) / "random.pth.tar")
        best: dict[str, Timing] = {}
        for _ in range(args.rounds):
            for variant in VARIANTS:
                command = [sys.executable, "-m", "benchmarks.released_networks", str(checkpoint)]
                command += ["--frames", str(args.frames), "--worker", variant]
                command += ["--output", str(Path(folder) / f"{variant}.pt")]
                reply = subprocess.run(command, check=True, capture_output=True, text=True)
                timing = Timing(**json.loads(reply.stdout))
                known = best.get(variant, timing)
                best[variant] = Timing(min(known.wall, timing.wall), min(known.cpu, timing.cpu))
        report(best, {v: torch.load(Path(folder) / f"{v}.pt") for v in VARIANTS})


def report(best: dict[str, Timing], images: dict[str, Tensor]) -> None:
    plain = best["plain"]
    for variant, timing in best.items():
        print(
            f"{variant:9} {timing.wall:6.2f} s/frame, {timing.cpu:6.2f} CPU s/frame; "
            f"{plain.wall / timing.wall:.2f}x wall, {plain.cpu / timing.cpu:.2f}x CPU"
        )
    difference = (images["float32"] - images["plain"]).abs().max().item()
    ratio = plain.cpu / best["float32"].cpu
    verdict = "met" if ratio >= TARGET_RATIO and difference <= TOLERANCE else "MISSED"
    print(f"float32 against plain: max abs {difference:.1e} (allowed {TOLERANCE:.0e})")
    print(f"target {TARGET_RATIO}x at equal outputs: {verdict} ({ratio:.2f}x)")
    clipped = {variant: image.clamp(0, 1) for variant, image in images.items()}
    error = (clipped["bfloat16"] - clipped["float32"]).square().mean()
    print(f"bfloat16 against float32: PSNR {-10 * torch.log10(error).item():.1f} dB")


@torch.inference_mode()
def run(variant: str, checkpoint: Path, frames: int, output: Path) -> Timing:
    state = read_checkpoint(checkpoint)["generator"]
    inputs = random_inputs()
    if variant == "plain":

        def paint() -> Tensor:
            return generate(state, inputs)["prediction"]
    else:
        keep_freed_memory()
        dtype = getattr(torch, variant)
        warping, refinement = convert_generator(
            state,
            warping=WarpingConfig.released(),
            refinement=RefinementConfig.released(),
            where=str(checkpoint),
        )
        warping.fold(dtype)
        refinement.fold(dtype)
        pictures = {"source": inputs["source"], "source_line": inputs["source_line"]}
        source = refinement.encode(**pictures, identity=inputs["source_id"])

        def paint() -> Tensor:
            line = inputs["driving_line"]
            return refinement(
                source,
                warping(**pictures, driving_line=line),
                driving_line=line,
                mouth_mask=inputs["mouth_mask"],
                gaze=inputs["driving_ldmk"][:, 29:37],
            )

    torch.save(paint(), output)  # and warms up
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(frames):
        paint()
    return Timing((time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames)


def random_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def image(width: int) -> Tensor:
        small = torch.rand(1, width, 16, 16, generator=generator)
        return torch.nn.functional.interpolate(small, size=256, mode="bilinear")

    return {
        "source": image(3),
        "source_line": image(3),
        "driving_line": image(3),
        "mouth_mask": (image(1) > 0.6).float(),
        "driving_ldmk": torch.rand(1, 58, 2, generator=generator) * 2 - 1,
        "source_id": torch.randn(1, 256, generator=generator),
    }


def random_checkpoint(path: Path) -> Path:
    torch.manual_seed(1)
    state: dict[str, Tensor] = {}
    for network, keys in (
        (WarpingNetwork(WarpingConfig.released()), warping_keys(WarpingConfig.released())),
        (RefinementNetwork(RefinementConfig.released()), refinement_keys(RefinementConfig())),
    ):
        state |= released_state(network, keys)
    torch.save({"generator": state}, path)
    return path


def released_state(network: Network, key_map: KeyMap) -> dict[str, Tensor]:
    """A network's weights under the released names: the converter's key map read backwards."""
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        sources = key_map[key]
        state |= zip(sources, value.chunk(len(sources)), strict=True)
    return {key: value.clone() for key, value in state.items()}


if __name__ == "__main__":
    main()
