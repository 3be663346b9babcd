"""Runs of pictures → values of all metrics, gathered over a clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face, overlap
from metaportrait_cli.face.identity import embed, identity_network
from metaportrait_cli.metrics.expression import arrival, features_by_name
from metaportrait_cli.metrics.identity import identity_distance
from metaportrait_cli.metrics.landmarks import landmark_distance
from metaportrait_cli.metrics.motion import aed, apd, identity_leakage, landmark_jitter
from metaportrait_cli.metrics.mouth import MouthOpening, flicker, inside_distance, sharpness
from metaportrait_cli.metrics.perceptual import bundled_features, feature_distance, unit_features
from metaportrait_cli.metrics.pictures import psnr, ssim
from metaportrait_cli.metrics.regions import cut_region, eye_regions, mouth_region
from metaportrait_cli.metrics.turning import pooled_features
from metaportrait_cli.metrics.warping import true_motion, warping_error
from metaportrait_cli.motion.fitting import fit_frames, fit_identity, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.evaluation.sampling import RUN_FRAMES
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.render.protocol import Frames

SAME_FACE_OVERLAP = 0.2
LEAST_SHARPNESS = 1.0
"""Of the truth, below which a mouth is even darkness and a ratio to it means nothing"""

Points = NDArray[np.float32]
Values = dict[str, float]


class ClipScores:
    """Values of one method over one clip, and where its faces were found."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._result: list[Points] = []
        self._driver: list[Points] = []

    def add(self, name: str, values: Iterable[float] | Tensor) -> None:
        """Takes the values of one run."""
        self._values[name] += [float(value) for value in values]

    def add_faces(self, result: Points, driver: Points) -> None:
        """Takes the faces (T, 478, 3) of one run's results, and of the frames that drove them."""
        self._result.append(result)
        self._driver.append(driver)

    def judge_motion(self, model: MorphableModel, source: Points | None = None) -> None:
        """Compares all faces in terms of the model; `source` (1, 478, 3) if it is someone else."""
        if not sum(map(len, self._result)):
            return
        results, drivers = np.concatenate(self._result), np.concatenate(self._driver)
        identity, driver_identity = fit_identity(model, results), fit_identity(model, drivers)
        result = fit_frames(model, results, identity)
        driver = fit_frames(model, drivers, driver_identity)
        self.add("aed", [aed(result, driver)])
        self.add("apd", [apd(result, driver)])
        seen, wanted = (features_by_name(still_faces(model, p)) for p in (result, driver))
        for name, values in wanted.items():
            arrived = arrival(values, seen[name])
            if arrived is not None:
                self.add(f"gain_{name}", [arrived.gain])
                self.add(f"correlation_{name}", [arrived.correlation])
        whole = [run for run in self._result if len(run) == RUN_FRAMES]
        self.add("landmark_jitter", [landmark_jitter(run) for run in whole])
        if source is not None:
            own = fit_identity(model, source)
            leakage = identity_leakage(identity, own, driver_identity)
            self.add("leakage_share", [leakage.share])

    def means(self) -> Values:
        """Mean of each metric over all frames, or pairs of frames, of the clip."""
        return {name: float(np.mean(values)) for name, values in self._values.items() if values}


@dataclass(frozen=True)
class People:
    """Identity embeddings (128,) of the two people of a cross-identity pair."""

    source: Tensor
    driver: Tensor


@dataclass(frozen=True)
class Truth:
    """A run of true frames, as far as comparisons need them; several results share it."""

    points: Points
    pictures: Tensor
    features: list[Tensor]
    regions: list[list[Crop]]
    """Mouth, right eye and left eye of each frame."""
    region_features: list[Tensor]
    mouths: Mouths
    embeddings: Tensor


@dataclass(frozen=True)
class Mouths:
    """The mouths of a run of true frames, close up."""

    openings: list[MouthOpening]
    zoomed: NDArray[np.uint8]  # (T, 192, 192, 3)
    features: list[Tensor]


class Judge:
    """Holds what judging needs: face detector, identity network, perceptual features."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.model = engine.face_model
        self.detector = engine.detector
        self._identity = identity_network()
        self._features = bundled_features()

    def find(self, image: NDArray[np.uint8], near: NDArray[np.float32]) -> Face | None:
        """The face of a picture (H, W, 3) that overlaps the box `near` most, if any does."""
        faces = self.detector.detect(image, hint=near)
        best = max(faces, key=lambda face: overlap(face.box, near), default=None)
        if best is None or overlap(best.box, near) < SAME_FACE_OVERLAP:
            return None
        return best

    def embedding(self, picture: NDArray[np.uint8], face: Face) -> Tensor:
        """Identity embedding (128,) of a face in a picture (H, W, 3)."""
        return embed(self._identity, picture[None], face.points[None])[0]

    def embeddings(self, frames: Frames, points: Points) -> Tensor:
        """Identity embeddings (T, 128) of the faces (T, 478, 3) in frames (T, S, S, 3)."""
        return embed(self._identity, frames, points)

    def features_of_heads(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """One vector each, (B, C), of equally large pictures (S, S, 3)."""
        return pooled_features(self._features, as_tensor(np.stack(pictures)))

    def look_at(self, frames: Frames, points: Points) -> Truth:
        """True frames (T, S, S, 3) whose face is at `points` (T, 478, 3), to compare with."""
        regions = [[mouth_region(face), *eye_regions(face)] for face in points]
        pictures = as_tensor(frames)
        return Truth(
            points=points,
            pictures=pictures,
            features=unit_features(self._features, pictures),
            regions=regions,
            region_features=self._look_at_regions(frames, regions),
            mouths=self._look_at_mouths(frames, points),
            embeddings=embed(self._identity, frames, points),
        )

    def compare(self, scores: ClipScores, *, result: Frames, truth: Truth) -> None:
        """A run of results (T, S, S, 3) against the truth."""
        pictures = as_tensor(result)
        scores.add("psnr", psnr(pictures, truth.pictures))
        scores.add("ssim", ssim(pictures, truth.pictures))
        features = unit_features(self._features, pictures)
        scores.add("lpips_like", feature_distance(features, truth.features))
        parts = self._look_at_regions(result, truth.regions)
        distances = feature_distance(parts, truth.region_features).view(len(result), -1)
        scores.add("mouth_lpips_like", distances[:, 0])
        scores.add("eyes_lpips_like", distances[:, 1:].mean(1))
        self._compare_mouths(scores, result, truth.mouths)
        found = self._found(scores, result, truth.points, driver=truth.points)
        embeddings = embed(self._identity, result, found)
        scores.add("identity_distance", identity_distance(embeddings, truth.embeddings))

    def compare_people(
        self, scores: ClipScores, *, result: Frames, wanted: Points, driver: Points, people: People
    ) -> None:
        """A run of results driven to `wanted` by someone whose face was at `driver`."""
        embeddings = embed(self._identity, result, self._found(scores, result, wanted, driver))
        scores.add("identity_distance", identity_distance(embeddings, people.source[None]))
        scores.add("driver_identity_distance", identity_distance(embeddings, people.driver[None]))

    def _found(self, scores: ClipScores, result: Frames, wanted: Points, driver: Points) -> Points:
        """Face points found again in results; where none is found, those that were wanted.

        A lost face counts fully against the method's identity then, but not as a distance.
        """
        points = wanted.copy()
        lost = np.zeros(len(result), bool)
        for index, (frame, face) in enumerate(zip(result, wanted, strict=True)):
            box = np.concatenate([face[:, :2].min(0), face[:, :2].max(0)])
            seen = self.find(frame, box)
            lost[index] = seen is None
            if seen is not None:
                points[index] = seen.points
        scores.add("landmark_distance", landmark_distance(points[~lost], wanted[~lost]))
        scores.add("faces_lost", lost)
        scores.add_faces(points[~lost], driver[~lost])
        return points

    def _look_at_mouths(self, frames: Frames, points: Points) -> Mouths:
        openings = [MouthOpening.of(face) for face in points]
        zoomed = _zoomed(frames, openings)
        return Mouths(openings, zoomed, unit_features(self._features, as_tensor(zoomed)))

    def _compare_mouths(self, scores: ClipScores, result: Frames, mouths: Mouths) -> None:
        zoomed = _zoomed(result, mouths.openings)
        features = unit_features(self._features, as_tensor(zoomed))
        scores.add("mouth_zoom_lpips_like", feature_distance(features, mouths.features))
        for own, true, opening in zip(zoomed, mouths.zoomed, mouths.openings, strict=True):
            if opening.is_open:
                scores.add("inside", [inside_distance(own, true, opening)])
                ratio = sharpness(own, opening) / max(sharpness(true, opening), LEAST_SHARPNESS)
                scores.add("inside_sharpness", [ratio])

    def _look_at_regions(self, frames: Frames, regions: list[list[Crop]]) -> list[Tensor]:
        """Features of each frame's regions, all in one batch."""
        parts = [
            cut_region(frame, region)
            for frame, places in zip(frames, regions, strict=True)
            for region in places
        ]
        return unit_features(self._features, as_tensor(np.stack(parts)))


def steadiness(scores: dict[str, ClipScores], truth: Frames, results: dict[str, Frames]) -> None:
    """Warping error of consecutive frames (T, S, S, 3), by method; its flow is the truth's."""
    for index, (earlier, later) in enumerate(pairwise(truth)):
        motion = true_motion(earlier, later)
        for method, frames in results.items():
            moving, still = warping_error(frames[index], frames[index + 1], motion)
            scores[method].add("warping_error", [moving])
            scores[method].add("warping_error_still", [still])


def mouth_flicker(
    scores: dict[str, ClipScores], points: Points, results: dict[str, Frames]
) -> None:
    """How unsteady the inside of the mouth is in consecutive frames (T, S, S, 3), by method."""
    openings = [MouthOpening.of(face) for face in points]
    for method, frames in results.items():
        zoomed = _zoomed(frames, openings)
        for t in range(len(frames) - 1):
            change = flicker(zoomed[t], zoomed[t + 1], (openings[t], openings[t + 1]))
            scores[method].add("inside_flicker", [] if change is None else [change])


def _zoomed(frames: Frames, openings: list[MouthOpening]) -> NDArray[np.uint8]:
    return np.stack([o.zoomed(frame) for frame, o in zip(frames, openings, strict=True)])
