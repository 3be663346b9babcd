"""What a person's own video, or their photos, show of them: pictures with the face found in each.

A long video is looked at in short runs spread over its whole length, by seeking, so that twenty
minutes take little longer than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face, overlap
from metaportrait_cli.face.identity import embed
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice
from metaportrait_cli.media.info import VideoInfo
from metaportrait_cli.media.probe import probe
from metaportrait_cli.media.reader import VideoReader, open_frames
from metaportrait_cli.media.stills import is_still
from metaportrait_cli.metrics.identity import OTHER_PERSON
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.pipeline.source import MAX_SIDE, load_source
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.stages import prefetched

Medium = Literal["video", "photos"]

LOOKS = 240
"""Pictures that are looked at of a video, at most."""
READ_WHOLE_SECONDS = 90
RUNS, RUN_LOOKS, RUN_STEP_SECONDS = 48, 4, 0.3
"""How a longer video is looked at."""
LEAST_LOOKS = 8
SAME_FACE_OVERLAP = 0.2
IDENTITY_FRAMES = 96

JPEG_QUALITY = 95
DARKEST_FACE = 28.0
"""Mean grey level of a face below which a picture is too dark to show anything."""
WIDEST_TURN = np.radians(35.0)
"""Yaw or pitch from which a picture doesn't count as facing the camera."""
SHARPNESS_SIDE = 192
PICTURES_AHEAD = 4


@dataclass(frozen=True)
class Look:
    """One picture of the person."""

    path: Path
    time: float
    """Seconds from the start of the video; the number of the photo"""
    encoded: NDArray[np.uint8]
    """JPEG, for hundreds of pictures are held at a time"""
    size: tuple[int, int]
    """Width and height of the picture"""
    points: NDArray[np.float32]
    """(478, 3) in pixels of the picture"""
    blendshapes: NDArray[np.float32]
    """(52,) of the detector"""
    confidence: float
    sharpness: float
    """Mean absolute Laplacian of the face at a fixed size, grey levels"""
    brightness: float
    """Mean grey level of the face"""
    embedding: NDArray[np.float32]
    """(128,) of the identity network"""
    strangers: tuple[Face, ...] = ()
    """Other people's faces in the picture"""

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return cv2.cvtColor(cv2.imdecode(self.encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Recording:
    """All usable looks in order, of pictures of one size if it is a video."""

    kind: Medium
    looks: tuple[Look, ...]
    fitted: FaceParameters
    """The looks in terms of the morphable model, one identity for all"""
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> NDArray[np.float32]:
        """(N, 478, 3), each in pixels of its picture."""
        return np.stack([look.points for look in self.looks])

    @property
    def sharpness(self) -> NDArray[np.float32]:
        """(N,), see `Look`."""
        return np.array([look.sharpness for look in self.looks], np.float32)

    def part(self, start: int, stop: int) -> Recording:
        """The looks start ≤ n < stop."""
        return self.of(np.arange(start, min(stop, len(self.looks))))

    def of(self, numbers: NDArray[np.intp]) -> Recording:
        """The looks of these numbers."""
        looks = tuple(self.looks[n] for n in numbers.tolist())
        return replace(self, looks=looks, fitted=self.fitted.frames(numbers))


@dataclass(frozen=True)
class _Seen:
    """A picture (H, W, 3), the person's face in it, and all faces there are."""

    time: float
    image: NDArray[np.uint8]
    face: Face | None
    faces: list[Face]


@dataclass(frozen=True)
class Looker:
    """Looks at recordings; `choice` says at whom, where several faces are seen.

    Both ways raise `MediaError` for what can't be read or is too short or dark, `NoFaceError`
    where the person isn't found or never faces the camera.
    """

    detector: MediaPipeDetector
    network: IdentityNetwork
    model: MorphableModel
    choice: FaceChoice = LARGEST_FACE
    on_progress: Progress = silent

    def video(self, path: Path) -> Recording:
        """A video of a person, who is followed from its start."""
        if path.is_file() and is_still(path):
            raise UsageError(f"{path} is a photo: give it, and others, with `photos`")
        looks: list[Look] = []
        most_faces = 0
        # Another core finds faces ahead.
        with closing(prefetched(self._followed(path), depth=PICTURES_AHEAD)) as followed:
            for number, (seen, total) in enumerate(followed, 1):
                most_faces = max(most_faces, len(seen.faces))
                if seen.face is not None:
                    strangers = tuple(other for other in seen.faces if other is not seen.face)
                    look = self._look(path, seen.time, seen.image, seen.face)
                    looks.append(replace(look, strangers=strangers))
                self.on_progress("look", number, total)
        if not looks and most_faces:
            raise NoFaceError(
                f"{path}: face {self.choice.number} asked for, but at most {most_faces} found;"
                " faces count from the left, from 1"
            )
        if not looks:
            raise NoFaceError(
                f"{path}: no face found in any picture; give a video of a face turned to the camera"
            )
        notes = []
        if most_faces > 1:
            notes.append(f"{path.name}: up to {most_faces} faces; choose one with `face`")
        own = _of_one_person(looks)
        if len(own) < len(looks):
            notes.append(f"{path.name}: {len(looks) - len(own)} pictures of others left out")
        return self._checked("video", own, path=path, notes=notes)

    def _followed(self, path: Path) -> Iterator[tuple[_Seen, int | None]]:
        """Pictures of a video with the person's face in each; how many in all, if that is known."""
        hint: NDArray[np.float32] | None = None
        for time, image, total in _pictures(path):
            detector = self.detector
            faces = detector.search(image) if hint is None else detector.detect(image, hint=hint)
            face = _same(faces, hint) or self.choice.pick(faces)
            if face is not None:
                hint = face.box
            yield _Seen(time, image, face, faces), total

    def photos(self, paths: Sequence[Path]) -> Recording:
        """Photos of one person."""
        looks = []
        for number, path in enumerate(paths):
            source = load_source(path, choice=self.choice, detector=self.detector)
            look = self._look(path, float(number), source.picture, source.face)
            looks.append(replace(look, strangers=source.strangers))
            self.on_progress("look", number + 1, len(paths))
        own = _of_one_person(looks)
        if len(own) < len(looks):
            strangers = [look.path.name for look in looks if look not in own]
            raise UsageError(
                f"{', '.join(strangers)}: somebody else than in {own[0].path.name}; give photos of"
                " one person, or choose the face with `face`"
            )
        return self._checked("photos", own, path=paths[0], notes=[])

    def _look(self, path: Path, time: float, image: NDArray[np.uint8], face: Face) -> Look:
        crop = Crop.around(face.points)
        grey = cv2.cvtColor(crop.cut(image, SHARPNESS_SIDE), cv2.COLOR_RGB2GRAY)
        inside = (
            crop.to_crop(face.points, SHARPNESS_SIDE)[:, :2].clip(0, SHARPNESS_SIDE).astype(int)
        )
        (x0, y0), (x1, y1) = inside.min(0), inside.max(0)
        _, encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        return Look(
            path=path,
            time=time,
            encoded=encoded,
            size=(image.shape[1], image.shape[0]),
            points=face.points,
            blendshapes=face.blendshapes,
            confidence=face.confidence,
            sharpness=float(np.abs(cv2.Laplacian(grey[y0:y1, x0:x1], cv2.CV_32F)).mean()),
            brightness=float(grey[y0:y1, x0:x1].mean()),
            embedding=embed(self.network, image[None], face.points[None])[0].numpy(),
        )

    def _checked(
        self, kind: Medium, looks: list[Look], *, path: Path, notes: list[str]
    ) -> Recording:
        """The recording without what is too dark, if enough is left to go by."""
        bright = [look for look in looks if look.brightness >= DARKEST_FACE]
        if len(bright) < len(looks) / 2:
            level = np.median([look.brightness for look in looks])
            raise MediaError(
                f"{path}: too dark: the face's grey level is {level:.0f} of 255, below"
                f" {DARKEST_FACE:.0f}; film with more light"
            )
        if kind == "video" and len(bright) < LEAST_LOOKS:
            raise MediaError(
                f"{path}: the face is seen in {len(bright)} pictures only, {LEAST_LOOKS} are"
                " needed; give a longer video"
            )
        points = np.stack([look.points for look in bright])
        spread = np.linspace(0, len(points) - 1, min(len(points), IDENTITY_FRAMES)).astype(int)
        fitted = fit_frames(self.model, points, fit_identity(self.model, points[spread]))
        turn = np.abs(fitted.angles[:, :2]).max(1).min()
        if turn > WIDEST_TURN:
            raise NoFaceError(
                f"{path}: the face is turned away by {np.degrees(turn):.0f}° or more all the time;"
                " look into the camera for some of it"
            )
        return Recording(kind=kind, looks=tuple(bright), fitted=fitted, notes=tuple(notes))


def _pictures(path: Path) -> Iterator[tuple[float, NDArray[np.uint8], int | None]]:
    """Times and pictures of a video, at most `LOOKS`, spread over its length; how many in all."""
    info = probe(path) if path.is_file() else None
    if info is None or info.duration is None or info.duration <= READ_WHOLE_SECONDS:
        with open_frames(path, max_side=MAX_SIDE) as frames:
            count = frames.info.frames or LOOKS
            step = max(1, -(-count // LOOKS))
            total = -(-count // step) if frames.info.frames else None
            for frame in frames:
                if frame.index % step == 0:
                    yield float(frame.time), frame.image, total
        return
    for start in np.linspace(0, float(info.duration) - RUN_LOOKS, RUNS):
        yield from _run(info, float(start))


def _run(info: VideoInfo, start: float) -> Iterator[tuple[float, NDArray[np.uint8], int]]:
    seen = 0
    with VideoReader(info, max_side=MAX_SIDE, start=Fraction(start)) as frames:
        for frame in frames:
            if frame.time >= seen * RUN_STEP_SECONDS:
                yield start + float(frame.time), frame.image, RUNS * RUN_LOOKS
                seen += 1
            if seen == RUN_LOOKS:
                return


def _same(faces: list[Face], hint: NDArray[np.float32] | None) -> Face | None:
    """The face that overlaps where it was last, if any does."""
    if hint is None:
        return None
    nearest = max(faces, key=lambda face: overlap(face.box, hint), default=None)
    if nearest is None or overlap(nearest.box, hint) < SAME_FACE_OVERLAP:
        return None
    return nearest


def _of_one_person(looks: list[Look]) -> list[Look]:
    """Those that show who is seen at the start, as well as can be told from the clearest there."""
    start = looks[: max(1, len(looks) // 10)]
    known = max(start, key=lambda look: (look.confidence, look.sharpness)).embedding
    return [look for look in looks if np.linalg.norm(look.embedding - known) <= OTHER_PERSON]
