"""Tensors of a running function as blobs of a `Program`, and layers upon them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.networks.swift.program import Dims, Settings, Writer, sizes

REDUCTIONS = {"sum": 0, "mean": 3, "amax": 4, "amin": 5}


class NotRecordedError(Exception):
    """The function does what can't be written down."""


class Ledger:
    """Which tensor is which blob; tensors without one are constants."""

    def __init__(self) -> None:
        super().__init__()
        self._writer = Writer()
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []  # or their numbers would be given to others

    def _bind(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._alive.append(tensor)

    def _name(self, tensor: Tensor, *, like: Tensor) -> str:
        """The blob of a tensor; a constant is brought to as many axes as `like` has."""
        if id(tensor) in self._names:
            return self._names[id(tensor)]
        values = tensor.detach().float().cpu().numpy()
        rank = len(dims_of(like))
        values = values.reshape(values.shape[-rank:] if values.ndim > rank else values.shape)
        return self._writer.constant(values.reshape((1,) * (rank - values.ndim) + values.shape))

    def _layer(
        self, kind: str, x: Tensor, settings: Settings | None = None, *, weights: bytes = b""
    ) -> str:
        return self._writer.add(kind, [self._names[id(x)]], settings or {}, weights=weights)

    def _single(self, x: Any) -> float | None:
        """The value of a constant that is one number."""
        if isinstance(x, int | float):
            return float(x)
        return float(x) if id(x) not in self._names and x.numel() == 1 else None

    def _raised(self, name: str, x: Tensor, out: Tensor) -> str:
        """A blob with as many axes as `out`."""
        missing = len(dims_of(out)) - len(dims_of(x))
        return self._sized(name, (1,) * missing + dims_of(x)) if missing else name

    def _pooled(
        self,
        x: Tensor,
        kind: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        *,
        ceil: bool,
        with_pads: bool = True,
    ) -> str:
        (tall, wide), (step_y, step_x), (top, left) = (
            pair(kernel),
            pair(stride or kernel),
            pair(padding),
        )
        shape = {0: kind, 1: wide, 11: tall, 2: step_x, 12: step_y}
        pads = {3: left, 13: top, 14: left, 15: top}
        modes = {5: 0 if ceil else 1, 6: int(with_pads)}
        return self._layer("Pooling", x, {**shape, **pads, **modes})

    def _reduced(self, name: str, x: Tensor, axes: Any, keepdim: bool) -> str:
        axes = axes if isinstance(axes, list | tuple) else [axes]
        chosen = [axis_of(axis, x) for axis in axes] or list(range(len(dims_of(x))))
        return self._layer(
            "Reduction", x, {0: REDUCTIONS[name], 1: 0, 2: 1.0, 3: chosen, 4: int(keepdim), 5: 1}
        )

    def _cut(self, x: Tensor, axis: int, first: int, last: int) -> str:
        return self._layer("Crop", x, {9: [first], 10: [last], 11: [axis_of(axis, x)]})

    def _reshaped(self, name: str, x: Tensor, out: Tensor) -> str:
        self.only(x.numel() == out.numel(), "an expansion")
        return name if dims_of(x) == dims_of(out) else self._sized(name, dims_of(out))

    def _sized(self, name: str, dims: Dims) -> str:
        return self._writer.add("Reshape", [name], sizes(dims))

    @staticmethod
    def only(fine: bool, what: str) -> None:
        if not fine:
            raise NotRecordedError(what)


def dims_of(x: Tensor) -> Dims:
    if x.dim() == 0 or x.shape[0] != 1 or x.dim() > 4:
        raise NotRecordedError(f"a tensor of {tuple(x.shape)}")
    return tuple(x.shape[1:]) or (1,)


def axis_of(axis: int, x: Tensor) -> int:
    axis %= x.dim()
    if axis == 0:
        raise NotRecordedError("something along the batch")
    return axis - 1


def pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def array_of(x: Tensor) -> NDArray[np.float32]:
    return x.detach().float().cpu().numpy()
