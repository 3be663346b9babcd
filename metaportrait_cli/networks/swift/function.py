"""A torch function that is run by ncnn where that can be, without torch if it is known already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.swift.machine import Machine
from metaportrait_cli.networks.swift.program import Program
from metaportrait_cli.networks.swift.quantized import Ranges, is_fast, quantized
from metaportrait_cli.stages import side_by_side

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[np.float32]
Input = NDArray[Any]
NetworkT = TypeVar("NetworkT", bound="nn.Module")
Function = Callable[..., Sequence["Tensor"]]
ALIKE = 1e-3
"""What both may differ by, in units of the largest value: a wrong layer differs by far more."""


class Shelf(Protocol):
    """Keeps programs from run to run."""

    def holds(self, name: str) -> bool:
        """Whether `get` would probably find it."""
        ...

    def get(self, name: str) -> Program | None:
        """The one that was put there, if it is still there."""
        ...

    def put(self, name: str, program: Program) -> None:
        """For later; it may fail to be kept."""
        ...


@dataclass(frozen=True)
class Running:
    """Where networks run, how exactly, and where what ncnn needs of them is kept."""

    device: str = "cpu"
    precision: str = "float32"
    """A name of torch's"""
    shelf: Shelf | None = None
    ranges: Ranges = field(default_factory=dict)
    """Of convolutions that may be done in bytes, where the CPU is fast with them"""

    @property
    def swift(self) -> bool:
        """Whether ncnn may do it."""
        return self.device == "cpu" and self.precision == "float32"

    def machine(self, program: Program) -> Machine:
        """What runs it, in bytes where it may. Raises as `Machine` does."""
        if self.ranges and is_fast():
            with suppress(ValueError):  # a build of ncnn without them
                return Machine(quantized(program, self.ranges))
        return Machine(program)

    def placed(self, network: NetworkT) -> NetworkT:
        """The network there, frozen, when torch has to run it."""
        import torch  # noqa: PLC0415  takes seconds, and is seldom needed

        from metaportrait_cli.networks.compact_blocks import channels_last  # noqa: PLC0415

        network = network.eval().requires_grad_(False)
        return channels_last(network.to(self.device, getattr(torch, self.precision)))


class SwiftFunction:
    """A function of tensors (B, …), called with arrays and giving arrays.

    With full precision on a CPU it is recorded at its first call, or found on the shelf; where that
    fails, or gives anything else, torch goes on running it.
    """

    def __init__(
        self,
        make: Callable[[], Function],
        running: Running | None = None,
        *,
        name: str = "",
        any_size: bool = False,
    ) -> None:
        """`make` imports torch and gives the function; `name` is that on the shelf. With `any_size`
        pictures may have another height and width at each call."""
        self._make = make
        self._running = running or Running()
        self._plain = not self._running.swift
        self._name = name
        self._any_size = any_size
        self._lock = threading.Lock()
        self._function: Function | None = None
        self._machine: Machine | None = None

    def __call__(self, *inputs: Input) -> list[Array]:
        """Arrays (B, …) → arrays (B, …); of an input (1, …), all B are the same."""
        with self._lock:
            if not self._plain and self._machine is None:
                self._machine = self._from_shelf(inputs) or self._recorded(inputs)
                self._plain = self._machine is None
            if self._machine is not None:
                self._function = None
        if self._machine is None:
            return self._by_torch(inputs)
        batch = max(map(len, inputs))
        singly = [[x[n % len(x)] for x in inputs] for n in range(batch)]
        found = side_by_side(self._machine, singly)
        if batch == 1:
            return [values[None] for values in found[0]]
        return [np.stack(values) for values in zip(*found, strict=True)]

    @property
    def is_known(self) -> bool:
        """Whether it can probably be run without torch."""
        shelf = self._running.shelf
        return self._running.swift and shelf is not None and shelf.holds(self._name)

    @property
    def swift(self) -> bool:
        """Whether ncnn runs it, once it was called."""
        return self._machine is not None

    def _by_torch(self, inputs: Sequence[Input]) -> list[Array]:
        import torch  # noqa: PLC0415  as above

        self._function = self._function or self._make()
        batch = max(map(len, inputs))
        with torch.inference_mode():
            tensors = [torch.from_numpy(x).to(self._running.device) for x in inputs]
            found = self._function(*(x.expand(batch, *x.shape[1:]) for x in tensors))
            return [x.float().cpu().numpy() for x in found]

    def _from_shelf(self, inputs: Sequence[Input]) -> Machine | None:
        program = self._running.shelf.get(self._name) if self._running.shelf else None
        if program is None or not program.takes([x.shape[1:] for x in inputs]):
            return None
        try:
            return self._running.machine(program)
        except (ImportError, ValueError):
            return None

    def _recorded(self, inputs: Sequence[Input]) -> Machine | None:
        import torch  # noqa: PLC0415  as above

        from metaportrait_cli.networks.swift.ledger import NotRecordedError  # noqa: PLC0415
        from metaportrait_cli.networks.swift.recorder import recorded  # noqa: PLC0415

        self._function = self._make()
        first = [np.ascontiguousarray(x[:1]) for x in inputs]
        try:
            program = recorded(self._function, [torch.from_numpy(x) for x in first])
            program = program.of_any_size() if self._any_size else program
            machine = Machine(program)
            found = machine([x[0] for x in first])
        except (NotRecordedError, ImportError, ValueError):
            return None
        for wanted, got in zip(self._by_torch(first), found, strict=True):
            if not np.abs(got - wanted[0]).max() <= ALIKE * max(1.0, np.abs(wanted).max()):
                return None
        if self._running.shelf is not None:
            self._running.shelf.put(self._name, program)
        # As later runs will have it.
        return self._running.machine(program) if self._running.ranges else machine
