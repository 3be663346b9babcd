"""A student as an ONNX file: landmarks in, a picture out, for whatever runs ONNX.

Input `landmarks` (1, 478, 3) float32: MediaPipe's points in sides of the student's crop, x to the
right, y down. Output `picture` (1, 3, S, S) float32, RGB in [0, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.networks.student import LANDMARKS, Student

OPSET: Final = 20


def export_onnx(student: Student, path: Path) -> None:
    """Writes the file, whole or not at all. Raises `UsageError` without the packages it takes."""
    try:
        import onnx  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError:
        raise UsageError(
            "`onnx` needs the packages onnx and onnxscript: pip install 'metaportrait-cli[onnx]'"
        ) from None
    landmarks = torch.zeros(1, LANDMARKS, 3)
    with atomic_output(path) as partial, torch.inference_mode():
        torch.onnx.export(
            _Painter(student).eval(),
            (landmarks,),
            partial,
            input_names=["landmarks"],
            output_names=["picture"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


class _Painter(nn.Module):
    """The student with its pictures in [0, 1], as the exporter takes it."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("pictures", student.pictures_at(student.config.size))

    def forward(self, landmarks: Tensor) -> Tensor:
        return self.student(landmarks, self.pictures).clamp(0, 1)
