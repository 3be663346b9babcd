"""One portrait under one camera: a frame in, a picture out, nothing waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.orientation import turned_face
from metaportrait_cli.face.pursuit import Pursuit
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE, FaceFollower
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.motion.causal import CausalMotion
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.pipeline.compensation import compensation_of
from metaportrait_cli.pipeline.compose import resized
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.portrait_file import load_portrait
from metaportrait_cli.pipeline.preparation import framed
from metaportrait_cli.pipeline.provenance import Label
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.render.protocol import Driven, Renderer, Session
from metaportrait_cli.weights import bundled_path

Image = NDArray[np.uint8]

USUAL_RATE = 25
SEARCH_SECONDS = 1.0
"""How often a face that is nowhere near its last place is looked for everywhere: it takes long."""
FULL_TURN = 15.0
"""Degrees of a turned head, to have ready what it takes."""


@dataclass(frozen=True)
class OpenedPortrait:
    """A portrait, ready to be shown by as many performers as wanted."""

    name: str
    source: Source
    renderer: Renderer
    retargeter: Retargeter
    side: int
    """Of the pictures that the renderer gives."""

    def session(self) -> Session:
        """One that nobody else uses."""
        return self.renderer.open(self.source, size=self.side, rate=Fraction(USUAL_RATE))


def open_portrait(
    engine: Engine,
    source: Path | None,
    *,
    portrait: Path | None = None,
    size: int,
    turn: Sequence[float] = (0.0, 0.0, 0.0),
) -> OpenedPortrait:
    """A photo, a clip or a portrait file, opened for pictures of `size`.

    `turn` as of `Retargeter`. Raises `MediaError`, `NoFaceError` or `WeightsError`.
    """
    person = load_portrait(portrait) if portrait is not None else None
    if person is not None:
        opened, name = person.source, person.source.path.name
    else:
        assert source is not None  # noqa: S101  one of both, the command sees to that
        opened = load_sources([source], choice=LARGEST_FACE, detector=engine.detector)
        name = source.name
    renderer = engine.rendering(person).renderer
    opened = framed(opened, renderer)
    faces = [view.face for view in (opened, *opened.others)]
    shapes = np.stack([face.blendshapes for face in faces])
    retargeter = Retargeter(
        model=engine.face_model,
        source_landmarks=np.stack([face.points for face in faces]),
        # A face that no detector looked at has none: it is taken as it is.
        source_blendshapes=shapes if shapes.any() else None,
        turn=turn,
    )
    found = OpenedPortrait(name, opened, renderer, retargeter, renderer.fixed_size or size)
    networks = engine.detector.networks
    if networks is not None and renderer.keeps_detail:
        session = found.session()

        def render(landmarks: NDArray[np.float32]) -> Image:
            return session.render(Driven.of(opened.crop.to_crop(landmarks, found.side))).frames

        retargeter.compensation = compensation_of(opened, retargeter, networks.look, render)
    return found


@dataclass(frozen=True)
class Posed:
    """One frame's motion, and whose pictures show it."""

    driven: Driven
    session: Session


class Performer:
    """One thread at a time may `look`, and do all else, while another one draws."""

    def __init__(
        self, portrait: OpenedPortrait, *, size: int, marked: bool, strength: float
    ) -> None:
        self._detector = MediaPipeDetector(bundled_path("face_landmarker"))
        self._pursuit = Pursuit(self._detector)
        self._size = size
        self._label = Label() if marked else None
        self._shape: tuple[int, ...] = ()
        self._strength = strength
        self._number = 0
        self.face_seen = False
        self.show(portrait)

    def show(self, portrait: OpenedPortrait) -> None:
        """From the next frame on; the person before the camera shows their rest once more."""
        self._portrait, self._session = portrait, portrait.session()
        # What a session makes when a head first turns takes seconds: now, not in the midst.
        for turn in (-FULL_TURN, FULL_TURN):
            self._session.render(Driven.of(_turned(portrait.source.landmarks(portrait.side), turn)))
        self._motion = CausalMotion(portrait.retargeter)
        self.strength = self._strength

    @property
    def waiting(self) -> bool:
        """Whether the person's rest is still being looked at."""
        return self._motion.waiting

    @property
    def strength(self) -> float:
        """How much of the motion is shown, 0 to 3."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = value
        self._motion.strength = value

    def take_reference(self) -> None:
        """The next frames show the person at rest."""
        self._motion.take_reference()

    def perform(self, image: Image, seconds: float) -> Image:
        """The picture (S, S, 3) for an RGB frame, `seconds` after the one before."""
        return self.draw(self.look(image, seconds))

    def look(self, image: Image, seconds: float) -> Posed:
        """How the person in an RGB frame moves the portrait, `seconds` after the frame before."""
        face = self._seen(image, seconds)
        self.face_seen = face is not None
        portrait = self._portrait
        in_picture = self._motion(face, seconds)[None]
        driven = portrait.source.crop.to_crop(in_picture, portrait.side)
        self._number += 1
        return Posed(Driven.of(driven, first=self._number - 1), self._session)

    def draw(self, posed: Posed) -> Image:
        """The picture (S, S, 3) of that; to be asked for in the frames' order."""
        picture = resized(posed.session.render(posed.driven).frames[0], self._size)
        return picture if self._label is None else self._label(picture)

    def close(self) -> None:
        """Frees the detector."""
        self._detector.close()

    def _seen(self, image: Image, seconds: float) -> Face | None:
        """The face followed, upright."""
        first = image.shape != self._shape
        if first:  # a phone was turned, or another camera chosen
            self._shape = image.shape
            self._follower = FaceFollower(LARGEST_FACE, rate=Fraction(USUAL_RATE))
            self._searched = 0.0
        self._searched += seconds
        if first:
            faces = self._pursuit.begin(image, all_faces=False)
        elif self._follower.lost and self._searched > SEARCH_SECONDS:
            self._searched = 0.0
            faces = self._pursuit.search(image, all_faces=False)
        else:
            faces = self._pursuit.follow(image, hints=self._follower.hints)
        face = self._follower.follow(faces, cut=first)
        if face is None:
            return None
        height, width = image.shape[:2]
        return turned_face(face, self._pursuit.turns, width=width, height=height)


def _turned(points: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """A face (478, 3) turned to the side, (1, 478, 3)."""
    middle = points.mean(0)
    turn = rotation_of(np.radians([[degrees, 0.0, 0.0]]).astype(np.float32))[0]
    return ((points - middle) @ turn.T + middle)[None].astype(np.float32)
