"""Reads the authors' ``.pth`` and ``.pth.tar`` files, which are pickles, without trusting them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.files import reject_pointer

MODULE_PREFIX = "module."  # left by torch's parallel wrappers
# Trainers store counters and scores as numpy numbers. Making one runs nothing of the file's own;
# every other callable in a pickle is refused.
_SCALAR = np.float64(0).__reduce__()[0]
SAFE_GLOBALS: list[Any] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 called it
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")},
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary that a training program saved, tensors on the CPU.

    Only tensors, plain containers and numbers are read. A file that asks for anything else is
    refused before anything of it runs. Raises WeightsError.
    """
    reject_pointer(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # what is wrong is told below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _begins_as_checkpoint(path):
            raise WeightsError(
                f"{path}: is damaged or no PyTorch checkpoint (neither a zip archive nor a pickle);"
                " download it again"
            ) from None
        raise WeightsError(
            f"{path}: refused, nothing of it was run: it holds more than weights"
            f"{_culprit(error)}; get the file from its authors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: is damaged or no PyTorch checkpoint ({reason[:120]}); download it again"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not named weights")
    return content


def plain_state(state: Any, *, where: str) -> dict[str, Tensor]:
    """A state dict without the prefix that parallel training leaves; all values tensors."""
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{where}: holds no named weights")
    strangers = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(f"{where}: {strangers[0]} is not a tensor")
    if all(key.startswith(MODULE_PREFIX) for key in state):
        return {key.removeprefix(MODULE_PREFIX): value for key, value in state.items()}
    return dict(state)


def _begins_as_checkpoint(path: Path) -> bool:
    """Whether the file starts as what `torch.save` writes: a zip archive, or a pickle."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def _culprit(error: pickle.UnpicklingError) -> str:
    """In parentheses the name of what the file wanted to call, out of torch's long explanation."""
    text = str(error)
    for start in ("WeightsUnpickler error:", "GLOBAL "):
        if start in text:
            told = text[text.index(start) :].removeprefix("WeightsUnpickler error:").split("\n")
            named = next((line.strip()[:120] for line in told if line.strip()), "")
            return f" ({named})" if named else ""
    return " (an unreadable pickle)"
