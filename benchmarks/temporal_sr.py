"""What the compact super-resolution costs, and what it does over time.

    python -m benchmarks.temporal_sr cost [--weights PATH]
    python -m benchmarks.temporal_sr memory [--weights PATH] [--frames 1500]
    python -m benchmarks.temporal_sr time CLIP [--weights PATH] [--frames 100] [-o FOLDER]

`cost` prints multiply-adds a frame by stage, and frames a second at 512². `memory` streams a long
clip and prints what the process holds as it goes. `time` halves a clip's crop at 512² and doubles
it again; it writes `profile.png`, one column of pixels over time for bicubic, single frames, the
network and the truth (left to right), and `change.png`, how much each of them changes from frame to
frame, and prints how much of that is a beat: the strongest period in its ratio to the truth's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metaportrait_cli.devices import keep_freed_memory
from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig, Reference, enlarged
from metaportrait_cli.pipeline.evaluation.upscaling import load_upscaler
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.weights import bundled_path

SIZE = 512
SMALL = SIZE // 2
PART = 4
ROUNDS = 4
INK = {
    "bicubic": (160, 160, 160),
    "single": (220, 120, 0),
    "ours": (0, 90, 220),
    "truth": (0, 0, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "memory", "time"))
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--weights", help="default: untrained (costs the same, and is bicubic)")
    parser.add_argument("--frames", type=int)
    parser.add_argument("-o", "--output", type=Path, default=Path())
    args = parser.parse_args()
    keep_freed_memory()
    network = load_upscaler(args.weights) if args.weights else CompactSR(CompactSRConfig()).eval()
    network = channels_last(network.requires_grad_(False))
    if args.what == "cost":
        cost(network)
    elif args.what == "memory":
        memory(network, frames=args.frames or 1500)
    elif args.clip is None:
        parser.error("time needs a clip")
    else:
        over_time(network, args.clip, frames=args.frames or 100, output=args.output)


def cost(network: CompactSR) -> None:
    frames = torch.rand(2, 3, SMALL, SMALL)
    reference = Reference(torch.rand(2, 3, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE))
    with FlopCounterMode(display=False) as counter:
        network(frames, reference)
    by_module = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    for name, _ in network.named_children():
        flops = sum(
            value
            for module, value in by_module.items()
            if module == f"CompactSR.{name}" or module.startswith(f"CompactSR.{name}.")
            if module.count(".") == 1 + isinstance(getattr(network, name), torch.nn.ModuleList)
        )
        print(f"{name:16} {flops / 2 / len(frames) / 1e9:6.2f} GMAC/frame")
    print(f"{'all':16} {counter.get_total_flops() / 2 / len(frames) / 1e9:6.2f} GMAC/frame")
    print(f"{'parameters':16} {sum(p.numel() for p in network.parameters()):,}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.bfloat16):
            network.to(dtype)
            for _ in stream(network, PART):
                pass
            started = time.perf_counter()
            for _ in stream(network, ROUNDS * PART):
                pass
            rate = ROUNDS * PART / (time.perf_counter() - started)
            print(f"{threads} threads, {str(dtype).removeprefix('torch.')}: {rate:.1f} frames/s")


def memory(network: CompactSR, *, frames: int) -> None:
    network.to(torch.bfloat16)
    done = 0
    for part in stream(network, frames):
        done += len(part)
        if done % (frames // 10) < len(part):
            print(f"{done} frames: {resident_mb():.0f} MB")


def over_time(network: CompactSR, clip: Path, *, frames: int, output: Path) -> None:
    true, face = crops(clip, frames)
    small = [cv2.resize(f, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for f in true]
    given = as_tensor(np.stack(small))
    with torch.inference_mode():
        shown = {
            "bicubic": np.concatenate([eight_bit(enlarged(f)) for f in given.split(1)]),
            "single": np.concatenate([eight_bit(network(f)) for f in given.split(1)]),
            "ours": np.concatenate([eight_bit(f) for f in network.stream(given.split(PART))]),
            "truth": true,
        }
    output.mkdir(parents=True, exist_ok=True)
    # Through an eye: lashes flicker first.
    column = round(float(face[topology.ring("right_eye"), 0].mean()))
    profiles = [pictures[:, :, column].transpose(1, 0, 2) for pictures in shown.values()]
    rows = slice(SIZE // 4, SIZE // 2)
    enlarged_profiles = [np.repeat(np.repeat(p[rows], 3, 0), 3, 1) for p in profiles]
    cv2.imwrite(str(output / "profile.png"), np.concatenate(enlarged_profiles, 1)[..., ::-1])
    changes = {
        name: np.abs(np.diff(pictures.astype(np.float32), axis=0)).mean(axis=(1, 2, 3)) / 255
        for name, pictures in shown.items()
    }
    cv2.imwrite(str(output / "change.png"), plot(changes)[..., ::-1])
    for name, change in changes.items():
        ratio = change / np.maximum(changes["truth"], 1e-6)
        spectrum = np.abs(np.fft.rfft(ratio - ratio.mean())) * 2 / len(ratio)
        period = len(ratio) / max(int(spectrum[1:].argmax()) + 1, 1)
        print(
            f"{name:8} mean change {change.mean():.5f}; relative to the truth's"
            f" {ratio.mean():.3f} ± {ratio.std():.3f}, strongest beat {spectrum[1:].max():.4f}"
            f" at a period of {period:.1f} frames"
        )


def stream(network: CompactSR, frames: int) -> Iterator[Tensor]:
    """Results for random frames, never more than a part of them at a time."""

    def parts() -> Iterator[Tensor]:
        for _ in range(0, frames, PART):
            yield torch.rand(PART, 3, SMALL, SMALL)

    results = network.stream(parts())
    while True:
        with torch.inference_mode():
            part = next(results, None)
        if part is None:
            return
        yield part


def crops(clip: Path, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The first frames' crops (T, 512, 512, 3) by the first one's face, and that (478, 3)."""
    cut: list[NDArray[np.uint8]] = []
    crop = Crop(0, 0, SIZE)
    face = np.zeros((0, 3), np.float32)
    model = bundled_path("face_landmarker.task")
    with MediaPipeDetector(model) as detector, open_frames(clip, max_side=1920) as opened:
        for frame in islice(opened, frames):
            if not cut:
                height, width = frame.image.shape[:2]
                points = detector.search(frame.image)[0].points
                crop = Crop.around(points, within=(width, height))
                face = crop.to_crop(points, SIZE)
            cut.append(crop.cut(frame.image, SIZE))
    return np.stack(cut), face


def plot(curves: dict[str, NDArray[np.floating]]) -> NDArray[np.uint8]:
    """Curves over frames, from zero up."""
    height, step, left = 360, 8, 90
    length = len(next(iter(curves.values())))
    picture = np.full((height, left + step * length, 3), 255, np.uint8)
    top = max(float(curve.max()) for curve in curves.values()) * 1.05
    for row, (name, curve) in enumerate(curves.items()):
        x = left + step * np.arange(length)
        y = (height - 10) * (1 - curve / top)
        line = np.stack([x, y], axis=1).round().astype(np.int32)
        cv2.polylines(picture, [line], False, INK[name], 1, cv2.LINE_AA)
        place = (8, 24 + 20 * row)
        cv2.putText(picture, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK[name], 1, cv2.LINE_AA)
    return picture


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def eight_bit(pictures: Tensor) -> NDArray[np.uint8]:
    rounded = (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()
