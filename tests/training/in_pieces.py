"""A run that is broken off and gone on with ends as one that never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from metaportrait_cli.training.state import CHECKPOINT

WHOLE, PIECES = "whole", "pieces"
"""Folders of the two runs"""


def same_in_pieces(
    train: Callable[[Path, int | None], object], folder: Path, *, stop: int
) -> dict[str, Any]:
    """Both runs' checkpoints are the same to the bit; returns the parts of one.

    `train` trains in a folder, up to a step if one is given.
    """
    whole, pieces = folder / WHOLE, folder / PIECES
    for path, until in ((whole, None), (pieces, stop), (pieces, None)):
        train(path, until)
    one, other = (
        torch.load(path / CHECKPOINT, weights_only=True, mmap=True) for path in (whole, pieces)
    )
    assert one["standing"]["step"] == other["standing"]["step"] > stop
    wanted, found = dict(_tensors(one["parts"])), dict(_tensors(other["parts"]))
    assert wanted.keys() == found.keys()
    assert len(wanted) > len(one["parts"])
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name
    return one["parts"]


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name} {key}")
