"""What `--device` and `--precision` name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaportrait_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")


def check_names(device: str, precision: str) -> None:
    """Raises `UsageError` for settings that don't exist; needs no torch."""
    if device not in DEVICES:
        raise UsageError(f"--device {device}: choose one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")


def choose(device: str, precision: str) -> tuple[str, torch.dtype]:
    """The device and the precision to compute in; `auto` takes the best there is.

    Raises `UsageError` for unknown settings and for a device that this machine lacks.
    """
    import torch  # noqa: PLC0415  takes seconds, and the analytic warp doesn't need it

    check_names(device, precision)
    has = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in has.items() if there)
    if not has[device]:
        raise UsageError(f"--device {device}: this machine has none that torch can use")
    if precision == "auto":
        return device, torch.bfloat16 if device == "cuda" else torch.float32
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return device, kinds[precision]
