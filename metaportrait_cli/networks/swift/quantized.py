"""A program whose convolutions multiply bytes, where the range of what goes into them is known.

With the instructions for it (VNNI) that takes a CPU half of the time. Weights are rounded by output
channel, what goes in by one step for all; sums are whole numbers, and all else stays as it was.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from metaportrait_cli.networks.swift.program import Program

Ranges = Mapping[str, float]
"""The largest that goes into a convolution, by `key_of` its weights"""
MOST = 127
# What ncnn tells bytes by, and the setting of a convolution that has them with their scales.
BYTES, TERM = 0x000D4B38, "8=2"
# OpenCV has no name for it in Python.
VNNI = 23


@cache
def is_fast() -> bool:
    """Whether this CPU multiplies bytes faster than numbers with a fraction."""
    return cv2.checkHardwareSupport(VNNI)


def key_of(weights: bytes) -> str:
    """Tells a convolution's weights from all others."""
    return hashlib.sha256(weights).hexdigest()[:16]


@dataclass(frozen=True)
class Convolution:
    """One of a program's."""

    takes: str
    """The blob that goes in"""
    size: int
    """How many weights it has"""


def convolutions(program: Program) -> dict[str, Convolution]:
    """By the keys of their weights."""
    found = {}
    for line, own in _layers(program):
        if line.startswith("Convolution "):
            _, values, _ = _parts(line, own)
            found[key_of(values)] = Convolution(line.split()[4], len(values) // 4)
    return found


def quantized(program: Program, ranges: Ranges) -> Program:
    """The same with bytes for convolutions whose ranges are known; those may be none."""
    lines, weights = program.text.splitlines()[:2], []
    for line, own in _layers(program):
        if line.startswith("Convolution "):
            width, values, bias = _parts(line, own)
            largest = ranges.get(key_of(values))
            if largest:
                line, own = _in_bytes(line, width, values, bias, largest)  # noqa: PLW2901
        lines.append(line)
        weights.append(own)
    return replace(program, text="\n".join([*lines, ""]), weights=b"".join(weights))


def _in_bytes(
    line: str, width: int, values: bytes, bias: bytes, largest: float
) -> tuple[str, bytes]:
    floats = np.frombuffer(values, "<f4").reshape(width, -1)
    scales = MOST / np.maximum(np.abs(floats).max(1), 1e-8)
    rounded = np.rint(floats * scales[:, None]).clip(-MOST, MOST).astype(np.int8).tobytes()
    steps = np.array([*scales, MOST / largest], "<f4").tobytes()
    told = [word for word in line.split() if not word.startswith("31=")]  # that is for fractions
    aligned = rounded + bytes(-len(rounded) % 4)
    return " ".join([*told, TERM]), struct.pack("<I", BYTES) + aligned + bias + steps


def _parts(line: str, weights: bytes) -> tuple[int, bytes, bytes]:
    """A convolution's width, weights and bias."""
    told = _told(line)
    stop = 4 + 4 * int(told["6"])
    return int(told["0"]), weights[4:stop], weights[stop:]


def _layers(program: Program) -> list[tuple[str, bytes]]:
    """Lines with their weights."""
    found, place = [], 0
    for line in program.text.splitlines()[2:]:
        size = _size(line)
        found.append((line, program.weights[place : place + size]))
        place += size
    if place != len(program.weights):
        raise ValueError(f"{len(program.weights) - place} bytes of no layer")
    return found


def _size(line: str) -> int:
    """Bytes of a line's weights, as `recorder` writes them."""
    told = _told(line)
    match line.split(maxsplit=1)[0]:
        case "Convolution":
            return 4 + 4 * (int(told["6"]) + int(told["5"]) * int(told["0"]))
        case "InnerProduct":
            return 4 + 4 * (int(told["2"]) + int(told.get("1", 0)) * int(told["0"]))
        case "GroupNorm":
            return 8 * int(told["1"])
        case "MemoryData":
            return 4 * int(np.prod([int(told[axis]) for axis in "012" if axis in told]))
    return 0


def _told(line: str) -> dict[str, str]:
    words = line.split()
    first = 4 + int(words[2]) + int(words[3])
    return {key: value for key, _, value in (word.partition("=") for word in words[first:])}
