"""Shows a driver's expression and pose on the source's face shape.

Identity comes from the source, expression and pose from the driver (paper, appendix A), in the
parameters of the morphable model; the result is landmarks in pixels of the source's frame. What the
model cannot express of the source (its residual) is kept as it is.

Motion is counted from a reference of the driver and added to a start of the source: usually either
person's rest, see `motion.rest`; or a frame of the driver and the source as its picture shows it,
and then a result at the reference is exactly the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.topology import MESH_POINTS, POINTS
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import (
    Floats,
    angles_of,
    from_frame,
    rotation_of,
    rotation_of_vector,
    vector_of,
)
from metaportrait_cli.motion.compensation import Compensation
from metaportrait_cli.motion.fitting import (
    FaceParameters,
    fit_frames,
    fit_identity,
    still_faces,
)
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.rest import at_rest, near_picture
from metaportrait_cli.motion.strengths import Strengths, mixed
from metaportrait_cli.motion.turning import eased, exaggerated, soft, supported

Motion = Literal["relative", "absolute"]
Framing = Literal["source", "driver"]

DETAIL: Final = 0.5
"""Share of the driver's change in residual that is passed on: detail beyond the basis, but also the
detector's noise."""

EYE_FLOOR: Final = 0.15
"""Mean gap over eye width from which an eye counts as open."""

EYE_SHUT: Final = (0.05, 0.3)
"""Openness over that at rest below which an eye is shut, and from which on it is as open as it is
seen: of a closed eye the detector often leaves a tenth open, above all where the other is open."""

WINK: Final = 0.2
"""Difference between the eyes' openness over that at rest that is noise, or a face. The detector
couples the eyes: of what goes beyond, it shows too little …"""

UNCOUPLED: Final = 0.5
"""… by this share, on the side of the more closed one …"""

WINK_SEEN: Final = np.radians([12.0, 22.0]).astype(np.float32)
"""… where a face looks into the camera: to the first of these angles, and no more at the second.
Of a turned face's eyes one is seen worse than the other …"""

FAR_OPEN: Final = 0.1
"""… the one behind the nose: there it is as open as the nearer one, or by so much more. Beyond 32
degrees it is taken to be open by a quarter more where the nearer one is half closed (65 clips)."""

LIP_FLOOR: Final = 0.06
"""The same for lips, in inter-ocular distances."""

SHIFT_LIMIT: Final = 0.6
"""Distance, in inter-ocular distances, that a face may move away from where the source has it."""

SIZE_LIMIT: Final = 0.3
"""Natural logarithm of how much larger or smaller a face may become than the source has it."""

GAZE_LIMITS: Final = ((-0.65, 0.65), (-0.4, 0.2))
"""Gaze to the right and down, in half eye widths, that eyes turn to, see `morphable`. Of 1,800
frames one in a thousand is beyond, for the most where the detector lost an iris behind glasses or
in a turned face. An iris behind the lids isn't painted as an eye that looks away, but blank."""

APART_LIMITS: Final = (0.25, 0.1)
"""The same for how far either eye looks from where both do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retargeted:
    """The driver's performance on the source's face."""

    landmarks: Floats
    """(T, 478, 3) in pixels of the source's (first) frame."""

    rotation: Floats
    """(T, 3, 3) of the result."""

    clamped: NDArray[np.bool_]
    """(T,) frames whose pose was reduced by more than a degree (or a fiftieth of a face)."""


class Retargeter:
    """One source person, ready to be driven. Holds no state between calls: windows are independent.

    motion: "relative" adds the driver's change of pose since the reference to the source's own
    pose; "absolute" shows the driver's head pose as it is. Expression is the same in both.
    framing: "source" keeps the face at the source's size and around its place; with "driver" it
    has the driver's size and place, counted from the reference's.
    strength: 0 keeps the source still, 1 moves it as much as the driver, more exaggerates.
    region: which parts of the motion are passed on, and how strongly each, see `Strengths`.
    turn: what is added to the pose, (yaw, pitch, roll) in radians, see `alignment`.
    """

    def __init__(
        self,
        *,
        model: MorphableModel,
        source_landmarks: Floats,
        source_blendshapes: Floats | None = None,
        motion: Motion = "relative",
        framing: Framing = "source",
        strength: float = 1.0,
        region: str = "all",
        turn: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Fits the source: landmarks (478, 3) in pixels, or (S, 478, 3) of S pictures of a person.

        The first picture gives the frame, the gaze and the place of the result. Blendshapes (S, B)
        of the pictures tell the person's rest; without them it is the first picture's expression.
        """
        views = np.asarray(source_landmarks, np.float32).reshape(-1, POINTS, 3)
        self.model = model
        self.motion: Motion = motion
        self.framing: Framing = framing
        self.strength = strength
        self.region = region
        self._turn = np.asarray(turn, np.float32)
        self._landmarks = views
        self._blendshapes = source_blendshapes
        self.know_as(fit_identity(model, views))
        self._gap_shares = self._mean_gap_shares()
        self.compensation: Compensation | None = None
        """What is asked for beyond the driver's expression, so that as much of it is seen."""

    def know_as(self, identity: Floats) -> None:
        """Fits the pictures anew with a person's identity (K,) that is known from elsewhere."""
        self.views = fit_frames(self.model, self._landmarks, identity)
        self.source = self.views.frame(0)
        self.rest = self.source
        if self._blendshapes is not None:
            rest = at_rest(self.model, self.views, self._blendshapes)
            self.rest = near_picture(self.model, rest, self.source)
        self._shown = still_faces(self.model, self.source)

    def choose_reference(self, driver: FaceParameters) -> int:
        """The driver's frame to count its motion from: the one most like the source.

        Like in expression and pose, with open eyes, lips about as far open as the source's, a look
        in the same direction, and landmarks that fit well.
        """
        model, source = self.model, self.source
        weight = model.expression_jitter.mean() / model.expression_jitter
        distance = (weight * (driver.expression - source.expression) ** 2).mean(-1) / weight.mean()
        turn = vector_of(driver.rotation @ source.rotation[0].T)
        distance = distance + 4 * (turn**2).sum(-1) / np.radians(20) ** 2
        distance += 0.5 * ((driver.gaze - source.gaze) ** 2).mean((-1, -2)) / 0.15**2
        faces = still_faces(model, driver)
        openness = apertures.eye_openness(faces).mean(-1)
        widest = np.quantile(openness, 0.75)
        distance += 4 * np.maximum(0, 1 - openness / widest) ** 2 / 0.2**2
        lips = apertures.mouth_openness(faces) - apertures.mouth_openness(self._shown)
        distance += 2 * (lips / LIP_FLOOR) ** 2
        distance += (driver.error / np.median(driver.error)) ** 2
        return int(distance.argmin())

    def retarget(
        self,
        driver: FaceParameters,
        reference: FaceParameters,
        *,
        start: FaceParameters | None = None,
    ) -> Retargeted:
        """Landmarks of the source performing the driver's T frames.

        `driver` is fitted (and smoothed) with the driver's own identity; `reference` is one frame
        of the same fit, `start` one frame of the source that corresponds to it: `rest` where the
        reference is the driver's rest; by default the source's first picture.
        """
        if len(reference) != 1:
            raise ValueError(f"the reference has {len(reference)} frames, expected one")
        strengths = Strengths.of(self.region, self.strength)
        rotation, scale, translation, clamped = self._place(driver, reference, strengths.pose)
        angles = angles_of(rotation)
        faces = {
            strength: self._eased(driver, reference, start or self.source, strength, angles)
            for strength in set(strengths.of_face.values())
        }
        face = mixed(faces, strengths, self.model.mean)
        landmarks = from_frame(face, rotation, scale, translation).astype(np.float32)
        return Retargeted(landmarks=landmarks, rotation=rotation, clamped=clamped)

    def still(self) -> Floats:
        """Landmarks (478, 3) of the source as it is, but turned."""
        if not self._turn.any():
            return self._landmarks[0]
        rotation = rotation_of(supported(self.source.angles + self._turn, self.views.angles))
        faces = self.model.shape(self.source.identity, self.source.expression, self.source.gaze)
        faces = faces + self.source.residual
        turned = from_frame(faces, rotation, self.source.scale, self.source.translation)
        return turned[0].astype(np.float32)

    def _eased(
        self,
        driver: FaceParameters,
        reference: FaceParameters,
        start: FaceParameters,
        strength: float,
        angles: Floats,
    ) -> Floats:
        """Faces (T, 478, 3) as `_express` has them, exaggerated less where heads are turned."""
        faces = self._express(driver, reference, start, strength)
        share = eased(strength, angles)[:, None, None]
        if (share == 1).all():
            return faces
        plain = self._express(driver, reference, start, 1)
        return plain + share * (faces - plain)

    def _express(
        self,
        driver: FaceParameters,
        reference: FaceParameters,
        start: FaceParameters,
        strength: float,
    ) -> Floats:
        """The source's face (T, 478, 3) in the model frame with the driver's expression."""
        source = self.source
        # Less than the whole motion leaves something of what the picture shows.
        begin = source.expression + min(strength, 1) * (start.expression - source.expression)
        expression = begin + strength * (driver.expression - reference.expression)
        gaze = self._gaze(source.gaze + strength * (driver.gaze - reference.gaze))
        # Differences to the driver's own reference: its constant part is the driver's identity.
        detail = strength * DETAIL * (driver.residual - reference.residual)
        detail[:, MESH_POINTS:] = 0
        residual = source.residual + detail
        faces = self.model.shape(source.identity, expression, gaze) + residual
        if strength == 0:
            return faces
        wanted = self._wanted_gaps(driver, reference, start, strength)
        missing = wanted - apertures.gaps(faces)
        expression = expression + missing @ apertures.gap_operator(self.model)
        mesh = self.model.shape(source.identity, expression, gaze) + residual
        mesh = apertures.opened(mesh, wanted - apertures.gaps(mesh))[:, :MESH_POINTS]
        if self.compensation is not None:
            mesh = self.compensation.applied(self.model, mesh, self._shown)
        faces = self.model.with_irises(mesh, gaze)
        faces[:, MESH_POINTS:] += residual[:, MESH_POINTS:]
        return faces

    def _gaze(self, wanted: Floats) -> Floats:
        """Gaze (T, 2, 2) where eyes can look, or the source's do."""
        low, high = np.array(GAZE_LIMITS, np.float32).T
        own = self.source.gaze
        together = wanted.mean(1, keepdims=True)
        most = np.maximum(
            np.array(APART_LIMITS, np.float32), np.abs(own - own.mean(1, keepdims=True))
        )
        looking = together + np.clip(wanted - together, -most, most)
        return np.clip(looking, np.minimum(low, own), np.maximum(high, own))

    def _wanted_gaps(
        self,
        driver: FaceParameters,
        reference: FaceParameters,
        start: FaceParameters,
        strength: float,
    ) -> Floats:
        """Gaps (T, G) between lids and lips: the driver's, scaled to the source's own apertures."""
        gaps = apertures.gaps(still_faces(self.model, driver))
        shown = apertures.gaps(self._shown)
        own = apertures.gaps(still_faces(self.model, start))
        begin = apertures.gaps(still_faces(self.model, reference))
        size = np.ones(gaps.shape[1], np.float32)
        floor = np.empty_like(size)
        widths = self._eye_size(self.source)
        ratios = widths / self._eye_size(reference)
        shares = _seen_shares(driver, gaps, begin)
        for eye, share, ratio, width in zip(apertures.EYES, shares, ratios, widths, strict=True):
            gaps[:, eye] *= share[:, None]
            size[eye] = ratio
            floor[eye] = EYE_FLOOR * width
        floor[apertures.LIPS] = LIP_FLOOR
        floor = floor * self._gap_shares
        eyes = slice(0, apertures.LIPS.start)
        # A source seen with closed eyes opens them when the driver's are open.
        own[:, eyes] = np.maximum(own[:, eyes], np.minimum(begin * size, floor / 2)[:, eyes])
        wanted = apertures.transferred(gaps * size, own, begin * size, floor)
        before = shown + min(strength, 1) * (own - shown)
        exaggerated = before + strength * (wanted - own)
        # Exaggeration mustn't push one lid or lip through the other.
        return np.maximum(exaggerated, np.minimum(wanted, 0))

    def _mean_gap_shares(self) -> Floats:
        """Each gap (G,) of the mean face over the mean of its eye or mouth: less at the corners."""
        gaps = apertures.gaps(self.model.mean)
        groups = (*apertures.EYES, apertures.LIPS)
        return np.concatenate([gaps[group] / gaps[group].mean() for group in groups])

    def _eye_size(self, parameters: FaceParameters) -> Floats:
        """Widths (2,) of a person's eyes, in the model's unit."""
        return apertures.eye_widths(self.model.rest(parameters.identity))

    def _place(
        self, driver: FaceParameters, reference: FaceParameters, strength: float
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Rotation (T, 3, 3), scale (T,), translation (T, 3) of the result, and what was clamped.

        The source's framing locks its scale: a driver's size changes come from the camera, or from
        a detector that breathes, more often than from leaning forward.
        """
        source, count = self.source, len(driver)
        start = reference if self.motion == "relative" else source
        turn = vector_of(driver.rotation @ np.swapaxes(start.rotation, -1, -2))
        wanted, own = (
            angles_of(rotation_of_vector(share * turn) @ source.rotation) + self._turn
            for share in (strength, min(strength, 1))
        )
        angles = exaggerated(wanted, own, self.views.angles)
        turned = np.abs(angles - wanted).max(-1) > np.radians(1)

        scale = np.repeat(source.scale, count)
        if self.framing == "driver":
            growth = strength * np.log(driver.scale / reference.scale)
            held = np.sign(growth) * soft(np.abs(growth), np.full(1, SIZE_LIMIT, np.float32))
            scale = scale * np.exp(held)
        shift = strength * (driver.translation - reference.translation) / reference.scale[:, None]
        shift[:, 2] = 0  # depth says nothing under weak perspective
        distance = np.linalg.norm(shift, axis=-1, keepdims=True)
        held = soft(distance, np.full(1, SHIFT_LIMIT, np.float32))
        shift = shift * held / np.maximum(distance, 1e-6)
        translation = source.translation + shift * source.scale[:, None]
        clamped = turned | (distance - held > 0.02)[:, 0]
        return rotation_of(angles), scale, translation, clamped


def _seen_shares(driver: FaceParameters, gaps: Floats, rest: Floats) -> Floats:
    """How much (2, T) of the gaps (T, G) between lids is really open; `rest` (1, G)."""
    openness = np.stack(
        [gaps[:, eye].mean(-1) / np.maximum(rest[:, eye].mean(-1), 1e-3) for eye in apertures.EYES]
    )
    yaw = driver.angles[:, 0]
    low, high = WINK_SEEN
    turned = smoothstep((np.abs(yaw) - low) / (high - low))
    behind = np.maximum(openness[::-1] - openness - WINK, 0) * (1 - turned)
    far = np.stack([yaw > 0, yaw < 0])
    beyond = np.maximum(openness - openness[::-1] - FAR_OPEN, 0) * far * turned
    alone = openness - UNCOUPLED * behind - beyond
    shut, seen = EYE_SHUT
    kept = np.clip(alone / np.maximum(openness, 1e-3), 0, 1)
    return kept * smoothstep((alone - shut) / (seen - shut))


def rebased(reference: FaceParameters, shot: FaceParameters) -> FaceParameters:
    """The reference with a whole shot's framing: its face, but the shot's usual place and size.

    The face in the result then stays around the source's place, whichever frame is the reference.
    After a cut, where the driver's face is elsewhere and of another size, the result doesn't jump.
    """
    return replace(
        reference,
        scale=np.median(shot.scale, keepdims=True),
        translation=np.median(shot.translation, axis=0, keepdims=True),
    )


def framed(
    reference: FaceParameters,
    source: FaceParameters,
    *,
    driver_size: tuple[int, int],
    source_size: tuple[int, int],
) -> FaceParameters:
    """The reference at that place and size in the driver's picture which the source has in its own.

    Sizes are (width, height); pictures correspond as if the driver's, as large as fits into the
    source's, lay on its middle.
    """
    zoom = min(theirs / own for theirs, own in zip(source_size, driver_size, strict=True))
    middle = np.array([*driver_size, 0], np.float32) / 2
    other = np.array([*source_size, 0], np.float32) / 2
    return replace(
        reference,
        scale=source.scale / np.float32(zoom),
        translation=((source.translation - other) / np.float32(zoom) + middle).astype(np.float32),
    )
