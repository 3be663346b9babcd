"""How networks are run: by torch, or on a CPU by ncnn in half of the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.networks.swift.ledger import NotRecordedError
from metaportrait_cli.networks.swift.machine import Machine
from metaportrait_cli.networks.swift.recorder import recorded
from metaportrait_cli.stages import side_by_side

Array = NDArray[np.float32]
Function = Callable[..., Sequence[Tensor]]
ALIKE = 1e-3
"""What both may differ by, in units of the largest value: a wrong layer differs by far more."""


class SwiftFunction:
    """A function of tensors (B, …), called with arrays and giving arrays.

    With full precision on a CPU it is recorded at its first call; where that fails, or gives
    anything else, torch goes on running it.
    """

    def __init__(
        self, function: Function, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._function = function
        self._device = torch.device(device)
        self._plain = self._device.type != "cpu" or dtype != torch.float32
        self._recording = threading.Lock()
        self._machine: Machine | None = None

    def __call__(self, *inputs: Array) -> list[Array]:
        """Arrays (B, …) → arrays (B, …); of an input (1, …), all B are the same."""
        with self._recording:
            if not self._plain and self._machine is None:
                self._machine = self._recorded(inputs)
                self._plain = self._machine is None
        if self._machine is None:
            return self._by_torch(inputs)
        batch = max(map(len, inputs))
        machine = self._machine
        singly = [[x[n % len(x)] for x in inputs] for n in range(batch)]
        each = side_by_side(machine, singly)
        return [np.stack(values) for values in zip(*each, strict=True)]

    @property
    def swift(self) -> bool:
        """Whether ncnn runs it, once it was called."""
        return self._machine is not None

    def _by_torch(self, inputs: Sequence[Array]) -> list[Array]:
        batch = max(map(len, inputs))
        with torch.inference_mode():
            tensors = [torch.from_numpy(x).to(self._device) for x in inputs]
            found = self._function(*(x.expand(batch, *x.shape[1:]) for x in tensors))
            return [x.float().cpu().numpy() for x in found]

    def _recorded(self, inputs: Sequence[Array]) -> Machine | None:
        first = [np.ascontiguousarray(x[:1]) for x in inputs]
        try:
            program = recorded(self._function, [torch.from_numpy(x) for x in first])
            machine = Machine(program)
            found = machine([x[0] for x in first])
        except (NotRecordedError, ImportError, ValueError):
            return None
        for wanted, got in zip(self._by_torch(first), found, strict=True):
            if not np.abs(got - wanted[0]).max() <= ALIKE * max(1.0, np.abs(wanted).max()):
                return None
        return machine
