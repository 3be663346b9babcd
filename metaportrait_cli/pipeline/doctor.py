"""`doctor`: is everything there that the other commands need?"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata

import metaportrait_cli
from metaportrait_cli.errors import FfmpegError, MetaPortraitError, WeightsError
from metaportrait_cli.imports import cure, is_missing_library
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.media.process import telling_line
from metaportrait_cli.weights import bundled_path

LIBRARIES = {
    "torch": "torch",
    "mediapipe": "mediapipe",
    "ai-edge-litert": "ai_edge_litert",
    "ncnn": "ncnn",
    "opencv-python": "cv2",
    "av": "av",
    "numpy": "numpy",
    "pillow": "PIL",
    "safetensors": "safetensors",
}
"""What is installed by one name, and imported by the other; here only when it is looked at."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `detail` says what it is, or what to do."""

    name: str
    ok: bool
    detail: str
    exit_code: int = 0


def examine() -> list[Finding]:
    """Looks at everything; never raises."""
    return [
        Finding("metaportrait", True, metaportrait_cli.__version__),
        Finding(
            "machine",
            True,
            f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        ),
        *(_library(name, module) for name, module in LIBRARIES.items()),
        _single_opencv(),
        _tried("ffmpeg", FfmpegError.exit_code, _ffmpeg),
        _tried("encoder libx264", FfmpegError.exit_code, _encoder),
        _tried("landmark model", WeightsError.exit_code, _landmark_model),
        _tried("device", 1, _device),
    ]


def _library(name: str, module: str) -> Finding:
    try:
        import_module(module)
        return Finding(name, True, _version(name) or "of unknown version")
    except Exception as error:  # noqa: BLE001  a broken library may raise anything
        return Finding(name, False, cure(error), exit_code=1)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _single_opencv() -> Finding:
    packages = ("opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
    others = [name for name in packages if _version(name)]
    if others:
        advice = f"{', '.join(others)} shares its files with opencv-python; pip uninstall it"
        return Finding("one OpenCV", False, advice, exit_code=1)
    return Finding("one OpenCV", True, "yes")


def _tried(name: str, exit_code: int, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except MetaPortraitError as error:
        return Finding(name, False, str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001  a doctor reports whatever ails
        if is_missing_library(error):
            return Finding(name, False, cure(error), exit_code=1)
        return Finding(name, False, f"{type(error).__name__}: {error}", exit_code=exit_code)


def _ffmpeg() -> str:
    binary = ffmpeg_binary()
    shown = subprocess.run([binary, "-version"], capture_output=True, text=True, check=True)
    return f"{shown.stdout.split(' Copyright')[0]} ({binary})"


def _encoder() -> str:
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-f", "lavfi", "-i"]
    command += ["color=size=64x64:duration=0.1", "-c:v", "libx264", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FfmpegError(
            f"ffmpeg can't encode H.264 ({telling_line(done.stderr) or 'no message'});"
            " install an ffmpeg with libx264"
        )
    return "works"


def _landmark_model() -> str:
    path = bundled_path("face_landmarker")
    import numpy as np  # noqa: PLC0415

    from metaportrait_cli.face.detector import MediaPipeDetector  # noqa: PLC0415

    with MediaPipeDetector(path) as detector:
        detector.detect(np.zeros((64, 64, 3), np.uint8))
    return f"loads ({path})"


def _device() -> str:
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"
