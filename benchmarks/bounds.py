"""How far a better warp or better mouths could bring re-enactment: with the truth's own help.

    python -m benchmarks.bounds CLIPS [--weights compact] [--frames 12]

As `metaportrait evaluate`, each clip's first face is driven by its own later frames. What comes
out is then mended by what no method can know: moved along optical flow to the truth, or with the
truth's own pixels in parts of the mouth. Prints the LPIPS-like distance of the whole picture and
of the mouth, means over clips, against the analytic warp.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import moved_by
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.evaluation.reenactment import SIZE, first_face
from metaportrait_cli.pipeline.evaluation.sampling import (
    count_frames,
    find_clips,
    read_runs,
    sample_runs,
)
from metaportrait_cli.pipeline.evaluation.scoring import ClipScores, Judge
from metaportrait_cli.pipeline.source import MAX_SIDE
from metaportrait_cli.render.named import DEFAULT, NONE, rendering_named
from metaportrait_cli.render.protocol import Driven, Renderer

Image = NDArray[np.uint8]

SMOOTH = 16.0  # σ in pixels of a flow that a network could have found
LIPS_MARGIN = 5
METRICS = ("lpips_like", "mouth_lpips_like")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", default=DEFAULT)
    parser.add_argument("--frames", type=int, default=12)
    args = parser.parse_args()
    renderers = {
        name: rendering_named(name, device="cpu").renderer for name in (NONE, args.weights)
    }
    means: dict[str, list[list[float]]] = defaultdict(list)
    with Engine() as engine:
        judge = Judge(engine)
        for clip in find_clips(args.clips):
            for name, scores in judged(clip, judge, renderers, frames=args.frames):
                values = scores.means()
                means[name].append([values[metric] for metric in METRICS])
    whole, mouth = np.mean(means[NONE], axis=0)
    print("| | LPIPS-like | mouth |\n|---|---|---|")
    for name, values in means.items():
        picture, lips = np.mean(values, axis=0)
        print(
            f"| {name} | {picture:.3f} ({picture / whole - 1:+.0%}) |"
            f" {lips:.3f} ({lips / mouth - 1:+.0%}) |"
        )


def judged(
    clip: Path, judge: Judge, renderers: dict[str, Renderer], *, frames: int
) -> list[tuple[str, ClipScores]]:
    """Scores of one clip by method; the last renderer's pictures are those that are mended."""
    source, first = first_face(clip, judge)
    sessions = {name: renderer.open(source, size=SIZE) for name, renderer in renderers.items()}
    scores: dict[str, ClipScores] = defaultdict(ClipScores)
    near = source.face.box
    runs = sample_runs(first=first + 1, stop=count_frames(clip), frames=frames)
    for pictures in read_runs(clip, runs, max_side=MAX_SIDE):
        for picture in pictures:
            face = judge.find(picture, near)
            if face is None:
                continue
            near = face.box
            points = source.crop.to_crop(face.points, SIZE)
            truth = source.crop.cut(picture, SIZE)
            seen = judge.look_at(truth[None], points[None])
            driven = Driven.of(points[None])
            results = {name: session.render(driven).frames[0] for name, session in sessions.items()}
            results |= mended(list(results.values())[-1], truth, points)
            for name, image in results.items():
                judge.compare(scores[name], result=image[None], truth=seen)
    return list(scores.items())


def mended(image: Image, truth: Image, points: NDArray[np.float32]) -> dict[str, Image]:
    """A picture (S, S, 3) with the truth's help, by what helped."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey, wanted = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (image, truth))
    flow = search.calc(wanted, grey, np.zeros((SIZE, SIZE, 2), np.float32))
    inside, lips = (
        filled_polygon(points[topology.ring(name), :2], side=SIZE, size=SIZE) > 0
        for name in ("lips_inner", "lips_outer")
    )
    margin = np.ones((LIPS_MARGIN, LIPS_MARGIN), np.uint8)
    lips = cv2.dilate(lips.astype(np.uint8), margin) > 0
    return {
        "… moved by the true flow, smoothed": moved_by(
            image, cv2.GaussianBlur(flow, (0, 0), SMOOTH)
        ),
        "… moved by the true flow": moved_by(image, flow),
        "… true inside of the mouth": np.where(inside[..., None], truth, image),
        "… true lips and inside": np.where(lips[..., None], truth, image),
    }


if __name__ == "__main__":
    main()
