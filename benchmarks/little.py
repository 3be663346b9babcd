"""Few-shot talking heads and MegaPortraits in little: trained on many people, for minutes of a CPU.

    python -m benchmarks.little WHICH PREPARED -o RUN [--minutes 10] [--precision bf16]

WHICH is one of `RUNS`. Both papers' systems took days of GPUs. These have an eighth of the lite
networks' parameters, or less, at 64 and 128 pixels (`fewshot-lite` has all of them, and takes 7
times as long): enough to see what learns in which order, and to fill the tables of
`benchmarks/fewshot_table.py` and `evaluate` with something that was trained; not enough for
pictures that anybody would use. A run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.mega import LEARNING
from metaportrait_cli.networks.fewshot import FewShotConfig
from metaportrait_cli.training.fewshot import FewShotTraining, train_fewshot
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.mega.base import MegaTraining, MegaWeights, train_mega
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights import bundled_path

FEWSHOT = FewShotTraining(
    model=FewShotConfig(
        size=64, widths=(16, 32, 64, 128), halvings=3, attention=16, attention_up=16
    ),
    shots=1,
    batch=4,
    steps=1600,
    lr=1e-3,
    d_lr=5e-4,
    # A column learns in some fourteen steps, and is to get to where embeddings are.
    columns_lr=0.02,
    betas=(0.5, 0.99),
    warm_up=50,
    average=0.99,
)
MEGA = replace(
    LEARNING, weights=MegaWeights(), steps=1200, lr=1e-3, plateau=0.6, average=0.99, held_out=0.05
)
"""Networks as in `benchmarks/mega.py`; twice as many steps without the cosine loss, for they take
half of the time"""
RUNS: dict[str, FewShotTraining | MegaTraining] = {
    "fewshot": FEWSHOT.feed_forward(),
    "fewshot-match": FEWSHOT,
    "fewshot-lite": replace(
        FEWSHOT, model=FewShotConfig.lite(), shots=4, batch=2, steps=1500, columns_lr=0.03
    ),
    "mega": replace(MEGA, steps=600),
    "mega-no-cosine": MEGA.without_cosine(),
}


def main() -> None:
    """Trains, and prints a line a report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=RUNS)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    chosen = parser.parse_args()
    options = RunOptions(
        precision=chosen.precision, minutes=chosen.minutes, save_minutes=2.0, judge_every=150
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
