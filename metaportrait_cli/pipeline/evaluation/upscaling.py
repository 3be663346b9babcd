"""Super-resolution judged on clips: 256² → 512², against the clips' own crops at 512².

Two kinds of input: the true frames at half of their size, and a renderer's pictures, a clip driving
its own first face. The reference is that first face's crop, moved into place.

Runs of frames are judged with as much before and after them as the network can see: results are
those of the whole clip, at a part of the cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_sr import SCALE, CompactSR, Reference, enlarged
from metaportrait_cli.pipeline.evaluation.contact_sheet import CELL, ContactSheet
from metaportrait_cli.pipeline.evaluation.reenactment import (
    TRUTH,
    ClipResult,
    first_face,
    followed,
    spread,
)
from metaportrait_cli.pipeline.evaluation.sampling import (
    RUN_FRAMES,
    count_frames,
    sample_runs,
)
from metaportrait_cli.pipeline.evaluation.scoring import ClipScores, Judge, Points, steadiness
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.protocol import Driven, Frames, Renderer
from metaportrait_cli.render.reference import ReferenceWarp, SteadyReference
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights import resolve
from metaportrait_cli.weights.architectures import COMPACT_SR
from metaportrait_cli.weights.store import load_network

SIZE = 512
# Smaller crops, enlarged to 512², would be compared with their own blur.
LEAST_SIDE = 448
# The network, each frame on its own; the clip; the clip with its reference.
BICUBIC, SINGLE, ALONE, REFERRED = "bicubic", "single", "alone", "referred"
METHODS = (BICUBIC, SINGLE, ALONE, REFERRED)


def load_upscaler(name: str) -> CompactSR:
    """The network of weights given by name, path or `hf://` spec. Raises `WeightsError`."""
    path = resolve(Path(name) if Path(name).exists() else name)
    # Stored at half precision; a CPU is slow with it.
    return channels_last(
        load_network(CompactSR, path, part=COMPACT_SR).float().requires_grad_(False)
    )


def upscaled_clips(
    clips: list[Path],
    frames: int,
    judge: Judge,
    network: CompactSR,
    board: ContactSheet | None,
    *,
    renderer: Renderer | None,
) -> Iterator[ClipResult]:
    """Each clip whose face is large enough; `renderer` makes the input, see above, if any.

    Raises `MediaError` if no clip has a face large enough.
    """
    some = False
    for clip in clips:
        source, first = first_face(clip, judge)
        if source.crop.side >= LEAST_SIDE:
            some = True
            yield _upscaled_clip(
                clip,
                source=source,
                first=first,
                frames=frames,
                judge=judge,
                network=network,
                board=board,
                renderer=renderer,
            )
    if not some:
        raise MediaError(
            f"{clips[0].parent}: no clip has a face whose crop is {LEAST_SIDE} pixels or more;"
            " give clips with larger faces"
        )


def _upscaled_clip(
    clip: Path,
    *,
    source: Source,
    first: int,
    frames: int,
    judge: Judge,
    network: CompactSR,
    board: ContactSheet | None,
    renderer: Renderer | None,
) -> ClipResult:
    around = network.config.stages
    inner = sample_runs(first=first + 1 + around, stop=count_frames(clip) - around, frames=frames)
    runs = _apart([range(run.start - around, run.stop + around) for run in inner])
    if not runs:
        raise MediaError(f"{clip}: too short; give clips of {RUN_FRAMES + 2 * around + 1} frames")
    bench = _Bench(source, network, renderer=renderer)
    scores = {name: ClipScores() for name in (TRUTH, *METHODS)}
    moments: list[list] = []
    judged = slice(around, around + RUN_FRAMES)
    for true, points in followed(source, clip, runs, judge, size=SIZE):
        results = bench.results(true, points, judged)
        truth = true[judged]
        seen = judge.look_at(truth, points[judged])
        for name, result in results.items():
            judge.compare(scores[name], result=result, truth=seen)
        steadiness(scores, truth, {TRUTH: truth, **results})
        piece = _eye_piece(points[around])
        shown = (truth, *results.values())
        moments.append([pictures[0][piece] for pictures in shown])
    if board is not None:
        board.add(clip.stem, source.crop.cut(source.picture, SIZE), spread(moments))
    return ClipResult(
        source=str(clip),
        driver=str(clip),
        frames=len(moments) * RUN_FRAMES,
        values={name: score.means() for name, score in scores.items()},
        runs_without_face=len(runs) - len(moments),
    )


class _Bench:
    """One clip's source, and what makes inputs and results from its frames."""

    def __init__(self, source: Source, network: CompactSR, *, renderer: Renderer | None) -> None:
        self._network = network
        analytic = WarpRenderer().open(source, size=SIZE)
        moving = renderer.open(source, size=SIZE) if renderer is not None else analytic

        def warp(face: NDArray[np.float32]) -> Correspondence:
            """As the frames move, where it is known how that was."""
            driven = Driven.of(face[None])
            (flow,) = moving.render(driven).flows or analytic.render(driven).flows or ()
            return flow

        self._reference = ReferenceWarp(source.crop.cut(source.picture, SIZE), warp)
        half = SIZE // SCALE
        self._session = renderer.open(source, size=half) if renderer is not None else None

    @torch.inference_mode()
    def results(self, true: Frames, points: Points, judged: slice) -> dict[str, Frames]:
        """What the methods make of `judged` frames out of true ones (T, S, S, 3)."""
        frames = self._small(true, points)
        small, reference = as_tensor(frames), self._referred(points, frames)
        network = self._network
        made = {
            BICUBIC: enlarged(small[judged]),
            SINGLE: torch.cat([network(frame) for frame in small[judged].split(1)]),
            ALONE: network(small)[judged],
            REFERRED: network(small, reference)[judged],
        }
        return {name: as_pictures(pictures) for name, pictures in made.items()}

    def _small(self, true: Frames, points: Points) -> Frames:
        if self._session is not None:
            return self._session.render(Driven.of(points / np.float32(SCALE))).frames
        half = (SIZE // SCALE, SIZE // SCALE)
        return np.stack([cv2.resize(f, half, interpolation=cv2.INTER_AREA) for f in true])

    def _referred(self, points: Points, frames: Frames) -> Reference:
        warp = self._reference
        steady = SteadyReference(warp)
        placed = (steady.place(face, frame) for face, frame in zip(points, frames, strict=True))
        images, valid = zip(*map(warp.moved, placed), strict=True)
        return Reference(as_tensor(np.stack(images)), torch.from_numpy(np.stack(valid))[:, None])


def _apart(runs: list[range]) -> list[range]:
    """Runs that don't overlap: of those that would, the later ones are left out."""
    kept: list[range] = []
    for run in runs:
        if not kept or run.start >= kept[-1].stop:
            kept.append(run)
    return kept


def _eye_piece(face: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of a piece around an eye, to be shown pixel by pixel."""
    x, y = face[topology.ring("right_eye"), :2].mean(0)
    corner = [int(np.clip(round(float(c)) - CELL // 2, 0, SIZE - CELL)) for c in (y, x)]
    return slice(corner[0], corner[0] + CELL), slice(corner[1], corner[1] + CELL)
