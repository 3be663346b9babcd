"""A student beside its teacher, on drivers it hasn't learnt from, and how fast it is.

    python -m benchmarks.student me.student clip.mp4 … [--portrait me.portrait] [--frames 40]
        [--sheet sheet.png]

The teacher is the portrait's own weights, or the bundled ones with the student's picture. Both get
the same landmarks, of consecutive frames from the middle of each clip. PSNR, LPIPS-like distance of
whole pictures and of faces; the warping error of each along its own motion, which is flicker, and
the student's along the teacher's, which is also moving otherwise. What leaks of a stranger: how far
the face is from the person's own (identity distance) on the person's landmarks, and on the driver's
own ones put where those are, which have the driver's shape. Times are of a picture of the network
alone, on one and two cores: in torch, as `animate` runs it (with ncnn and OpenCV, four at once),
and in ONNX Runtime where it is there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli import Engine
from metaportrait_cli.devices import keep_freed_memory
from metaportrait_cli.face.identity import embed, identity_network
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.metrics.identity import identity_distance
from metaportrait_cli.metrics.perceptual import bundled_features, lpips_like
from metaportrait_cli.metrics.pictures import psnr
from metaportrait_cli.metrics.warping import true_motion, warping_error
from metaportrait_cli.motion.alignment import from_frame, similarity
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.networks.student import Student
from metaportrait_cli.networks.swift.function import Running
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.driver import load_motion
from metaportrait_cli.pipeline.performance import DriveOptions, Performance
from metaportrait_cli.pipeline.person.onnx_file import export_onnx
from metaportrait_cli.pipeline.person.portrait_file import Portrait, load_portrait
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.progress import Stopwatch, silent
from metaportrait_cli.render.painted.moving import PART, SwiftStudent
from metaportrait_cli.render.painted.student import AT_ONCE, still
from metaportrait_cli.render.protocol import Driven, Frames, Session
from metaportrait_cli.stages import Once
from metaportrait_cli.weights.architectures import STUDENT
from metaportrait_cli.weights.store import load_network, save_networks

WINDOW = 8
SHOWN = 4
RUNS = 30


def main() -> None:
    """Prints a table of nearness and one of times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path)
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    if chosen.clips:
        compare(chosen)
    print(f"\n{chosen.student.stat().st_size / 1e6:.1f} MB\n", flush=True)
    speeds(chosen.student)


def compare(chosen: argparse.Namespace) -> None:
    known = load_portrait(chosen.student)
    taught = load_portrait(chosen.portrait) if chosen.portrait else None
    scores: defaultdict[str, list[float]] = defaultdict(list)
    rows: list[NDArray[np.uint8]] = []
    features = bundled_features()
    with Engine() as engine:
        student = engine.rendering(known).renderer
        teacher = engine.rendering(taught).renderer
        size = student.fixed_size or 512
        mine = student.open(known.source, size=size)
        # The student's file has what the teacher's view of the person began with.
        theirs = teacher.open(taught.source if taught else known.source, size=size)
        sessions = {"student": mine, "teacher": theirs}
        for clip in chosen.clips:
            points, stranger = driven(clip, known, engine=engine, frames=chosen.frames)
            points = known.source.crop.to_crop(points, size)
            pairs: list[tuple[Frames, Frames]] = []
            for start in range(0, len(points), WINDOW):
                part = Driven.of(points[start : start + WINDOW])
                pairs.append(
                    (mine.render(part).frames, all_resized(theirs.render(part).frames, size))
                )
            ours, truth = (np.concatenate(each) for each in zip(*pairs, strict=True))
            score(scores, ours, truth, points, features=features)
            picked = np.linspace(0, len(ours) - 1, SHOWN).astype(int)
            faces = points[picked], put_where(stranger[picked], points[picked])
            leak(scores, sessions, known, *faces, size=size)
            rows += [np.concatenate([truth[k], ours[k]], axis=1) for k in picked]
    print("| | mean | worst clip's frame |\n|---|---|---|")
    for name, values in scores.items():
        worst = min(values) if name == "psnr" else max(values)
        print(f"| {name} | {np.mean(values):.4f} | {worst:.4f} |")
    steady = np.mean(scores["warping error"]) / np.mean(scores["the teacher's"]) - 1
    print(f"\nwarping error against the teacher's: {steady:+.1%}")
    if chosen.sheet:
        cv2.imwrite(str(chosen.sheet), np.concatenate(rows)[..., ::-1])


def driven(
    clip: Path, known: Portrait, *, engine: Engine, frames: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Landmarks of consecutive frames from the clip's middle on the person's face, and the clip's
    own."""
    motion = load_motion(
        clip, choice=LARGEST_FACE, engine=engine, stopwatch=Stopwatch(), on_progress=silent
    )
    performance = Performance(
        track=motion.track, source=known.source, model=engine.face_model, options=DriveOptions()
    )
    points = np.concatenate(list(performance.windows(16)))
    first = max(0, (len(points) - frames) // 2)
    own = motion.track.read(first, min(first + frames, len(points)))["points"]
    motion.track.close()
    return points[first : first + frames], own


def put_where(faces: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Faces (T, 478, 3) in the poses and sizes of others, with shapes of their own."""
    alike = similarity(faces, places, np.ones((1, faces.shape[1]), np.float32))
    return from_frame(faces, *alike).astype(np.float32)


def leak(
    scores: dict[str, list[float]],
    sessions: dict[str, Session],
    known: Portrait,
    points: NDArray[np.float32],
    stranger: NDArray[np.float32],
    *,
    size: int,
) -> None:
    """Adds how far the person is from themselves on landmarks (T, 478, 3) of either shape."""
    network, source = identity_network(), known.source
    (own,) = embed(network, source.picture[None], source.face.points[None])
    for whose, faces in (("own", points), ("a stranger's", stranger)):
        for who, session in sessions.items():
            frames = all_resized(session.render(Driven.of(faces)).frames, size)
            found = identity_distance(embed(network, frames, faces), own)
            scores[f"identity, {whose} shape, {who}"] += found.tolist()


def score(
    scores: dict[str, list[float]],
    ours: Frames,
    truth: Frames,
    points: NDArray[np.float32],
    *,
    features: SqueezeNet,
) -> None:
    """Adds the scores of a clip's frames (T, S, S, 3)."""
    for image, wanted, face in zip(ours, truth, points, strict=True):
        pair = as_tensor(image[None]), as_tensor(wanted[None])
        scores["psnr"].append(float(psnr(*pair)))
        scores["lpips-like"].append(float(lpips_like(features, *pair)))
        low, high = face[:, :2].min(0).astype(int), face[:, :2].max(0).astype(int)
        inside = (slice(None), slice(None), slice(low[1], high[1]), slice(low[0], high[0]))
        scores["lpips-like of the face"].append(
            float(lpips_like(features, *(each[inside] for each in pair)))
        )
    for k in range(1, len(truth)):
        motion = true_motion(truth[k - 1], truth[k])
        own = true_motion(ours[k - 1], ours[k])
        scores["warping error"].append(warping_error(ours[k - 1], ours[k], own)[0])
        scores["along the teacher's motion"].append(warping_error(ours[k - 1], ours[k], motion)[0])
        scores["the teacher's"].append(warping_error(truth[k - 1], truth[k], motion)[0])


def speeds(file: Path) -> None:
    """Prints milliseconds of processor a picture, and pictures a second of the clock."""
    print("| | cores | ms of processor | pictures/s |\n|---|---|---|---|")
    cores = sorted(os.sched_getaffinity(0))
    counts = range(1, min(2, len(cores)) + 1)
    rates = []
    for count in counts:
        # How many there are is asked once a process.
        with get_context("spawn").Pool(1) as pool:
            rates.append(pool.apply(speeds_on, (file, cores[:count])))
    size = load_network(Student, file, part=PART).config.size
    print()
    for count, rate in zip(counts, rates, strict=True):
        print(
            f"{rate:.0f} frames per second at {size}² in fp32 on {count} CPU core(s)"
            " (the paper's student: 130 in fp16 on an RTX 3090)"
        )


def speeds_on(file: Path, cores: list[int]) -> float:
    """The same on some cores; returns how many a second at full size, as `animate` runs it."""
    os.sched_setaffinity(0, cores)
    cv2.setNumThreads(len(cores))
    torch.set_num_threads(len(cores))
    keep_freed_memory()  # as `animate` does
    whole = load_network(Student, file, part=PART).float().requires_grad_(False)
    points = load_portrait(file).source.landmarks(1)[None].repeat(AT_ONCE, axis=0)
    rate = 0.0
    for size in (whole.config.size // 2, whole.config.size):
        told = partial(tell, len(cores), size)
        network = at_size(whole, size)
        pictures = network.pictures_at(size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "student.safetensors")
            save_networks(path, {PART: network}, architecture=STUDENT)
            make = partial(still, Once(partial(at_size, whole, size)))
            swift = SwiftStudent(path, Running(), make)
            session = onnx_session(network, Path(folder, "student.onnx"), threads=len(cores))
        with torch.inference_mode():
            told("torch", partial(network, torch.from_numpy(points[:1]), pictures), 1)
        rate = told("as `animate` runs it", partial(swift, points), AT_ONCE)
        if session is not None:
            told("ONNX Runtime", partial(session.run, None, {"landmarks": points[:1]}), 1)
    return rate


def at_size(network: Student, size: int) -> Student:
    """The same student with pictures of another size."""
    if size == network.config.size:
        return network
    smaller = Student(replace(network.config, size=size))
    pictures = (network.pictures_at(size) * 255).round().to(torch.uint8)
    smaller.load_state_dict({**network.state_dict(), "pictures": pictures})
    return smaller.eval().requires_grad_(False)


def onnx_session(network: Student, path: Path, *, threads: int) -> Any:
    """ONNX Runtime with the student, where that is installed."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        return None
    export_onnx(network, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(os.fspath(path), options)


def tell(cores: int, size: int, name: str, paint: Callable[[], object], count: int) -> float:
    """Prints a row of the table of times, and returns pictures a second; a call paints `count`."""
    for _ in range(3):
        paint()
    spent, clock = time.process_time(), time.perf_counter()
    for _ in range(RUNS):
        paint()
    spent, clock = time.process_time() - spent, time.perf_counter() - clock
    painted = RUNS * count
    row = f"{name}, {size}²", cores, f"{1e3 * spent / painted:.1f}", f"{painted / clock:.1f}"
    print("|", " | ".join(map(str, row)), "|", flush=True)
    return painted / clock


if __name__ == "__main__":
    main()
