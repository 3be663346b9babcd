"""What a result says of its origin beside its tags: a label in the picture, a signed manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import metaportrait_cli
from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import atomic_output

LABEL = "AI-generated"
_LABEL_SHARE = 0.035
"""Of the picture's shorter side, the label's height; at least `_LEAST_LABEL` pixels."""
_LEAST_LABEL = 12
_KINDS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
_ALGORITHMS = ("es256", "es384", "es512", "ps256", "ed25519")
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


class Label:
    """Writes `LABEL` into a corner of each picture; of one size."""

    def __init__(self) -> None:
        self._drawn: NDArray[np.uint8] | None = None

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture (H, W, 3) with the label, a new array."""
        if self._drawn is None:
            self._drawn = _drawn(*picture.shape[:2])
        height, width = self._drawn.shape[:2]
        labelled = picture.copy()
        corner = labelled[-height:, :width]
        corner[:] = cv2.addWeighted(corner, 0.35, self._drawn, 0.65, 0)
        return labelled


def _drawn(height: int, width: int) -> NDArray[np.uint8]:
    """White on black, (h, w, 3), within a picture of this size."""
    text_height = max(_LEAST_LABEL, round(_LABEL_SHARE * min(height, width)))
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = cv2.getFontScaleFromHeight(font, text_height * 6 // 10)
    (length, _), base = cv2.getTextSize(LABEL, font, scale, 1)
    room = np.zeros((text_height + base, length + text_height, 3), np.uint8)
    place = (text_height // 2, text_height - 1)
    cv2.putText(room, LABEL, place, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return room[:height, :width]


@dataclass(frozen=True)
class Signing:
    """A certificate with its chain, and its private key: PEM files of the user's."""

    certificate: Path
    key: Path

    def check(self, output: Path) -> None:
        """Raises `UsageError` for what can't be signed or signed with, before any work."""
        if output.suffix.lower() not in _KINDS:
            raise UsageError(f"{output}: signed are {', '.join(_KINDS)}: choose one of them")
        self.algorithm()

    def seal(self, path: Path) -> None:
        """Signs a finished file in place, and reads it back; or raises and leaves it as it was.

        Raises `UsageError` if the certificate is refused.
        """
        import c2pa  # noqa: PLC0415  optional

        manifest = {
            "claim_generator_info": [
                {"name": "metaportrait", "version": metaportrait_cli.__version__}
            ],
            "title": "Re-enacted portrait",
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {
                        "actions": [{"action": "c2pa.created", "digitalSourceType": _SOURCE_TYPE}]
                    },
                }
            ],
        }
        with atomic_output(path) as sealed:
            try:
                with (
                    c2pa.Signer.from_info(self._signer_info(self.algorithm())) as signer,
                    c2pa.Builder(json.dumps(manifest)) as builder,
                ):
                    builder.sign_file(path, sealed, signer)
            except c2pa.C2paError as error:
                raise UsageError(f"{self.certificate} can't sign: {error}") from error
            wrong = problems(sealed)
            if wrong:
                raise UsageError(f"{self.certificate} can't sign: {'; '.join(wrong)}")

    def _signer_info(self, algorithm: str) -> object:
        import c2pa  # noqa: PLC0415

        try:
            texts = [path.read_bytes() for path in (self.certificate, self.key)]
        except OSError as error:
            raise UsageError(f"{self.certificate}, {self.key}: can't be read: {error}") from error
        return c2pa.C2paSignerInfo(algorithm, *texts, None)

    def algorithm(self) -> str:
        """The one that the key is for. Raises `UsageError` for what can't be signed with."""
        try:
            import c2pa  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                "`sign` needs the C2PA library: pip install 'metaportrait-cli[c2pa]'"
            ) from error
        reason = ""
        for name in _ALGORITHMS:
            try:
                c2pa.Signer.from_info(self._signer_info(name)).close()
            except c2pa.C2paError as error:
                reason = reason or str(error)
            else:
                return name
        raise UsageError(f"{self.key} is no key to sign with: {reason}")


def problems(path: Path) -> list[str]:
    """What is wrong with the manifest of a file; of a certificate that only its owner knows, not
    that it isn't on a list."""
    import c2pa  # noqa: PLC0415

    with c2pa.Reader(_KINDS.get(path.suffix.lower(), "video/mp4"), path.open("rb")) as reader:
        told = json.loads(reader.json())
    found = told.get("validation_status", [])
    return [each["code"] for each in found if each["code"] != "signingCredential.untrusted"]
