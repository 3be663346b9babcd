"""From a torch function to a `Program`: it runs once, and what it does is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metaportrait_cli.networks.swift.ledger import (
    REDUCTIONS,
    Ledger,
    NotRecordedError,
    array_of,
    axis_of,
    dims_of,
)
from metaportrait_cli.networks.swift.program import Program, raw, tagged

ADD, SUB, MUL, DIV, MAX, MIN, POW, RSUB, RDIV = range(9)
SWAPPED = {ADD: ADD, SUB: RSUB, MUL: MUL, DIV: RDIV, MAX: MAX, MIN: MIN}
UNARY = {"abs": 0, "neg": 1, "sqrt": 5, "exp": 7, "log": 8, "tanh": 16}
SQUARE = 4
FLOAT_MAX = 3.4e38
# Of ncnn's settings for one layer: which ways of computing it are left out.
LEFT_OUT, WINOGRAD = 31, 1 << 6
FEW_PIXELS = 16
"""Winograd's weights are several times as large: for no more pixels than these, reading them takes
longer than they spare."""


def recorded(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Program:
    """What a function of tensors does with inputs like these, each (1, …), to give others.

    Weights become constants. Raises `NotRecordedError`.
    """
    with torch.no_grad():
        recorder = _Recorder(inputs)
        with recorder:
            outputs = function(*inputs)
    return recorder.program(outputs)


class _Recorder(Ledger, TorchDispatchMode):
    """Sees every operation; those on what depends on the inputs become layers."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._inputs = [(f"x{number}", dims_of(x)) for number, x in enumerate(inputs)]
        for (name, _), x in zip(self._inputs, inputs, strict=True):
            self._bind(x, name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes longer than all else here

    def program(self, outputs: Sequence[Tensor]) -> Program:
        return self._writer.program(
            self._inputs, [(self._name(out, like=out), dims_of(out)) for out in outputs]
        )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        given = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else [arg])]
        if any(id(x) in self._names for x in given if isinstance(x, Tensor)):
            name = func._schema.name.removeprefix("aten::")
            self._record(name, args, kwargs, result)
        return result

    # ------------------------------------------------------------------ operations

    def _record(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        in_place = name.endswith("_") and not name.endswith("__")
        operation = getattr(self, f"_on_{name.strip('_')}", None)
        if operation is None:
            operation = self._common(name.strip("_"))
        found = operation(*args, **kwargs, out=result)
        outs = result if isinstance(result, list | tuple) else [result]
        names = found if isinstance(found, list) else [found]
        for out, blob in zip(outs, names, strict=False):
            self._bind(args[0] if in_place else out, blob)

    def _common(self, name: str) -> Callable[..., str]:
        if name in UNARY:
            return lambda x, out: self._layer("UnaryOp", x, {0: UNARY[name]})
        if name in REDUCTIONS:
            return lambda x, axes=(), keepdim=False, out=None, **_: self._reduced(
                name, x, axes, keepdim
            )
        if name in ("clone", "to_copy", "lift_fresh", "detach", "alias", "nan_to_num"):
            return lambda x, *_, **__: self._names[id(x)]
        if name in ("view", "unsafe_view", "unsqueeze", "squeeze", "expand", "reshape"):
            return lambda x, *_, out, **__: self._reshaped(self._names[id(x)], x, out)
        raise NotRecordedError(name)

    def _binary(self, operation: int, a: Any, b: Any, out: Tensor) -> str:
        for one, other, number in ((a, b, operation), (b, a, SWAPPED.get(operation))):
            value = self._single(other)
            if value is not None and number is not None:
                return self._layer("BinaryOp", one, {0: number, 1: 1, 2: value})
        names = [self._name(x, like=out) for x in (a, b)]
        shaped = [
            self._raised(name, x, out) if id(x) in self._names else name
            for name, x in zip(names, (a, b), strict=True)
        ]
        return self._writer.add("BinaryOp", shaped, {0: operation})

    def _on_add(self, a: Any, b: Any, *, alpha: float = 1, out: Tensor) -> str:
        self.only(alpha == 1, "add with a factor")
        return self._binary(ADD, a, b, out)

    def _on_sub(self, a: Any, b: Any, *, alpha: float = 1, out: Tensor) -> str:
        self.only(alpha == 1, "sub with a factor")
        return self._binary(SUB, a, b, out)

    def _on_rsub(self, a: Any, b: Any, alpha: float = 1, *, out: Tensor) -> str:
        self.only(alpha == 1, "rsub with a factor")
        return self._binary(SUB, b, a, out)

    def _on_mul(self, a: Any, b: Any, *, out: Tensor) -> str:
        return self._binary(MUL, a, b, out)

    def _on_div(self, a: Any, b: Any, *, out: Tensor) -> str:
        return self._binary(DIV, a, b, out)

    def _on_maximum(self, a: Any, b: Any, *, out: Tensor) -> str:
        return self._binary(MAX, a, b, out)

    def _on_minimum(self, a: Any, b: Any, *, out: Tensor) -> str:
        return self._binary(MIN, a, b, out)

    def _on_pow(self, a: Any, b: Any, *, out: Tensor) -> str:
        if b == 2:  # ncnn's powers are those of positive numbers
            return self._layer("UnaryOp", a, {0: SQUARE})
        return self._binary(POW, a, b, out)

    def _on_clamp(
        self,
        x: Tensor,
        low: float | None = None,
        high: float | None = None,
        *,
        out: Tensor,
        **named: float,
    ) -> str:
        low, high = named.get("min", low), named.get("max", high)
        return self._layer(
            "Clip",
            x,
            {
                0: -FLOAT_MAX if low is None else float(low),
                1: FLOAT_MAX if high is None else float(high),
            },
        )

    def _on_sigmoid(self, x: Tensor, *, out: Tensor) -> str:
        return self._layer("Sigmoid", x)

    def _on_relu(self, x: Tensor, *, out: Tensor) -> str:
        return self._layer("ReLU", x)

    def _on_leaky_relu(self, x: Tensor, slope: float = 0.01, *, out: Tensor) -> str:
        return self._layer("ReLU", x, {0: float(slope)})

    def _on_convolution(  # noqa: PLR0917  as torch has it
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        _output_padding: list[int],
        groups: int,
        *,
        out: Tensor,
    ) -> str:
        self.only(not transposed and groups == 1, "such a convolution")
        width, _, height, wide = weight.shape
        values = tagged(array_of(weight)) + (b"" if bias is None else raw(array_of(bias)))
        (stride_y, stride_x), (pad_y, pad_x), (dilation_y, dilation_x) = stride, padding, dilation
        shape = {0: width, 1: wide, 11: height, 6: weight.numel()}
        steps = {2: dilation_x, 12: dilation_y, 3: stride_x, 13: stride_y}
        pads = {4: pad_x, 14: pad_y, 5: int(bias is not None)}
        ways = {LEFT_OUT: WINOGRAD} if out.shape[-2] * out.shape[-1] <= FEW_PIXELS else {}
        return self._layer("Convolution", x, {**shape, **steps, **pads, **ways}, weights=values)

    def _on_native_group_norm(  # noqa: PLR0917  as torch has it
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        _count: int,
        channels: int,
        _pixels: int,
        groups: int,
        eps: float,
        *,
        out: Any,
    ) -> list[str]:
        values = raw(array_of(weight), array_of(bias))
        return [
            self._layer(
                "GroupNorm", x, {0: groups, 1: channels, 2: float(eps), 3: 1}, weights=values
            )
        ]

    def _on_addmm(self, bias: Tensor, x: Tensor, weight: Tensor, *, out: Tensor) -> str:
        values = tagged(array_of(weight.t())) + raw(array_of(bias))
        return self._layer(
            "InnerProduct", x, {0: out.shape[-1], 1: 1, 2: weight.numel()}, weights=values
        )

    def _on_mm(self, x: Tensor, weight: Tensor, *, out: Tensor) -> str:
        values = tagged(array_of(weight.t()))
        return self._layer("InnerProduct", x, {0: out.shape[-1], 2: weight.numel()}, weights=values)

    def _on_cat(self, parts: list[Tensor], axis: int = 0, *, out: Tensor) -> str:
        names = [self._name(part, like=out) for part in parts]
        return self._writer.add("Concat", names, {0: axis_of(axis, out)})

    def _on_stack(self, parts: list[Tensor], axis: int = 0, *, out: Tensor) -> str:
        axis = axis_of(axis, out)
        dims = dims_of(out)
        one = (*dims[:axis], 1, *dims[axis + 1 :])
        names = [self._sized(self._name(part, like=part), one) for part in parts]
        return self._writer.add("Concat", names, {0: axis})

    def _on_slice(
        self,
        x: Tensor,
        axis: int = 0,
        start: int | None = None,
        end: int | None = None,
        step: int = 1,
        *,
        out: Tensor,
    ) -> str:
        size = x.shape[axis]
        first, last, _ = slice(start, end).indices(size)
        if last - first == size:
            return self._names[id(x)]
        self.only(step == 1, "slices with a step")
        return self._cut(x, axis, first, last)

    def _on_split(self, x: Tensor, size: int, axis: int = 0, *, out: Any) -> list[str]:
        starts = np.cumsum([0, *(part.shape[axis] for part in out)]).tolist()
        return [self._cut(x, axis, a, b) for a, b in pairwise(starts)]

    _on_split_with_sizes = _on_split

    def _on_select(self, x: Tensor, axis: int, index: int, *, out: Tensor) -> str:
        index %= x.shape[axis]
        return self._sized(self._cut(x, axis, index, index + 1), dims_of(out))

    def _on_constant_pad_nd(
        self, x: Tensor, pads: list[int], value: float = 0, *, out: Tensor
    ) -> str:
        left, right, top, bottom, front, behind = (*pads, 0, 0, 0, 0, 0, 0)[:6]
        self.only(min(pads) >= 0, "pads that cut")
        return self._layer(
            "Padding",
            x,
            {0: top, 1: bottom, 2: left, 3: right, 5: float(value), 7: front, 8: behind},
        )

    def _on_upsample_bilinear2d(
        self, x: Tensor, size: list[int], align_corners: bool, *_: Any, out: Tensor
    ) -> str:
        height, width = out.shape[-2:]
        return self._layer("Interp", x, {0: 2, 3: height, 4: width, 6: int(align_corners)})

    def _on_pixel_shuffle(self, x: Tensor, factor: int, *, out: Tensor) -> str:
        return self._layer("PixelShuffle", x, {0: factor})

    def _on_pixel_unshuffle(self, x: Tensor, factor: int, *, out: Tensor) -> str:
        return self._layer("Reorg", x, {0: factor})

    def _on_avg_pool2d(  # noqa: PLR0917  as torch has it
        self,
        x: Tensor,
        kernel: list[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0, 0),
        ceil: bool = False,
        with_pads: bool = True,
        *_: Any,
        out: Tensor,
    ) -> str:
        return self._pooled(x, 1, kernel, stride, padding, ceil=ceil, with_pads=with_pads)

    def _on_max_pool2d_with_indices(  # noqa: PLR0917  as torch has it
        self,
        x: Tensor,
        kernel: list[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        ceil: bool = False,
        *,
        out: Any,
    ) -> list[str]:
        self.only(set(dilation) == {1}, "such a pool")
        return [self._pooled(x, 0, kernel, stride, padding, ceil=ceil)]

    def _on_adaptive_avg_pool2d(self, x: Tensor, size: list[int], *, out: Tensor) -> str:
        height, width = out.shape[-2:]
        if x.shape[-2] % height == 0 and x.shape[-1] % width == 0:
            kernel = (x.shape[-2] // height, x.shape[-1] // width)
            return self._pooled(x, 1, kernel, kernel, (0, 0), ceil=False)
        return self._layer("Pooling", x, {0: 1, 7: 1, 8: width, 18: height})

    def _on_grid_sampler_2d(
        self, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool, *, out: Tensor
    ) -> str:
        names = [self._name(x, like=x), self._name(grid, like=grid)]
        return self._writer.add(
            "GridSample", names, {0: mode + 1, 1: padding + 1, 2: int(align_corners)}
        )
