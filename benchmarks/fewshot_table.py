"""Few-shot talking heads with 1, 4 and 8 pictures, as they are and fine-tuned: the paper's table 1.

    python benchmarks/fewshot_table.py WEIGHTS CLIP.mp4... [--pictures 1 4 8] [--frames 16]
        [--as-it-is] [--sheet sheet.png]

Of each clip the first half gives the pictures, the second the frames that are judged. Printed are
means over all frames of all clips: LPIPS-like and identity distances, and in place of FID the
kernel distance of painted and true frames, which means little below hundreds of frames; then
whether more pictures always bring the face nearer to the person, as the paper has it. With
`--as-it-is` nobody is learnt, which takes most of the time. The sheet has a row a clip: its last
judged frame, then what is painted for it, by number of pictures and way.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.metrics.turning import kernel_distance, pooled_features
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.atlas import as_source, choose_canvas, crops_of
from metaportrait_cli.pipeline.person.contest import Yardstick, video_trial
from metaportrait_cli.pipeline.person.fine_tuning import pictures_of
from metaportrait_cli.pipeline.person.making import Kit
from metaportrait_cli.pipeline.person.recording import Looker, Recording
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.render.protocol import Renderer, Styled
from metaportrait_cli.training.fewshot_person import (
    FewShotNetworks,
    FewShotPersonConfig,
    FewShotStage,
    steps_for,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.weights import bundled_path


def main() -> None:
    """Prints a line a row of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--as-it-is", action="store_true")
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    kit = Kit.load()
    distances: defaultdict[tuple[int, str], list[list[float]]] = defaultdict(list)
    looks: defaultdict[tuple[int, str], list[Tensor]] = defaultdict(list)
    rows: list[list[NDArray[np.uint8]]] = []
    with Engine(str(chosen.weights)) as engine:
        rendering = engine.rendering()
        if rendering.styled is None:
            raise SystemExit(f"{chosen.weights}: no few-shot weights")
        looker = Looker(engine.detector, kit.identity, kit.model)
        for clip in chosen.clips:
            whole = looker.video(clip)
            half = len(whole.looks) // 2
            known, held = whole.part(0, half), whole.part(half, len(whole.looks))
            rows.append([])
            for count in chosen.pictures:
                few = spread(known, count)
                canvas = choose_canvas(few)
                crops = crops_of(few, canvas)
                views = [as_source(each, crop) for each, crop in zip(few.looks, crops, strict=True)]
                others = tuple(view for number, view in enumerate(views) if number != canvas)
                source = replace(views[canvas], others=others)
                trial = video_trial(source, held, most=chosen.frames)
                yardstick = Yardstick([trial], features=kit.features, identity=kit.identity)
                ways = {"as it is": rendering.renderer}
                if not chosen.as_it_is:
                    ways["fine-tuned"] = fine_tuned(rendering.styled, few, canvas)
                rows[-1] = rows[-1] or [trial.truth[-1]]
                looks[count, "truth"].append(pooled_features(kit.features, as_tensor(trial.truth)))
                for way, renderer in ways.items():
                    frames = trial.render(renderer, lends="all")
                    rows[-1].append(frames[-1])
                    found = yardstick.measure([frames])
                    distances[count, way].append([found.lpips_like, found.identity_distance])
                    looks[count, way].append(pooled_features(kit.features, as_tensor(frames)))
    print("pictures  way         LPIPS-like  identity  kernel distance")
    for (count, way), values in distances.items():
        lpips, identity = np.mean(values, axis=0)
        apart = kernel_distance(*(torch.cat(looks[count, name]) for name in (way, "truth")))
        print(f"{count:8}  {way:10}  {lpips:10.4f}  {identity:8.4f}  {apart:.4f}")
    for way in dict.fromkeys(way for _, way in distances):
        identity = [np.mean(distances[count, way], axis=0)[1] for count in sorted(chosen.pictures)]
        always, share = (np.diff(identity) < 0).all(), 1 - identity[-1] / identity[0]
        print(f"identity always nearer with more pictures, {way}: {always}, {share:.1%} in all")
    if chosen.sheet:
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        cv2.imwrite(str(chosen.sheet), sheet[..., ::-1])


def spread(known: Recording, count: int) -> Recording:
    """So many looks, evenly spread."""
    return known.of(np.linspace(0, len(known.looks) - 1, count).astype(int))


def fine_tuned(styled: Styled, few: Recording, canvas: int) -> Renderer:
    """The renderer after the few-shot stage on these looks."""
    networks = FewShotNetworks.load(styled.file)
    config = networks.generator.config
    known = pictures_of(few.looks, crops_of(few, canvas), size=config.size, schema=config.landmarks)
    stage = FewShotStage(
        networks,
        known,
        config=FewShotPersonConfig(),
        perceptual=PerceptualLoss.load(bundled_path("mobilenet")).to(styled.device),
        device=styled.device,
        seed=0,
    )
    for _ in range(steps_for(len(few.looks))):
        stage.advance()
    return styled.with_generator(stage.generator)


if __name__ == "__main__":
    main()
