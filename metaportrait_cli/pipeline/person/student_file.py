"""The student file: portraits, and the network that knows them by heart, in one safetensors file.

Tensors and metadata of a portrait file, without what a portrait adds to other weights, and those of
the network as files of weights have them: `student.*`, half precision, pictures in bytes. Of
several people, whose names are in `people` (JSON), person N after the first has `personN.*` and
`studentN.*`, identity tensors alone, and metadata in `personN` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaportrait_cli.networks.student import OF_ONE, Student
from metaportrait_cli.pipeline.person.portrait_file import PERSON, Base, Portrait, portrait_tensors
from metaportrait_cli.render.painted.moving import PART, part_of
from metaportrait_cli.weights.architectures import STUDENT
from metaportrait_cli.weights.store import save_tensors


@dataclass(frozen=True)
class Taught:
    """A person, and the student of them."""

    name: str
    portrait: Portrait
    network: Student


def save_student(path: Path, people: Sequence[Taught], *, notes: Mapping[str, Any]) -> None:
    """Writes the file, whole or not at all; `notes` say how it was trained.

    All networks but the first one are that but for their identity tensors.
    """
    tensors, metadata = _of_one(people[0], "", part_of(0), names=people[0].network.state_dict())
    for number, each in enumerate(people[1:], 1):
        more, told = _of_one(each, f"{PERSON}{number}.", part_of(number), names=OF_ONE)
        tensors |= more
        metadata[f"{PERSON}{number}"] = json.dumps(told)
    if len(people) > 1:
        metadata["people"] = json.dumps([each.name for each in people])
    metadata |= {
        "architecture": STUDENT,
        "config": json.dumps({PART: vars(people[0].network.config)}, sort_keys=True),
        "training": json.dumps(notes),
    }
    save_tensors(path, tensors, metadata)


def _of_one(
    person: Taught, prefix: str, part: str, *, names: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a person's portrait, and the network's tensors of these names."""
    portrait = replace(person.portrait, base=Base(), deltas={})
    found, metadata = portrait_tensors(portrait)
    tensors = {f"{prefix}{name}": value for name, value in found.items()}
    state = person.network.state_dict()
    for name in names:
        value = state[name]
        small = value.to(torch.float16) if value.is_floating_point() else value
        tensors[f"{part}.{name}"] = small.contiguous()
    return tensors, metadata
