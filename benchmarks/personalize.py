"""What `personalize` brings, on clips of people: learnt from two thirds, judged on the last third.

    python benchmarks/personalize.py CLIP … [--weights FILE] [--seconds 30] [--sheet sheet.png]

`first frame` and `canvas` are one picture each, the clip's first and the one that `personalize`
chose, under the base weights (or the analytic warp); `atlas`, `weights` and `both` are what the
portrait adds. All are rendered into the canvas's crop, driven by the landmarks of the same frames.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metaportrait_cli.media.stills import write_still
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.atlas import as_source
from metaportrait_cli.pipeline.person.contest import Quality, Trial, Yardstick, video_trial
from metaportrait_cli.pipeline.person.making import Kit, portrait_of
from metaportrait_cli.pipeline.person.recording import Looker, Recording
from metaportrait_cli.pipeline.person.told import PersonalizeOptions
from metaportrait_cli.render.named import DEFAULT, NONE
from metaportrait_cli.render.protocol import Frames

LEARNT_SHARE = 2 / 3
JUDGED_FRAMES = 24
SHOWN = ("lpips_like", "mouth_lpips_like", "eyes_lpips_like", "identity_distance")


def main() -> None:
    """Prints a row a clip and the means, in Markdown; `--json` adds all values at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", default=DEFAULT)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    options = PersonalizeOptions(seconds=chosen.seconds)
    engine = Engine(chosen.weights, device="cpu")
    kit = Kit.load()
    rows: list[np.ndarray] = []
    found: dict[str, dict[str, Quality]] = {}
    for clip in chosen.clips:
        recording = Looker(engine.detector, kit.identity, kit.model).video(clip)
        qualities, pictures, adaptation = judged(recording, options, kit, engine)
        if not found:
            print("| clip |", " | ".join(qualities), "|")
            print("|---" * (1 + len(qualities)) + "|")
        found[clip.stem] = qualities
        rows += pictures
        print(row(clip.stem, list(qualities.values())), adaptation or "", flush=True)
    ways = list(next(iter(found.values())))
    means = [mean([qualities[way] for qualities in found.values()]) for way in ways]
    print(row("mean", means))
    print(row("against the first frame", means, against=means[0]))
    print(row("against the canvas", means, against=means[1]))
    if chosen.sheet:
        write_still(chosen.sheet, np.concatenate(rows))
    if chosen.json:
        values = {c: {w: vars(q) for w, q in qualities.items()} for c, qualities in found.items()}
        print(json.dumps(values))


def judged(
    recording: Recording, options: PersonalizeOptions, kit: Kit, engine: Engine
) -> tuple[dict[str, Quality], list[np.ndarray], dict[str, Any]]:
    """Quality on the last third by what was used; three rows of pictures; how it adapted."""
    count = round(LEARNT_SHARE * len(recording.looks))
    result = portrait_of(recording.part(0, count), options, kit=kit, engine=engine)
    person = result.portrait
    trial = video_trial(
        person.source, recording.part(count, len(recording.looks)), most=JUDGED_FRAMES
    )
    base, own = engine.rendering().renderer, engine.rendering(person).renderer
    lends = person.source.lends if person.source.others else None
    first = replace(trial, source=as_source(recording.looks[0], trial.source.crop))
    results: dict[str, Frames] = {
        "first frame": first.render(base, lends=None),
        "canvas": trial.render(base, lends=None),
        "atlas": trial.render(base, lends=lends),
    }
    if engine.weights != NONE:  # without adapted weights the same again
        results["weights"] = trial.render(own, lends=None)
        results["both"] = trial.render(own, lends=lends)
    yardstick = Yardstick([trial], features=kit.features, identity=kit.identity)
    qualities = {way: yardstick.measure([frames]) for way, frames in results.items()}
    return qualities, shown(trial, results), result.adaptation


def shown(trial: Trial, results: dict[str, Frames]) -> list[np.ndarray]:
    """Rows of pictures at three moments: all results, then the truth."""
    moments = np.linspace(0, len(trial.driven) - 1, 5).astype(int)[1:-1]
    return [np.concatenate([*(f[t] for f in results.values()), trial.truth[t]], 1) for t in moments]


def mean(qualities: list[Quality]) -> Quality:
    """Of several clips."""
    return Quality(*np.mean([[*vars(quality).values()] for quality in qualities], axis=0).tolist())


def row(title: str, qualities: list[Quality], *, against: Quality | None = None) -> str:
    """A line of the table: picture / mouth / eyes / identity, or their relative changes."""
    cells = []
    for quality in qualities:
        values = [getattr(quality, name) for name in SHOWN]
        if against is None:
            cells.append(" / ".join(f"{value:.3f}" for value in values))
        else:
            references = [getattr(against, name) for name in SHOWN]
            changes = [v / r - 1 for v, r in zip(values, references, strict=True)]
            cells.append(" / ".join(f"{change:+.0%}" for change in changes))
    return f"| {title} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
