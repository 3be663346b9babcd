"""The student file: a portrait, and the network that knows it by heart, in one safetensors file.

Tensors and metadata of a portrait file, without what a portrait adds to other weights, and those of
the network as files of weights have them: `student.*`, half precision, pictures in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaportrait_cli.networks.student import Student
from metaportrait_cli.pipeline.person.portrait_file import Base, Portrait, portrait_tensors
from metaportrait_cli.render.painted.moving import PART
from metaportrait_cli.weights.architectures import STUDENT
from metaportrait_cli.weights.store import save_tensors


def save_student(
    path: Path, portrait: Portrait, network: Student, *, notes: Mapping[str, Any]
) -> None:
    """Writes the file, whole or not at all; `notes` say how it was trained."""
    tensors, metadata = portrait_tensors(replace(portrait, base=Base(), deltas={}))
    for name, value in network.state_dict().items():
        small = value.to(torch.float16) if value.is_floating_point() else value
        tensors[f"{PART}.{name}"] = small.contiguous()
    metadata |= {
        "architecture": STUDENT,
        "config": json.dumps({PART: vars(network.config)}, sort_keys=True),
        "training": json.dumps(notes),
    }
    save_tensors(path, tensors, metadata)
