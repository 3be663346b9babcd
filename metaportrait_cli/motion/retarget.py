"""Shows a driver's expression and pose on the source's face shape.

Identity comes from the source, expression and pose from the driver (paper, appendix A), in the
parameters of the morphable model; the result is landmarks in pixels of the source's frame. What the
model cannot express of the source (its residual) is kept as it is, so a result at the reference is
exactly the source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

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
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel

Motion = Literal["relative", "absolute"]
Region = Literal["all", "expression", "pose"]

DETAIL: Final = 0.5
"""Share of the driver's change in residual that is passed on: detail beyond the basis, but also the
detector's noise."""

EYE_FLOOR: Final = 0.15
"""Mean gap over eye width from which an eye counts as open."""

LIP_FLOOR: Final = 0.06
"""The same for lips, in inter-ocular distances."""

CONTACT_FIRMNESS: Final = 0.01
"""Gap errors (model's unit) that are left to moving single points rather than the whole face."""

TURN_LIMITS: Final = np.radians([30.0, 22.0, 35.0]).astype(np.float32)
"""Yaw, pitch and roll beyond the source views' range up to which a source can be turned."""

SHIFT_LIMIT: Final = 0.6
"""Distance, in inter-ocular distances, that a face may move away from where the source has it."""

KNEE: Final = 0.7
"""Share of a limit up to which motion passes unchanged."""


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

    motion: "relative" adds the driver's change since the reference to the source's own expression
    and pose; "absolute" shows the driver's expression and head pose as they are.
    strength: 0 keeps the source still, 1 moves it as much as the driver, more exaggerates.
    region: which part of the motion is passed on.
    """

    def __init__(
        self,
        *,
        model: MorphableModel,
        source_landmarks: Floats,
        motion: Motion = "relative",
        strength: float = 1.0,
        region: Region = "all",
    ) -> None:
        """Fits the source: landmarks (478, 3) in pixels, or (S, 478, 3) of S pictures of a person.

        The first picture gives the frame, the expression and the place of the result.
        """
        views = np.asarray(source_landmarks, np.float32).reshape(-1, POINTS, 3)
        self.model = model
        self.motion: Motion = motion
        self.strength = strength
        self.region: Region = region
        self.views = fit_frames(model, views, fit_identity(model, views))
        self.source = self.views.frame(0)
        self._rest = self._faces(self.source)
        self._gap_shares = self._mean_gap_shares()
        self._gap_gain = self._gap_operator()

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
        faces = self._faces(driver)
        openness = apertures.eye_openness(faces).mean(-1)
        widest = np.quantile(openness, 0.75)
        distance += 4 * np.maximum(0, 1 - openness / widest) ** 2 / 0.2**2
        lips = apertures.mouth_openness(faces) - apertures.mouth_openness(self._rest)
        distance += 2 * (lips / LIP_FLOOR) ** 2
        distance += (driver.error / np.median(driver.error)) ** 2
        return int(distance.argmin())

    def retarget(self, driver: FaceParameters, reference: FaceParameters) -> Retargeted:
        """Landmarks of the source performing the driver's T frames.

        `driver` is fitted (and smoothed) with the driver's own identity; `reference` is one frame
        of the same fit, usually the one `choose_reference` names.
        """
        if len(reference) != 1:
            raise ValueError(f"the reference has {len(reference)} frames, expected one")
        faces = self._express(driver, reference)
        rotation, scale, translation, clamped = self._place(driver, reference)
        landmarks = from_frame(faces, rotation, scale, translation).astype(np.float32)
        return Retargeted(landmarks=landmarks, rotation=rotation, clamped=clamped)

    def _faces(self, parameters: FaceParameters) -> Floats:
        """Faces (T, 478, 3) in the model frame, residual included."""
        p = parameters
        return self.model.shape(p.identity, p.expression, p.gaze) + p.residual

    def _express(self, driver: FaceParameters, reference: FaceParameters) -> Floats:
        """The source's face (T, 478, 3) in the model frame with the driver's expression."""
        source = self.source
        strength = 0.0 if self.region == "pose" else self.strength
        start = reference if self.motion == "relative" else source
        expression = source.expression + strength * (driver.expression - start.expression)
        gaze = source.gaze + strength * (driver.gaze - start.gaze)
        # Differences to the driver's own reference: its constant part is the driver's identity.
        detail = strength * DETAIL * (driver.residual - reference.residual)
        detail[:, MESH_POINTS:] = 0
        residual = source.residual + detail
        faces = self.model.shape(source.identity, expression, gaze) + residual
        if strength == 0:
            return faces
        wanted = self._wanted_gaps(driver, reference, strength)
        expression = expression + (wanted - apertures.gaps(faces)) @ self._gap_gain
        mesh = self.model.shape(source.identity, expression, gaze) + residual
        mesh = apertures.opened(mesh, wanted - apertures.gaps(mesh))[:, :MESH_POINTS]
        faces = self.model.with_irises(mesh, gaze)
        faces[:, MESH_POINTS:] += residual[:, MESH_POINTS:]
        return faces

    def _wanted_gaps(
        self, driver: FaceParameters, reference: FaceParameters, strength: float
    ) -> Floats:
        """Gaps (T, G) between lids and lips: the driver's, scaled to the source's own apertures."""
        gaps = apertures.gaps(self._faces(driver))
        rest = apertures.gaps(self._rest)
        if self.motion == "relative":
            own, start = rest, apertures.gaps(self._faces(reference))
        else:  # apertures of either person at average expression, their individual form included
            own, start = self._own_gaps(self.source), self._own_gaps(reference)
        size = np.ones(gaps.shape[1], np.float32)
        floor = np.empty_like(size)
        widths = self._eye_size(self.source)
        ratios = widths / self._eye_size(reference)
        for eye, ratio, width in zip(apertures.EYES, ratios, widths, strict=True):
            size[eye] = ratio
            floor[eye] = EYE_FLOOR * width
        floor[apertures.LIPS] = LIP_FLOOR
        floor = floor * self._gap_shares
        eyes = slice(0, apertures.LIPS.start)
        # A source seen with closed eyes opens them when the driver's are open.
        own[:, eyes] = np.maximum(own[:, eyes], np.minimum(start * size, floor / 2)[:, eyes])
        wanted = apertures.transferred(gaps * size, own, start * size, floor)
        exaggerated = rest + strength * (wanted - rest)
        # Exaggeration mustn't push one lid or lip through the other.
        return np.maximum(exaggerated, np.minimum(wanted, 0))

    def _own_gaps(self, parameters: FaceParameters) -> Floats:
        """Gaps (1, G) of a person at average expression."""
        rest = self.model.rest(parameters.identity)[None]
        return apertures.gaps(rest)

    def _mean_gap_shares(self) -> Floats:
        """Each gap (G,) of the mean face over the mean of its eye or mouth: less at the corners."""
        gaps = apertures.gaps(self.model.mean)
        groups = (*apertures.EYES, apertures.LIPS)
        return np.concatenate([gaps[group] / gaps[group].mean() for group in groups])

    def _eye_size(self, parameters: FaceParameters) -> Floats:
        """Widths (2,) of a person's eyes, in the model's unit."""
        return apertures.eye_widths(self.model.rest(parameters.identity))

    def _gap_operator(self) -> Floats:
        """(G, E) least change of expression, in standard deviations, that changes gaps by one."""
        effect = apertures.gaps(self.model.expression_basis).T  # (G, E)
        normal = effect @ effect.T + CONTACT_FIRMNESS**2 * np.eye(len(effect), dtype=np.float32)
        return np.linalg.solve(normal, effect)

    def _place(
        self, driver: FaceParameters, reference: FaceParameters
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Rotation (T, 3, 3), scale (T,), translation (T, 3) of the result, and what was clamped.

        Relative motion locks the scale: a driver's size changes come from the camera, or from a
        detector that breathes, more often than from leaning forward.
        """
        source, count = self.source, len(driver)
        strength = 0.0 if self.region == "expression" else self.strength
        start = reference if self.motion == "relative" else source
        turn = vector_of(driver.rotation @ np.swapaxes(start.rotation, -1, -2))
        wanted = angles_of(rotation_of_vector(strength * turn) @ source.rotation)
        angles = self._supported(wanted)
        turned = np.abs(angles - wanted).max(-1) > np.radians(1)

        scale = np.repeat(source.scale, count)
        if self.motion == "absolute":
            scale = scale * (driver.scale / reference.scale) ** strength
        shift = strength * (driver.translation - reference.translation) / reference.scale[:, None]
        shift[:, 2] = 0  # depth says nothing under weak perspective
        distance = np.linalg.norm(shift, axis=-1, keepdims=True)
        held = _soft(distance, np.full(1, SHIFT_LIMIT, np.float32))
        shift = shift * held / np.maximum(distance, 1e-6)
        translation = source.translation + shift * source.scale[:, None]
        clamped = turned | (distance - held > 0.02)[:, 0]
        return rotation_of(angles), scale, translation, clamped

    def _supported(self, angles: Floats) -> Floats:
        """Angles (T, 3) brought softly into the range that the source's views support."""
        views = self.views.angles
        low, high = views.min(0), views.max(0)
        inside = np.clip(angles, low, high)
        beyond = angles - inside
        return inside + np.sign(beyond) * _soft(np.abs(beyond), TURN_LIMITS)


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


def _soft(amount: Floats, limit: Floats) -> Floats:
    """Passes non-negative amounts up to KNEE * limit, then approaches the limit smoothly."""
    knee, room = KNEE * limit, (1 - KNEE) * limit
    over = np.maximum(amount - knee, 0)
    return np.minimum(amount, knee) + room * np.tanh(over / room)
