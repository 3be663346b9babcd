"""Portraits turned to either side, up and down: what the driver's landmarks can't tell, told.

Each portrait is the first face of a clip or a photo. There is no truth; heads of the clips that
look as far aside show what such heads look like.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.matte import Segmenter, matte
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import is_still
from metaportrait_cli.metrics.identity import identity_distance
from metaportrait_cli.metrics.turning import (
    background_motion,
    kernel_distance,
    stretch_and_folds,
)
from metaportrait_cli.motion.alignment import from_frame, rotation_of
from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.evaluation.contact_sheet import ContactSheet
from metaportrait_cli.pipeline.evaluation.reenactment import SIZE, ClipResult
from metaportrait_cli.pipeline.evaluation.scoring import ClipScores, Judge, Points
from metaportrait_cli.pipeline.preparation import framed
from metaportrait_cli.pipeline.source import MAX_SIDE, load_source
from metaportrait_cli.render.protocol import Driven, Frames, Renderer
from metaportrait_cli.weights import bundled_path

TURNS = ((-35, 0), (-25, 0), (-15, 0), (15, 0), (25, 0), (35, 0), (0, -20), (0, 20))
"""Yaw and pitch in degrees, from where the source looks"""
SHOWN = (0, 2, 4, 5, 6, 7)
"""Turns on the sheet"""
ASIDE = (20.0, 40.0)
"""Yaw in degrees of the heads whose looks are compared"""
FEWEST_HEADS = 8
LOOKS = 24
"""Frames of a clip in which such heads are sought"""
HEAD = 1.45
"""The head with its hair, relative to the oval of its face"""
MARGIN = 16  # pixels around a silhouette that count neither as person nor as background


def turned_portraits(
    portraits: list[Path],
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> Iterator[ClipResult]:
    """Each portrait turned by each method; at last, under `all`, how all of their heads look."""
    segmenter = Segmenter(bundled_path("selfie_segmenter"))
    looks: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    for path in portraits:
        source = load_source(path, choice=LARGEST_FACE, detector=judge.detector)
        source = framed(source, *renderers.values())
        crop = source.crop.cut(source.picture, SIZE)
        driven = np.stack(
            [
                source.crop.to_crop(_turned(judge.model, source.face.points, *turn), SIZE)
                for turn in TURNS
            ]
        )
        far = [t for t, points in enumerate(driven) if ASIDE[0] <= abs(_yaw(points)) <= ASIDE[1]]
        own = judge.embedding(source.picture, source.face)
        scores = {name: ClipScores() for name in renderers}
        before = matte(crop, source.landmarks(SIZE), segmenter)
        shown = []
        for name, renderer in renderers.items():
            rendered = renderer.open(source, size=SIZE).render(Driven.of(driven))
            frames = all_resized(rendered.frames, SIZE)
            if before is not None:
                moved = _background_motion(crop, before, frames, driven, segmenter)
                scores[name].add("background_motion", moved)
            for flow, points in zip(rendered.flows or (), driven, strict=bool(rendered.flows)):
                inside = _head(points, grid=len(flow.shift))
                shares = stretch_and_folds(flow.shift, inside, side=flow.side)
                scores[name].add("stretched_share", [shares[0]])
                scores[name].add("folded_share", [shares[1]])
            embeddings = judge.embeddings(frames, driven)
            scores[name].add("identity_distance", identity_distance(embeddings, own[None]))
            heads = [_head_picture(frames[t], driven[t]) for t in far]
            if heads:
                looks[name].append(judge.features_of_heads(heads))
            shown.append(frames)
        if board is not None:
            board.add(path.stem, crop, [[frames[t] for frames in shown] for t in SHOWN])
        yield ClipResult(
            source=str(path),
            driver="",
            frames=len(TURNS),
            values={name: score.means() for name, score in scores.items()},
        )
    real = _heads_aside(portraits, judge)
    if len(real) < FEWEST_HEADS or any(sum(map(len, looks[n])) < 2 for n in renderers):
        return
    wanted = judge.features_of_heads(real)
    values = {
        name: {"kernel_distance": kernel_distance(torch.cat(looks[name]), wanted)}
        for name in renderers
    }
    yield ClipResult(source="all", driver="", frames=0, values=values)


def _background_motion(
    crop: NDArray[np.uint8],
    before: NDArray[np.float32],
    frames: Frames,
    driven: Points,
    segmenter: Segmenter,
) -> list[float]:
    """How far what is background both in the crop (S, S, 3), whose person covers `before` (S, S),
    and in a frame of (T, S, S, 3) moved between them."""
    kernel = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    found = []
    for frame, points in zip(frames, driven, strict=True):
        after = matte(frame, points, segmenter)
        person = before if after is None else np.maximum(before, after)
        background = cv2.dilate(np.uint8(person > 0), kernel) == 0
        if background.any():
            found.append(background_motion(crop, frame, background))
    return found


def _turned(model: MorphableModel, points: Points, yaw: float, pitch: float) -> Points:
    """Face points (478, 3) turned by degrees about the head's own middle."""
    faces = points[None]
    fitted = fit_frames(model, faces, fit_identity(model, faces))
    shape = model.shape(fitted.identity, fitted.expression, fitted.gaze) + fitted.residual
    angles = fitted.angles + np.radians(np.array([[yaw, pitch, 0]], np.float32))
    turned = replace(fitted, rotation=rotation_of(angles))
    moved = from_frame(shape, turned.rotation, turned.scale, turned.translation)
    return moved[0].astype(np.float32)


def _yaw(points: Points) -> float:
    """Degrees by which a face (478, 3) looks aside."""
    away = topology.head_axes(points)[:, 2]
    return float(np.degrees(np.arctan2(away[0], away[2])))


def _head(points: Points, *, grid: int) -> NDArray[np.bool_]:
    """Where (G, G) the head of a driven face (478, 3) is."""
    oval = points[topology.ring("face_oval"), :2]
    middle = oval.mean(0)
    # Hair is above the face.
    wider = middle + HEAD * (oval - middle) - (0, 0.12 * np.ptp(oval[:, 1]))
    mask = np.zeros((grid, grid), np.uint8)
    cv2.fillPoly(mask, [np.rint(wider * (grid / SIZE) - 0.5).astype(np.int32)], 1)
    return mask > 0


def _head_picture(picture: NDArray[np.uint8], points: Points) -> NDArray[np.uint8]:
    return Crop.around(points).cut(picture, SIZE)


def _heads_aside(paths: list[Path], judge: Judge) -> list[NDArray[np.uint8]]:
    """Pictures of the clips' heads that look aside, those to the left mirrored as well."""
    found: list[NDArray[np.uint8]] = []
    for path in paths:
        if is_still(path):
            continue
        with open_frames(path, max_side=MAX_SIDE) as frames:
            step = max(1, (frames.info.frames or LOOKS) // LOOKS)
            for frame in frames:
                if frame.index % step:
                    continue
                face = LARGEST_FACE.pick(judge.detector.detect(frame.image))
                if face is None or not ASIDE[0] <= abs(_yaw(face.points)) <= ASIDE[1]:
                    continue
                head = _head_picture(frame.image, face.points)
                found += [head, np.ascontiguousarray(head[:, ::-1])]
    return found
