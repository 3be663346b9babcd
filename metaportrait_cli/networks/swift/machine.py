"""Runs a `Program` with ncnn."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.swift.program import ANY, Program, fits

Array = NDArray[np.float32]


class Machine:
    """A program ready to run, on the thread that asks; several may ask at once."""

    def __init__(self, program: Program) -> None:
        """Raises `ImportError` where ncnn has no build, `ValueError` if it can't read that."""
        # Imported here, for an installation may lack it.
        ncnn: Any = import_module("ncnn")

        self.inputs, self.outputs = program.inputs, program.outputs
        self._as_blob: Any = ncnn.Mat
        self._net: Any = ncnn.Net()
        options = self._net.opt
        options.num_threads = 1
        self._allocator, options.workspace_allocator = _allocators()
        options.blob_allocator = self._allocator
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        # From memory it would keep pointers into what Python frees.
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights"
            weights.write_bytes(program.weights)
            if self._net.load_param_mem(program.text) or self._net.load_model(str(weights)):
                raise ValueError("ncnn can't read these layers")

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[Array]:
        """Arrays of the shapes that the program was made for → those that it gives."""
        run = self._net.create_extractor()
        for number, (values, dims) in enumerate(zip(inputs, self.inputs, strict=True)):
            if values.shape != dims and not fits(values.shape, dims):
                raise ValueError(f"input {number} is {values.shape}, not {dims}")
            # A blob of its own, for ncnn works in place.
            blob = self._as_blob(values.shape[::-1], allocator=self._allocator)
            np.copyto(np.array(blob, copy=False), values)
            run.input(f"in{number}", blob)
        outputs = []
        for number, dims in enumerate(self.outputs):
            status, blob = run.extract(f"out{number}")
            if status:
                raise ValueError(f"ncnn fails with {status}")
            found = np.array(blob)
            outputs.append(found if ANY in dims else found.reshape(dims))
        return outputs


@cache
def _allocators() -> tuple[Any, Any]:
    """Of blobs and of what layers need meanwhile: all machines share what they have freed."""
    ncnn: Any = import_module("ncnn")
    allocators = ncnn.PoolAllocator(), ncnn.PoolAllocator()
    # Python ends in any order, and ncnn dies of an allocator that goes before its blobs.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(allocators))
    return allocators
