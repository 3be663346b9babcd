"""Damaged files of every kind that is read: each ends well, or in one of our errors.

    python benchmarks/fuzz.py --count 5000 --seed 0 --keep /tmp/found

Counts by kind what was read and what was refused; names what raised anything else, took longer than
`TIMEOUT`, or ended the process. `--keep` gets those files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from metaportrait_cli.convert.checkpoint import read_checkpoint
from metaportrait_cli.errors import MetaPortraitError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE, RECORD, MotionTrack
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import read_still
from metaportrait_cli.motion.motion_file import read_motion, write_motion
from metaportrait_cli.pipeline.batch.jobs import read_jobs
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.portrait_file import Portrait, load_portrait, save_portrait
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.render.named import rendering_named
from metaportrait_cli.render.protocol import Driven
from metaportrait_cli.render.released.folder import read_frames, read_source
from metaportrait_cli.render.super_resolution import super_resolution_named
from metaportrait_cli.weights import bundled_path
from tests.clips import write_clip

TIMEOUT = 30
PREPARED = ("ldmk", "frame", "id", "map")
TEXT_HEADED = {"weights", "weights sr", "portrait"}
PIECE = 20
"""Files that one process tries; it may end at any of them."""


def picture(side: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.stack([rows * 5, columns * 5, rows + columns], -1).astype(np.uint8)


def whole_files(folder: Path) -> dict[str, Path]:
    """One good file of each kind."""
    made: dict[str, Path] = {}
    for kind in ("png", "jpg", "webp", "gif", "tif", "bmp", "ppm", "jp2", "avif"):
        made[kind] = folder / f"whole.{kind}"
        Image.fromarray(picture()).save(made[kind])
    made["animation"] = folder / "moving.gif"
    moments = [Image.fromarray(np.roll(picture(), k, 0)) for k in range(4)]
    moments[0].save(made["animation"], save_all=True, append_images=moments[1:], duration=40)
    frames = [np.roll(picture(), k, 1) for k in range(6)]
    tracks = ("-f", "lavfi", "-t", "0.2", "-i", "sine=r=48000")
    for kind in ("mp4", "mov", "mkv", "avi", "ts"):
        made[kind] = write_clip(folder / f"whole.{kind}", frames, inputs=tracks)
    vp9 = ("-c:v", "libvpx-vp9", "-c:a", "libopus")
    made["webm"] = write_clip(folder / "whole.webm", frames, inputs=tracks, output=vp9)
    track = MotionTrack(width=48, height=48, rate=Fraction(25))
    records = np.zeros(5, RECORD)
    records["points"] = np.random.default_rng(0).random((5, 478, 3)) * 40
    records["time"] = np.arange(5) / 25
    track.append(records)
    made["template"] = folder / "whole.motion.npz"
    write_motion(track, made["template"])
    points = np.random.default_rng(1).random((478, 3), np.float32) * 40
    face = Face.of(points, np.zeros(52, np.float32), 1.0)
    view = Source(Path("p.png"), picture(), face, 1, Crop(0, 0, 48))
    made["portrait"] = folder / "whole.portrait"
    save_portrait(
        made["portrait"],
        Portrait(view, np.zeros(60, np.float32), np.zeros(128, np.float32)),
    )
    for kind, weights in (("weights sr", "compact_sr"), ("weights", "compact")):
        made[kind] = folder / f"{weights}.safetensors"
        made[kind].write_bytes(bundled_path(weights).read_bytes())
    made["checkpoint"] = folder / "whole.pth"
    torch.save({"generator": {"a.weight": torch.zeros(4, 4)}, "step": 3}, made["checkpoint"])
    made["jobs"] = folder / "whole.jsonl"
    job = {"source": "a.png", "driver": "b.mp4", "output": "c.mp4", "strength": 1.5, "face": 2}
    made["jobs"].write_text("\n".join(json.dumps(job | {"output": f"{n}.mp4"}) for n in range(3)))
    points = np.zeros((669, 2), np.float32)
    for name, array in (("ldmk", points), ("frame", points), ("id", np.zeros(256))):
        made[f"prepared {name}"] = folder / f"{name}.npy"
        np.save(made[f"prepared {name}"], array)
    made["prepared map"] = folder / "map.pkl"
    made["prepared map"].write_bytes(pickle.dumps({"a.png": "0"}))
    return made


def read_clip(path: Path) -> None:
    with open_frames(path) as frames:
        for _ in frames:
            pass


def read_prepared(path: Path) -> None:
    """The damaged array among good files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = {"ldmk": np.zeros((669, 2), np.float32), "id": np.zeros(256, np.float32)}
        cv2.imwrite(str(folder / "src_0.png"), picture(256))
        for part, array in good.items():
            np.save(folder / f"src_0_{part}.npy", array)
        (folder / "0" / "ldmks").mkdir(parents=True)
        np.save(folder / "0" / "ldmks" / "a_ldmk.npy", good["ldmk"])
        place = {
            "ldmk": folder / "src_0_ldmk.npy",
            "frame": folder / "0" / "ldmks" / "a_ldmk.npy",
            "id": folder / "src_0_id.npy",
            "map": folder / "src_map_dict.pkl",
        }[path.stem.rpartition("-")[2]]
        place.write_bytes(path.read_bytes())
        read_source(folder, "0")
        list(read_frames(folder))


def animate_with(path: Path) -> None:
    """Opens the weights and paints a frame with them; what they paint must be a picture."""
    session = rendering_named(str(path), device="cpu").renderer.open(_person(), size=64)
    points = _person().landmarks(64)[None]
    frames = session.render(Driven.of(points + np.float32(2))).frames
    if frames.shape != (1, 64, 64, 3) or frames.dtype != np.uint8:
        raise AssertionError(f"{frames.shape} {frames.dtype}")


@cache
def _person() -> Source:
    portrait = Path(__file__).parents[1] / "samples" / "portrait.png"
    with Engine("none") as engine:
        return load_sources([portrait], choice=LARGEST_FACE, detector=engine.detector)


READERS: dict[str, Callable[[Path], object]] = {
    "template": read_motion,
    "portrait": load_portrait,
    "weights": animate_with,
    "weights sr": lambda path: super_resolution_named(str(path), device="cpu", precision="auto"),
    "checkpoint": read_checkpoint,
    "jobs": read_jobs,
    **dict.fromkeys(
        ("prepared ldmk", "prepared frame", "prepared id", "prepared map"), read_prepared
    ),
    **dict.fromkeys(("mp4", "mov", "mkv", "webm", "avi", "ts", "animation"), read_clip),
}


def _exchange(told: Any, chance: random.Random) -> None:
    """Another value somewhere in what JSON has told."""
    within = list(told.values() if isinstance(told, dict) else told)
    deeper = [each for each in within if isinstance(each, dict | list) and each]
    if deeper and chance.random() < 0.8:
        _exchange(chance.choice(deeper), chance)
        return
    odd = (0, -1, 3, 1 << 40, 1e308, float("nan"), None, "32", "", [], {}, True, [2, 2])
    if isinstance(told, dict):
        told[chance.choice((*told, "further"))] = chance.choice(odd)
    elif told:
        told[chance.randrange(len(told))] = chance.choice(odd)


def damaged_header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header is JSON still, with some of its values exchanged."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    tensors = [name for name in header if name != "__metadata__"]
    for _ in range(chance.choice((1, 1, 2, 3))):
        match chance.randrange(6):
            case 0:
                header[chance.choice(tensors)]["dtype"] = chance.choice(("F64", "I8", "BF16", "F8"))
            case 1:
                shape = header[chance.choice(tensors)]["shape"]
                shape[:] = chance.choice((shape[::-1], [*shape, 1], [], [-1], [0], [1 << 62]))
            case 2:
                one, two = (header[chance.choice(tensors)] for _ in range(2))
                one["data_offsets"] = chance.choice((two["data_offsets"], [0, 1 << 63], [8, 4]))
            case 3:
                header[chance.choice(("x", *tensors))] = header.pop(chance.choice(tensors), {})
                tensors = [name for name in header if name != "__metadata__"]
            case 4:
                held = header["__metadata__"]
                held[chance.choice(list(held))] = chance.choice(("", "null", "[[[", "{}", "\0"))
            case 5:
                held = header["__metadata__"]
                name = chance.choice([name for name in held if held[name][:1] in ("{", "[")])
                try:
                    told = json.loads(held[name])
                except ValueError:
                    continue  # no more
                _exchange(told, chance)
                held[name] = json.dumps(told)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut, doubled, or set to what lengths and counts are at their limits."""
    data = bytearray(content)
    head = max(1, min(len(data), 4096))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers decide more than pictures do.
        place = chance.randrange(min(head, len(data)) if chance.random() < 0.7 else len(data))
        match chance.randrange(7):
            case 0:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                size = chance.choice((2, 4, 8))
                most = (1 << 8 * size) - 1
                value = chance.choice((0, 1, most, most >> 1, most - 1, 1 << 12))
                data[place : place + size] = value.to_bytes(size, chance.choice(("big", "little")))
            case 3:
                del data[place : place + chance.randrange(1, 64)]
            case 4:
                data[place:place] = data[place : place + chance.randrange(1, 64)]
            case 5:
                data[place:place] = chance.randbytes(chance.randrange(1, 16))
            case 6:
                text = chance.choice((b"-1", b"NaN", b"1e999", b"99999999999", b"null", b"[[["))
                data[place : place + len(text)] = text
    if chance.random() < 0.15:
        del data[chance.randrange(len(data) + 1) :]
    return bytes(data)


def attempt(kind: str, path: Path) -> tuple[str, str]:
    """How reading ended: read, refused, or what it should not."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIMEOUT)
    try:
        READERS.get(kind, read_still)(path)
    except MetaPortraitError as error:
        if error.exit_code not in (2, 3, 5, 6) or not str(error):
            return f"exit {error.exit_code}", str(error)
        return f"refused ({error.exit_code})", ""
    except TimeoutError:
        return "endless", ""
    except BaseException as error:  # noqa: BLE001  that is what is looked for
        return "internal error", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return "read", ""


def try_piece(line: Connection, whole: dict[str, Path], folder: Path, seeds: range) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        kind = list(whole)[seed % len(whole)]
        source = whole[kind]
        path = folder / f"{seed}-{source.name}"
        damage = damaged
        if kind in TEXT_HEADED and chance.random() < 0.5:
            damage = damaged_header  # bytes alone hardly ever come past its text
        path.write_bytes(damage(source.read_bytes(), chance))
        line.send((seed, kind, str(path), "begun", ""))
        line.send((seed, kind, str(path), *attempt(kind, path)))
    line.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=5000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path)
    asked = options.parse_args()
    context = multiprocessing.get_context("fork")
    counts: Counter[tuple[str, str]] = Counter()
    wrong, most, started = [], 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        whole = whole_files(folder / "whole")
        _person()  # before there are processes
        for kind, path in whole.items():
            if attempt(kind, path)[0] != "read":
                options.error(f"{path.name} is not whole")
        seed, end = asked.seed, asked.seed + asked.count
        while seed < end:
            ours, theirs = context.Pipe(duplex=False)
            seeds = range(seed, min(seed + PIECE, end))
            child = context.Process(target=try_piece, args=(theirs, whole, folder, seeds))
            child.start()
            theirs.close()
            last = None
            while True:
                try:
                    told = ours.recv()
                except EOFError:
                    break
                if isinstance(told, int):
                    most = max(most, told)
                    continue
                last = told
                if told[3] != "begun":
                    seed = told[0] + 1
                    counts[told[1], told[3]] += 1
                    if told[3] not in ("read",) and not told[3].startswith("refused"):
                        wrong.append(told)
                        if asked.keep:
                            asked.keep.mkdir(parents=True, exist_ok=True)
                            shutil.copy(told[2], asked.keep)
                    Path(told[2]).unlink(missing_ok=True)
            child.join()
            if child.exitcode:  # ended by the file it was at
                seed = last[0] + 1 if last else seed + 1
                wrong.append((*(last or (seed, "?", "?"))[:3], f"ended: {child.exitcode}", ""))
    for (kind, how), count in sorted(counts.items()):
        print(f"{kind:14} {how:14} {count}")
    total = sum(counts.values())
    elapsed = time.monotonic() - started
    print(f"{total} files in {elapsed:.0f} s, at most {most} MB; {len(wrong)} wrong")
    for each in wrong:
        print("WRONG", *each)


if __name__ == "__main__":
    main()
