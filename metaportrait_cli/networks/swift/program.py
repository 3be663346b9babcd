"""A network as a list of layers, in the text and bytes that ncnn reads.

Our networks are written, trained and run on GPUs with torch. On a CPU ncnn computes their
convolutions in half of the time (Winograd's), and starts without torch. Its blobs have no batch:
(C, H, W), (H, W) or (N,).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Dims = tuple[int, ...]
ANY = 0
Settings = Mapping[int, float | Sequence[int]]
"""Of a layer, by the numbers that ncnn gives them"""


@dataclass(frozen=True)
class Program:
    """Layers with their weights, from arrays of certain shapes to others."""

    text: str
    weights: bytes
    inputs: tuple[Dims, ...]
    outputs: tuple[Dims, ...]

    def of_any_size(self) -> Program:
        """The same for pictures of any height and width, where no layer minds."""
        return replace(
            self,
            inputs=tuple((dims[0], ANY, ANY) for dims in self.inputs),
            outputs=tuple((dims[0], ANY, ANY) for dims in self.outputs),
        )

    def takes(self, shapes: Sequence[Dims]) -> bool:
        """Whether arrays of these shapes may go in."""
        return len(shapes) == len(self.inputs) and all(map(fits, shapes, self.inputs))


def fits(shape: Dims, dims: Dims) -> bool:
    """Whether an array's shape is that of a blob, of which some dimensions may be any."""
    return len(shape) == len(dims) and all(b in {a, ANY} for a, b in zip(shape, dims, strict=True))


@dataclass(frozen=True)
class _Layer:
    kind: str
    takes: tuple[str, ...]
    gives: str
    settings: str
    weights: bytes


class Writer:
    """Collects layers, each of which gives one blob; blobs go by names."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []

    def add(
        self, kind: str, takes: Sequence[str], settings: Settings, *, weights: bytes = b""
    ) -> str:
        """A layer of one of ncnn's kinds; returns its blob's name."""
        gives = f"b{len(self._layers)}"
        told = " ".join(_setting(number, value) for number, value in settings.items())
        self._layers.append(_Layer(kind, tuple(takes), gives, told, weights))
        return gives

    def constant(self, values: NDArray[np.float32]) -> str:
        """A blob that is always the same, of one to three axes."""
        return self.add("MemoryData", (), sizes(values.shape), weights=raw(values))

    def program(
        self, inputs: Sequence[tuple[str, Dims]], outputs: Sequence[tuple[str, Dims]]
    ) -> Program:
        """What was collected, as far as outputs depend on it."""
        needed = {name for name, _ in outputs}
        kept: list[_Layer] = []
        for layer in reversed(self._layers):
            if layer.gives in needed:
                kept.append(layer)
                needed.update(layer.takes)
        kept.reverse()
        uses = Counter(name for layer in kept for name in layer.takes)
        uses.update(name for name, _ in outputs)
        # A blob is taken once; where it is needed again, there are copies of it.
        taken: Counter[str] = Counter()

        def next_copy(name: str) -> str:
            taken[name] += 1
            return name if uses[name] == 1 else f"{name}_{taken[name]}"

        lines: list[str] = []
        blobs = 0

        def line(kind: str, takes: Sequence[str], gives: Sequence[str], told: str) -> None:
            nonlocal blobs
            blobs += len(gives)
            numbers = f"{len(takes)} {len(gives)}"
            lines.append(" ".join([kind, f"l{len(lines)}", numbers, *takes, *gives, told]))

        def shared(name: str) -> None:
            if uses[name] > 1:
                copies = [f"{name}_{number + 1}" for number in range(uses[name])]
                line("Split", [name], copies, "")

        for number, (name, _) in enumerate(inputs):
            line("Input", [], [f"in{number}"], "")
            if uses[name]:
                line("Split", [f"in{number}"], [name], "")
                shared(name)
        for layer in kept:
            takes = [next_copy(name) for name in layer.takes]
            line(layer.kind, takes, [layer.gives], layer.settings)
            shared(layer.gives)
        for number, (name, _) in enumerate(outputs):
            line("Split", [next_copy(name)], [f"out{number}"], "")
        return Program(
            text="\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""]),
            weights=b"".join(layer.weights for layer in kept),
            inputs=tuple(dims for _, dims in inputs),
            outputs=tuple(dims for _, dims in outputs),
        )


def sizes(dims: Dims) -> Settings:
    """As layers are told that make blobs of these dimensions."""
    return dict(enumerate(reversed(dims)))


def raw(*arrays: NDArray[np.float32]) -> bytes:
    """Numbers as they are in memory."""
    return b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays)


def tagged(array: NDArray[np.float32]) -> bytes:
    """The same where ncnn expects to be told of which kind they are."""
    return bytes(4) + raw(array)


def _setting(number: int, value: float | Sequence[int]) -> str:
    if isinstance(value, Sequence):
        return f"{-23300 - number}={len(value)}," + ",".join(map(str, value))
    # ncnn tells numbers with a fraction by their point.
    return f"{number}={value:.9e}" if isinstance(value, float) else f"{number}={int(value)}"
