"""Faces from frame to frame: where one was, the landmark network alone looks again.

Its region lies steadier on a face than a detector's box that is found anew in every frame. The
detector, which costs twice as much, looks at the first frame of a shot, where a face was lost, and
now and then to catch a region that has drifted off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.detector import CONFIDENCE_STEPS, DOUBT, MediaPipeDetector
from metaportrait_cli.face.face import Face, overlap
from metaportrait_cli.face.landmark_model import FaceSquare
from metaportrait_cli.face.orientation import turned, turned_face, turned_points
from metaportrait_cli.stages import Once

# On 350 frames of 14 people's training clips the network was sure of each face by 0.9988 or more,
# of none of 49 places without one by more than 0.33; of a region that lay off by 0.3 of the face's
# size by less than 0.98 in 4 of 10 cases, by less than the second in more than half.
LEAST_PRESENCE = 0.98
SURE_PRESENCE = 0.9999
"""Below it the region was off: a second look from where the first one saw the face."""
FRAMES_BETWEEN_CHECKS = 25
SAME_FACE = 0.2
"""Overlap of boxes from which on two are of one face."""

WITHIN = 0.8
"""Share of a box in another from which on one face is seen in another."""


class Pursuit:
    """Looks at the frames of one clip in order; one instance serves one thread."""

    def __init__(self, detector: MediaPipeDetector) -> None:
        """The detector is lent; whoever made it closes it."""
        self._detector = detector
        # Without its networks the detector looks at every frame, as if it were the first.
        self._model = self._detector.networks
        self._last: list[Face] = []
        self.unchecked = 0
        """Frames since the detector looked"""
        self.turns = 0
        """Quarter turns counter-clockwise that bring this shot's pictures upright."""

    def go_on(self, faces: list[Face], *, turns: int, unchecked: int) -> None:
        """After a frame in which another had found these faces, and was in this state."""
        self._last, self.turns, self.unchecked = faces, turns, unchecked

    def begin(self, image: NDArray[np.uint8], *, all_faces: bool = True) -> list[Face]:
        """Faces of the first frame of a shot, however small, and which way up the shot is.

        Unless `all_faces` are wanted, a large one is enough.
        """
        self.turns = 0
        faces = self._detector.search(image, all_faces=all_faces)
        self.turns = self._detector.quarter_turns(image, faces)
        if self.turns:
            faces = self._searched(image, all_faces=all_faces)
        return self._keep(image, faces, followed=[])

    def search(self, image: NDArray[np.uint8], *, all_faces: bool = True) -> list[Face]:
        """The same for a further frame; takes many times as long as `follow`."""
        return self._keep(image, self._searched(image, all_faces=all_faces), followed=[])

    def follow(
        self, image: NDArray[np.uint8], *, hints: Sequence[NDArray[np.float32]]
    ) -> list[Face]:
        """The faces last seen at the hints (x0, y0, x1, y1), and others if one is lost."""
        followed = self._seen_again(image, hints)
        self.unchecked += 1
        if len(followed) >= len(hints) > 0 and self.unchecked < FRAMES_BETWEEN_CHECKS:
            self._last = followed
            return followed
        self.unchecked = 0
        if len(followed) >= len(hints) > 0 and self._shows_these_alone(image, followed):
            return self._keep(image, [], followed=followed)
        detected = self._detected(image, hints)
        if detected:
            # What the detector sees nothing of was not a face, or is one no more.
            followed = [face for face in followed if _one_of(face, detected)]
        return self._keep(image, detected, followed=followed)

    def _seen_again(
        self, image: NDArray[np.uint8], hints: Sequence[NDArray[np.float32]]
    ) -> list[Face]:
        if self._model is None:
            return []
        seen: list[Face] = []
        for face in self._last:
            if any(overlap(face.box, hint) > SAME_FACE for hint in hints):
                again = self._closer(image, face)
                if again is not None and not _one_of(again, seen):
                    seen.append(again)
        return sorted(seen, key=lambda face: float(face.box[0]))

    def _shows_these_alone(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> bool:
        """Whether the detector would find these faces and no other; told by its first network, at a
        fifth of the time, of which a doubt is enough."""
        if self._model is None or self.turns:
            return False
        boxes = self._model.boxes(image, least=DOUBT * CONFIDENCE_STEPS[0])
        shared = np.array([[overlap(box, face.box) > SAME_FACE for face in faces] for box in boxes])
        return bool(len(boxes) and shared.any(0).all() and shared.any(1).all())

    def _keep(
        self, image: NDArray[np.uint8], detected: list[Face], *, followed: list[Face]
    ) -> list[Face]:
        """Followed faces and further ones that were detected, from left to right."""
        new = [face for face in detected if not _one_of(face, followed)]
        if self._model is not None:
            new = [self._closer(image, face) or face for face in new]
        found = sorted([*followed, *new], key=lambda face: float(face.box[0]))
        self._last = without_faces_in_faces(found)
        return self._last

    def _closer(self, image: NDArray[np.uint8], face: Face) -> Face | None:
        """The face looked at where it was; `None` where it is no more."""
        assert self._model is not None  # noqa: S101
        model = self._model
        points, presence = model.look(image, FaceSquare.around(face.points))
        if LEAST_PRESENCE / 2 < presence < SURE_PRESENCE:
            points, presence = model.look(image, FaceSquare.around(points))
        if presence < LEAST_PRESENCE:
            return None
        return Face(points, Once(lambda: model.blendshapes(points)), face.confidence)

    def _searched(self, image: NDArray[np.uint8], *, all_faces: bool) -> list[Face]:
        upright = turned(image, self.turns)
        return self._back(image, self._detector.search(upright, all_faces=all_faces))

    def _detected(
        self, image: NDArray[np.uint8], hints: Sequence[NDArray[np.float32]]
    ) -> list[Face]:
        height, width = image.shape[:2]
        upright = []
        for hint in hints:
            corners = turned_points(hint.reshape(2, 2), self.turns, width=width, height=height)
            upright.append(np.concatenate([corners.min(0), corners.max(0)]))
        faces = self._detector.detect_all(turned(image, self.turns), hints=upright)
        return self._back(image, faces)

    def _back(self, image: NDArray[np.uint8], faces: list[Face]) -> list[Face]:
        """Faces of the turned picture as they lie in the picture itself."""
        height, width = image.shape[:2]
        if self.turns % 2:
            width, height = height, width
        return [turned_face(face, -self.turns, width=width, height=height) for face in faces]


def without_faces_in_faces(faces: Sequence[Face]) -> list[Face]:
    """Those that don't lie within a larger one: detectors see some in foreheads and cheeks."""

    def is_within(face: Face, larger: Face) -> bool:
        low, high = (
            np.maximum(face.box[:2], larger.box[:2]),
            np.minimum(face.box[2:], larger.box[2:]),
        )
        shared = float(np.prod(np.maximum(high - low, 0)))
        area = float(np.prod(face.box[2:] - face.box[:2]))
        return face.size < larger.size and shared > WITHIN * area

    return [face for face in faces if not any(is_within(face, other) for other in faces)]


def _one_of(face: Face, others: Sequence[Face]) -> bool:
    return any(overlap(face.box, other.box) > SAME_FACE for other in others)
