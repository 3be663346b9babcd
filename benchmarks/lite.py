"""The lite few-shot talking heads and MegaPortraits, trained on many people for minutes of a CPU.

    python -m benchmarks.lite WHICH PREPARED -o RUN [--minutes 30] [--precision bf16]

WHICH is one of `RUNS`. Networks are those of `train fewshot` and `train mega` with `--config lite`;
batches and rates are for hundreds of steps instead of 100,000, which is enough to see what learns
in which order and to fill the tables of `benchmarks/fewshot_table.py` and `evaluate`, not for
pictures that anybody would use. A run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from metaportrait_cli.training.fewshot import FewShotTraining, train_fewshot
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.mega.base import MegaTraining, train_mega
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights import bundled_path

FEWSHOT = replace(
    FewShotTraining.lite(),
    batch=2,
    steps=1500,
    lr=1e-3,
    d_lr=5e-4,
    betas=(0.5, 0.99),
    warm_up=30,
    average=0.985,
).feed_forward()
MEGA = replace(
    MegaTraining.lite(),
    batch=1,
    lr=7e-4,
    betas=(0.5, 0.99),
    decay=0.0,
    warm_up=30,
    plateau=0.6,
    average=0.98,
)
"""A step without the cosine loss takes half of the time: twice as many"""
RUNS: dict[str, FewShotTraining | MegaTraining] = {
    "fewshot": FEWSHOT,
    "mega": replace(MEGA, steps=150),
    "mega-no-cosine": replace(MEGA, steps=300).without_cosine(),
}


def main() -> None:
    """Trains, and prints a line a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=RUNS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    chosen = parser.parse_args()
    options = RunOptions(
        precision=chosen.precision, minutes=chosen.minutes, save_minutes=2.0, judge_every=300
    )
    perceptual = PerceptualLoss.load(bundled_path("mobilenet"))
    config = RUNS[chosen.which]
    shared = {"options": options, "perceptual": perceptual, "on_record": told}
    if isinstance(config, FewShotTraining):
        train_fewshot(config, chosen.data, chosen.output, **shared)
    else:
        train_mega(config, chosen.data, chosen.output, **shared)


def told(record: Record) -> None:
    """Prints a line of the log."""
    print(record, flush=True)


if __name__ == "__main__":
    main()
