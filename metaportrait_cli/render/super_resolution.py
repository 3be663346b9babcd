"""The super-resolution networks behind one door: streams of pictures in, twice their size out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.devices import choose
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_sr import CompactSR
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.face_stream import FaceNetwork
from metaportrait_cli.render.released.networks import TemporalEnhancer, has_super_resolution
from metaportrait_cli.weights import resolve
from metaportrait_cli.weights.architectures import COMPACT_SR
from metaportrait_cli.weights.store import load_network, read_header


def super_resolution_named(
    name: str, *, device: str, precision: str
) -> tuple[FaceNetwork, dict[str, str]]:
    """The network of weights given by name, path or `hf://` spec, and the sha256 of their file.

    Ours, or the released one. Raises `UsageError` for unknown settings and `WeightsError` for
    weights that can't be had or hold no super-resolution.
    """
    path = resolve(Path(name) if Path(name).exists() else name)
    architecture = read_header(path).architecture
    if architecture == COMPACT_SR:
        return load_compact(path, device=device, precision=precision)
    if not has_super_resolution(path):
        raise WeightsError(
            f"{path}: holds {architecture}, which doesn't upscale; leave out `weights`, or give a"
            " converted temporal_gfpgan.pth"
        )
    place, dtype = choose(device, precision)
    return ReleasedFaces(TemporalEnhancer.load(path, device=place, dtype=dtype)), _digest(path)


def load_compact(
    name: str | Path, *, device: str, precision: str
) -> tuple[CompactFaces, dict[str, str]]:
    """Our network and the sha256 of its file; raises as `super_resolution_named` does."""
    path = resolve(name)
    # Its pictures stay in float32, and what it adds to them is small: bf16 can't be seen.
    place, dtype = choose(device, precision, half_on_cpu=True)
    return CompactFaces.load(path, device=place, dtype=dtype), _digest(path)


def _digest(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {path.name: hashlib.file_digest(file, "sha256").hexdigest()}


class CompactFaces:
    """Our temporal network on crops in their own pixels."""

    LARGEST_SIDE = 1088
    """Larger crops are shrunk: a face that fills a full-HD picture is not. Time and memory
    grow with the area, and so large a face gains little."""
    PIXELS_AT_ONCE: ClassVar = {"cpu": 4 * 256**2, "cuda": 64 * 256**2, "mps": 16 * 256**2}
    """In one pass. A processor is fastest while the features of a pass stay near it."""

    def __init__(self, network: CompactSR, *, device: str = "cpu") -> None:
        self.network = network
        self.device = torch.device(device)

    @classmethod
    def load(cls, path: Path, *, device: str, dtype: torch.dtype) -> CompactFaces:
        """Reads weights made by `train sr`. Raises `WeightsError`."""
        network = load_network(CompactSR, path, part=COMPACT_SR, device=device)
        network = network.requires_grad_(False).to(dtype)
        return cls(channels_last(network), device=device)

    def working_side(self, side: int) -> int:
        """The crop's own side, which is a multiple of four, as far as there is memory for it."""
        return min(side, self.LARGEST_SIDE)

    @property
    def reach(self) -> int:
        """One frame for each block that looks at its neighbours."""
        return self.network.config.stages

    @property
    def pixels_at_once(self) -> int:
        """Of the crops in a batch, at most."""
        return self.PIXELS_AT_ONCE[self.device.type]

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Batches (n, S, S, 3) → pictures (2S, 2S, 3), equal for any division into batches."""
        enhanced = self.network.stream(as_tensor(batch, self.device) for batch in batches)
        while True:
            # The mode must not leak into the consumer, which runs between two batches.
            with torch.inference_mode():
                pictures = next(enhanced, None)
            if pictures is None:
                return
            yield from as_pictures(pictures)
            del pictures  # large, and the next ones take their time


class ReleasedFaces:
    """The paper's temporal network, which takes 256² only."""

    SIDE = 256
    reach = None  # the clip is one window
    pixels_at_once = SIDE**2
    """It takes one at a time."""

    def __init__(self, network: TemporalEnhancer) -> None:
        self._network = network

    def working_side(self, side: int) -> int:
        """256, whatever the crop has."""
        return self.SIDE

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Batches (n, 256, 256, 3) → pictures (512, 512, 3); the clip is one window."""
        return self._network.enhance(picture for batch in batches for picture in batch)
