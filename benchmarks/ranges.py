"""What goes into the convolutions of the bundled mouth and eyes: makes `weights/ranges.json` anew.

    python -m benchmarks.ranges CLIP … [--output weights/ranges.json]

Needed whenever these networks change: ranges go by the digest of a convolution's weights, and one
without any is computed with fractions, which takes twice as long where a CPU has instructions for
bytes (`networks/swift/quantized.py`). Give clips of many people whom the networks learnt from; each
is driven by itself and by the next one, for half a second. Prints how far what is computed with
bytes is from what is computed with fractions, on a quarter of the patches, from which no range is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.animate import ROOT
from metaportrait_cli.errors import MetaPortraitError
from metaportrait_cli.face.regions import KINDS
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.networks.swift.machine import Machine
from metaportrait_cli.networks.swift.program import Program
from metaportrait_cli.networks.swift.quantized import convolutions, quantized
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.ranges import RANGES
from metaportrait_cli.weights.shelf import WeightsShelf

SECONDS = 0.5
EVERY = 3
"""Of the patches of a window one in so many is kept: neighbours are alike."""
MOST_PATCHES = 96
LEAST_WEIGHTS = 10_000
"""Of a convolution with fewer bytes save nothing; so are all that see pixels or give them."""
QUANTILE = 0.9999
"""Of a patch's values: what is larger is cut off, and all others are rounded less."""

Patch = list[NDArray[Any]]
"""What one run of a network is given"""


def patches_of(clips: Sequence[Path]) -> dict[str, list[Patch]]:
    """What networks are given while each clip drives its own first frame and the next clip's."""
    seen: dict[str, list[Patch]] = defaultdict(list)
    call = SwiftFunction.__call__

    def noting(self: Any, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        if self._name in KINDS:
            for n in range(0, max(map(len, inputs)), EVERY):
                seen[self._name].append([np.array(x[n % len(x)], np.float32) for x in inputs])
        return call(self, *inputs)

    SwiftFunction.__call__ = noting
    try:
        with tempfile.TemporaryDirectory() as folder, Engine(precision="fp32") as engine:
            output = Path(folder) / "out.mp4"
            for number, driver in enumerate(clips):
                for source in {driver, clips[(number + 1) % len(clips)]}:
                    try:
                        options = AnimateOptions(end=SECONDS)
                        animate(source, driver, output, options, engine=engine, overwrite=True)
                    except MetaPortraitError as error:
                        print(f"left out: {error}", flush=True)
    finally:
        SwiftFunction.__call__ = call
    return seen


def ranges_of(program: Program, patches: Sequence[Patch]) -> dict[str, float]:
    """The largest that goes into each convolution with enough weights, by the key of these."""
    ncnn: Any = import_module("ncnn")
    net = ncnn.Net()
    net.opt.lightmode = False  # blobs within are kept
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        weights.write_bytes(program.weights)
        assert not net.load_param_mem(program.text)  # noqa: S101  it has run before
        assert not net.load_model(str(weights))  # noqa: S101
    found = {key: each for key, each in convolutions(program).items() if each.size >= LEAST_WEIGHTS}
    largest = dict.fromkeys(found, 0.0)
    for patch in patches:
        run = net.create_extractor()
        for number, values in enumerate(patch):
            run.input(f"in{number}", ncnn.Mat(np.ascontiguousarray(values)).clone())
        for key, convolution in found.items():
            blob = np.abs(np.array(run.extract(convolution.takes)[1]))
            largest[key] = max(largest[key], float(np.quantile(blob, QUANTILE)))
    return {key: round(value, 4) for key, value in largest.items() if value}


def noise(program: Program, ranges: dict[str, float], patches: Sequence[Patch]) -> list[float]:
    """By output: the error of bytes, in shares of what varies."""
    exact, rounded = Machine(program), Machine(quantized(program, ranges))
    errors = []
    for patch in patches:
        pairs = zip(rounded(patch), exact(patch), strict=True)
        errors.append([float(np.sqrt(((a - b) ** 2).mean()) / b.std()) for a, b in pairs])
    return np.mean(errors, axis=0).tolist()


def main() -> None:
    """Writes the file; prints a line a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=ROOT / "weights" / RANGES)
    chosen = parser.parse_args()
    seen = patches_of(chosen.clips)
    shelf = WeightsShelf(bundled_path("compact"))
    listed = {}
    for kind in KINDS:
        program = shelf.get(kind)
        if program is None:
            raise SystemExit(f"{kind}: ncnn doesn't run it here")
        order = np.random.default_rng(0).permutation(len(seen[kind]))
        patches = [seen[kind][n] for n in order[:MOST_PATCHES]]
        held = patches[::4]
        listed[kind] = ranges_of(program, [p for n, p in enumerate(patches) if n % 4])
        errors = ", ".join(f"{each:.1%}" for each in noise(program, listed[kind], held))
        print(f"{kind}: {len(listed[kind])} convolutions, {len(patches)} patches; error {errors}")
    chosen.output.write_text(json.dumps(listed, indent=2) + "\n")


if __name__ == "__main__":
    main()
