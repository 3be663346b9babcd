"""Learns the face morphable model from landmark tracks.

Every frame is aligned to its person's current face; a person's average is their identity, the
deviations from it their expression. Alignment, averages and principal components are repeated,
because each needs the others:

1. align frames (similarity, points weighted by how still they are);
2. split each person's frames into identity and expression with the current model (a photo of a
   smiling face must not make the smile part of the identity);
3. identity components over people, expression components over deviations, each person weighing the
   same however many frames there are of them.

Mirror images take part as equals: components are computed in the symmetric and in the antisymmetric
half of space, so symmetry is exact rather than learnt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.face import BLENDSHAPE_COUNT
from metaportrait_cli.face.topology import (
    EAR_SIDES,
    EYE_CORNERS,
    INNER_LIPS,
    LIDS,
    MESH_POINTS,
    POINTS,
    ring,
)
from metaportrait_cli.media.outputs import atomic_output, claimed
from metaportrait_cli.motion.alignment import Floats, from_frame, similarity, to_frame
from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel, interocular
from metaportrait_cli.training.data.tracks import Track, load_tracks
from metaportrait_cli.training.morphable.measures import (
    FRAMES_PER_PERSON,
    jitter,
    some_frames,
    with_blendshapes,
)

ROUNDS: Final = 6

ENOUGH_FRAMES: Final = 10
"""A person counts n / (n + this) towards the expression basis."""

FEATURE_WEIGHT: Final = 4.0
"""What lids and lips count for against the rest of the face: small, and looked at."""

STILL: Final = 0.01
"""Motion, in inter-ocular distances, below which points are equally good for the pose."""

NOISE_CORRELATION: Final = 16.0
"""About how many neighbouring coordinates err together (variance inflation of `noise`)."""


@dataclass(frozen=True)
class Statistics:
    """What was learnt from, and how well it explains that."""

    people: int
    frames: int
    dropped: int
    """Frames that disagree with the model (wrong detections), left out."""

    identity_explained: Floats
    """(K,) cumulative share of the weighted variance between people."""

    expression_explained: Floats
    """(E,) cumulative share of the weighted variance within people."""


def train_morphable(
    tracks: Path,
    output: Path,
    *,
    identity_size: int = 60,
    expression_size: int = 50,
    overwrite: bool = False,
    on_round: Callable[[int], None] = lambda _: None,
) -> Statistics:
    """Learns a model from a folder of tracks and writes it to `output`.

    Raises `UsageError` before any work if it can't be written there, and `MediaError` if the tracks
    can't be read or tell too little.
    """
    with claimed(output, overwrite=overwrite):
        model, statistics = learn(
            load_tracks(tracks),
            identity_size=identity_size,
            expression_size=expression_size,
            on_round=on_round,
        )
        people, frames = str(statistics.people), str(statistics.frames)
        with atomic_output(output) as partial:
            model.save(partial, {"people": people, "frames": frames, "use": "research"})
    return statistics


def learn(
    tracks: Sequence[Track],
    *,
    identity_size: int = 60,
    expression_size: int = 50,
    rounds: int = ROUNDS,
    on_round: Callable[[int], None] = lambda _: None,
) -> tuple[MorphableModel, Statistics]:
    """Learns a model from tracks of many people; see the module's description."""
    people = _by_person(tracks)
    frames = sum(map(len, people))
    model = _first_model(people)
    identity_explained = expression_explained = np.zeros(0, np.float32)
    for step in range(rounds):
        if step == 2:  # the model is now good enough to tell a wrong detection
            people = [
                kept for kept in (_plausible(model, person) for person in people) if len(kept)
            ]
        model, identity_explained, expression_explained = _improve(
            model, people, identity_size, expression_size
        )
        on_round(step + 1)
    kept = sum(map(len, people))
    model = replace(model, expression_jitter=jitter(model, tracks))
    model = with_blendshapes(model, tracks)
    return model, Statistics(
        people=len(people),
        frames=kept,
        dropped=frames - kept,
        identity_explained=identity_explained,
        expression_explained=expression_explained,
    )


def _by_person(tracks: Iterable[Track]) -> list[Floats]:
    """Frames of each person over all their clips, at most FRAMES_PER_PERSON."""
    found: dict[str, list[Floats]] = defaultdict(list)
    for track in tracks:
        found[track.person].append(track.landmarks)
    people = []
    for clips in found.values():
        share = max(1, FRAMES_PER_PERSON // len(clips))
        picked = [
            clip[np.linspace(0, len(clip) - 1, min(share, len(clip))).astype(int)] for clip in clips
        ]
        people.append(np.concatenate(picked)[:FRAMES_PER_PERSON])
    return people


def _first_model(people: Sequence[Floats]) -> MorphableModel:
    """The mean face and its symmetry, without any basis."""
    faces = _most_open(people)
    mean = faces[0]
    even = np.ones((1, POINTS), np.float32)
    for _ in range(5):
        rotation, scale, translation = similarity(mean[None], faces, even)
        mean = np.median(to_frame(faces, rotation, scale, translation), axis=0)
        # People look into the camera on average: that turns the mean face to the front.
        u, _, vt = np.linalg.svd(rotation.mean(0))
        mean = (mean - mean.mean(0)) @ (u @ vt).T
    mirror = _mirror_map(mean)
    for _ in range(10):
        pose = similarity(mean[None], _flip(mean, mirror)[None], even)
        mean = (mean + to_frame(_flip(mean, mirror)[None], *pose)[0]) / 2
    # What is left is a turn of the whole face, halfway to its mirror image.
    mean = _symmetric(mean, mirror)
    ones = np.ones(MESH_POINTS, np.float32)
    empty = np.zeros((0, MESH_POINTS, 3), np.float32)
    return MorphableModel(
        mean=_normalised(mean),
        identity_basis=empty,
        expression_basis=empty,
        identity_parity=np.zeros(0, np.float32),
        expression_parity=np.zeros(0, np.float32),
        mirror=mirror,
        rigid_weight=ones,
        shape_weight=_shape_weight(),
        noise=0.05,
        expression_jitter=np.zeros(0, np.float32),
        blendshape_effect=np.zeros((BLENDSHAPE_COUNT, 0), np.float32),
        blendshape_rest=np.zeros(BLENDSHAPE_COUNT, np.float32),
    )


def _most_open(people: Sequence[Floats]) -> Floats:
    """Faces (N, P, 3) with parted lips: closed ones can't tell an upper point from a lower one."""
    upper, lower = np.array(INNER_LIPS).T
    gaps = [
        np.linalg.norm(person[:, upper] - person[:, lower], axis=-1).mean(-1) / interocular(person)
        for person in people
    ]
    widest = np.array([gap.max() for gap in gaps])
    chosen = np.argsort(-widest)[: max(100, len(people) // 5)]
    return np.stack([people[i][gaps[i].argmax()] for i in chosen])


def _mirror_map(mean: Floats) -> NDArray[np.int32]:
    """Index of each point's mirror image on a nearly symmetric, nearly frontal face (P, 3)."""
    flipped = mean * np.array([-1, 1, 1], np.float32)
    for _ in range(10):
        mirror = np.linalg.norm(flipped[:, None] - mean[None], axis=-1).argmin(1)
        pose = similarity(flipped[None], mean[mirror][None], np.ones((1, POINTS)))
        flipped = from_frame(flipped[None], *pose)[0]
    if not np.array_equal(mirror[mirror], np.arange(POINTS)):
        raise MediaError(
            "the average face is too crooked to find its mirror symmetry: learn from more people,"
            " seen from in front"
        )
    return mirror.astype(np.int32)


def _flip(points: Floats, mirror: NDArray[np.int32]) -> Floats:
    """Mirror images of points (..., P or M, 3); the mesh's part of the map is closed in itself."""
    return points[..., mirror[: points.shape[-2]], :] * np.array([-1, 1, 1], np.float32)


def _symmetric(points: Floats, mirror: NDArray[np.int32]) -> Floats:
    return (points + _flip(points, mirror)) / 2


def _normalised(mean: Floats) -> Floats:
    """The mean face at unit inter-ocular distance with the origin between the ears."""
    mean = mean / interocular(mean)
    return (mean - mean[list(EAR_SIDES)].mean(0)).astype(np.float32)


def _shape_weight() -> Floats:
    weight = np.ones(MESH_POINTS, np.float32)
    features = {
        *ring("lips_outer").tolist(),
        *(point for corners in EYE_CORNERS for point in corners),
    }
    features |= {point for pairs in (*LIDS, INNER_LIPS) for pair in pairs for point in pair}
    weight[sorted(features)] = FEATURE_WEIGHT
    return weight / weight.mean()


def _plausible(model: MorphableModel, frames: Floats) -> Floats:
    """The frames of a person whose landmarks look like one face in one piece."""
    fit = fit_frames(model, frames, fit_identity(model, some_frames(frames)))
    typical = np.median(fit.error)
    good = (fit.error < max(3 * typical, 0.03)) & (fit.error < 0.12) & (fit.scale > 0)
    return frames[good & (np.abs(fit.angles[:, :2]).max(-1) < 1.0)]


def _improve(
    model: MorphableModel, people: Sequence[Floats], identity_size: int, expression_size: int
) -> tuple[MorphableModel, Floats, Floats]:
    """One round: fits everyone with the present model, then estimates the model anew."""
    splits = [_split(model, frames) for frames in people]
    counts = np.array([len(frames) for frames in people], np.float32)

    # A photo's own noise and expression remain in its rest, so it counts half.
    rests = np.stack([split.rest for split in splits])
    rest_weight = counts / (counts + 1)
    mean = _symmetric(np.average(np.stack([s.face for s in splits]), 0, rest_weight), model.mirror)
    mean_rest = _symmetric(np.average(rests, 0, rest_weight), model.mirror)
    mean[:MESH_POINTS] = mean_rest
    unit = interocular(mean)
    mean = _normalised(mean)

    deviations = np.concatenate([split.deviations for split in splits]) / unit
    frame_weight = np.repeat(1 / (counts + ENOUGH_FRAMES), counts.astype(int))
    moved = np.average((deviations**2).sum(-1), 0, frame_weight)
    moved = (moved + moved[model.mirror[:MESH_POINTS]]) / 2
    rigid_weight = 1 / (moved + STILL**2)
    rigid_weight = (rigid_weight / rigid_weight.mean()).astype(np.float32)

    def components(data: Floats, weight: Floats, size: int) -> tuple[Floats, Floats, Floats]:
        still = _without_motion(data, mean[:MESH_POINTS], rigid_weight)
        return _components(still, weight, model.mirror, model.shape_weight, size)

    identity = components((rests - mean_rest) / unit, rest_weight, identity_size)
    expression = components(deviations, frame_weight, expression_size)
    several = counts > 1
    remains = np.array([split.remains for split in splits])[several].mean() / unit**2
    model = replace(
        model,
        mean=mean,
        identity_basis=identity[0],
        identity_parity=identity[1],
        expression_basis=expression[0],
        expression_parity=expression[1],
        rigid_weight=rigid_weight,
        noise=float(np.sqrt(remains * NOISE_CORRELATION)),
        expression_jitter=np.zeros(len(expression[0]), np.float32),
        blendshape_effect=np.zeros((BLENDSHAPE_COUNT, len(expression[0])), np.float32),
    )
    return model, identity[2], expression[2]


@dataclass(frozen=True)
class _Split:
    """One person's frames in the model frame."""

    face: Floats
    """(P, 3) average over frames."""

    rest: Floats
    """(M, 3) average without the fitted expressions."""

    deviations: Floats
    """(T, M, 3) from the rest."""

    remains: float
    """Mean square of what the expression basis leaves of them."""


def _split(model: MorphableModel, frames: Floats) -> _Split:
    """Aligns a person's frames and tells their identity from their expression."""
    fit = fit_frames(model, frames, fit_identity(model, some_frames(frames)))
    faces = to_frame(frames, fit.rotation, fit.scale, fit.translation)
    mesh = faces[:, :MESH_POINTS]
    expression = np.tensordot(fit.expression, model.expression_basis, axes=1)
    rest = (mesh - expression).mean(0)
    deviations = mesh - rest
    remains = float(((deviations - expression) ** 2).mean())
    return _Split(faces.mean(0), rest, deviations, remains)


def _without_motion(data: Floats, mean: Floats, weight: Floats) -> Floats:
    """Removes what a small similarity of the mean face can explain from displacements (N, M, 3).

    Otherwise the same head motion could be written as pose or as a coefficient.
    """
    turns = np.cross(np.eye(3)[:, None], mean[None])
    shifts = np.broadcast_to(np.eye(3)[:, None], turns.shape)
    motions = np.concatenate([turns, shifts, mean[None]]).reshape(7, -1)
    coordinates = np.repeat(weight, 3)
    flat = data.reshape(len(data), -1)
    amounts = np.linalg.solve(motions * coordinates @ motions.T, (motions * coordinates) @ flat.T)
    return (flat - amounts.T @ motions).reshape(data.shape)


def _components(
    data: Floats, weight: Floats, mirror: NDArray[np.int32], shape_weight: Floats, size: int
) -> tuple[Floats, Floats, Floats]:
    """Principal components of displacements (N, M, 3) and of their mirror images together.

    Returns the basis (C, M, 3) of one-standard-deviation vectors, their parity (C,), and the
    cumulative share of the variance (C,). Variance is measured with points weighted by
    shape_weight (M,), data by weight (N,).
    """
    root = np.sqrt(np.repeat(shape_weight, 3))
    total, found = 0.0, []
    for parity in (1.0, -1.0):
        half = (data + parity * _flip(data, mirror)) / 2
        rows = half.reshape(len(data), -1) * root
        covariance = (rows * (weight / weight.sum())[:, None]).T @ rows
        values, vectors = np.linalg.eigh(covariance.astype(np.float64))
        total += values.sum()
        found += [(value, parity, vectors[:, i]) for i, value in enumerate(values)]
    found = sorted(found, key=lambda item: -item[0])[:size]
    values = np.array([value for value, _, _ in found])
    basis = np.stack([np.sqrt(value) * vector / root for value, _, vector in found])
    return (
        basis.reshape(len(found), MESH_POINTS, 3).astype(np.float32),
        np.array([parity for _, parity, _ in found], np.float32),
        (np.cumsum(values) / total).astype(np.float32),
    )
