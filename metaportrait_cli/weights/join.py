"""Networks of several files in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from metaportrait_cli.errors import UsageError, WeightsError
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.weights.store import read_header, save_tensors

NOTES = "notes"


def join_files(
    inputs: Sequence[Path],
    output: Path,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes the networks of all inputs, which share one architecture, to `output`.

    With `half`, tensors are stored in half precision. Notes of the inputs are kept, each under its
    parts. Raises `WeightsError` if a part is there twice or an architecture is another.
    """
    with claimed(output, overwrite=overwrite, is_input=inputs):
        return _join(inputs, output, half=half)


def _join(inputs: Sequence[Path], output: Path, *, half: bool) -> Path:
    headers = [read_header(path) for path in inputs]
    if not headers:
        raise UsageError("give the files that are to be joined")
    configs: dict[str, Any] = {}
    for path, header in zip(inputs, headers, strict=True):
        if header.architecture != headers[0].architecture:
            raise WeightsError(
                f"{path}: is of architecture {header.architecture!r}, not"
                f" {headers[0].architecture!r} as {inputs[0].name}; join files of one architecture"
            )
        twice = sorted(configs.keys() & header.configs.keys())
        if twice:
            raise WeightsError(f"{path}: another file holds {', '.join(twice)} too; leave one out")
        configs |= header.configs
    tensors = {key: value for path in inputs for key, value in load_file(path).items()}
    if half:
        tensors = {
            key: value.to(torch.float16) if value.is_floating_point() else value
            for key, value in tensors.items()
        }
    # Not by the files' names: every training calls its weights last.safetensors.
    kept = {", ".join(sorted(header.configs)): header.notes for header in headers}
    metadata = {
        NOTES: json.dumps(kept, sort_keys=True),
        "architecture": headers[0].architecture,
        "config": json.dumps(configs, sort_keys=True),
    }
    save_tensors(output, tensors, metadata)
    return output
