"""The pictures of the documentation, made anew from the samples alone.

    python benchmarks/gallery.py [moving turned personalized upscaled]

Writes `docs/gallery/moving.gif` (portrait, driver, result), `turned.png` (one photo, turned),
`personalized.png` (frames kept aside: one picture, the portrait, the truth) and `upscaled.png`
(halved and plainly enlarged, upscaled, the truth). Minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli import (
    AnimateOptions,
    Animation,
    DriveOptions,
    Engine,
    PersonalizeOptions,
    UpscaleOptions,
    animate,
    personalize,
    upscale,
)
from metaportrait_cli.media.encoding import Encoding
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import read_still, write_still
from metaportrait_cli.pipeline.report import MARK

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"
PORTRAIT, DRIVER = ROOT / "samples" / "tight.jpg", ROOT / "samples" / "driver.mp4"
MOST_GIF_BYTES = 3_000_000
GIF_HEIGHTS = range(240, 96, -16)
SIDE = 288
"""Of a panel"""
TURNS = ((-25, 0), (-12, 0), (12, 0), (25, 0), (0, 12), (0, -12))
"""Yaw and pitch in degrees"""

Picture = NDArray[np.uint8]


def main() -> None:
    """Makes all of them, or those that are named."""
    makers = {
        "moving": moving,
        "turned": turned,
        "personalized": personalized,
        "upscaled": upscaled,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *makers])
    GALLERY.mkdir(exist_ok=True)
    with Engine(device="cpu") as engine, tempfile.TemporaryDirectory() as folder:
        for name in parser.parse_args().names or makers:
            path = makers[name](engine, Path(folder))
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def moving(engine: Engine, _folder: Path) -> Path:
    """Portrait, driver and result side by side, every other frame."""
    options = AnimateOptions(compare=True)
    with Animation.open(engine, PORTRAIT, DRIVER, options) as animation:
        frames = [picture.image for picture in animation.pictures()][::2]
        rate = animation.rate / 2
    path = GALLERY / "moving.gif"
    for height in GIF_HEIGHTS:
        encoded = gif([scaled(frame, height) for frame in frames], rate)
        if len(encoded) <= MOST_GIF_BYTES:
            path.write_bytes(encoded)
            return path
    raise SystemExit(f"{path}: not below {MOST_GIF_BYTES} bytes at any size")


def turned(engine: Engine, folder: Path) -> Path:
    """The photo in the middle of its turns."""
    shown = []
    for yaw, pitch in TURNS:
        options = AnimateOptions(drive=DriveOptions(yaw=yaw, pitch=pitch))
        output = folder / "turned.png"
        animate(PORTRAIT, PORTRAIT, output, options, engine=engine, overwrite=True)
        shown.append(scaled(read_still(output).image, SIDE))
    shown.insert(2, scaled(read_still(PORTRAIT).image, SIDE))
    return written("turned", [shown[:5]])


def personalized(engine: Engine, folder: Path) -> Path:
    """Two frames of the driver that its portrait hasn't seen."""
    sheet = folder / "sheet.png"
    options = PersonalizeOptions(seconds=30)
    personalize(folder / "me.portrait", options, video=DRIVER, sheet=sheet, engine=engine)
    rows = read_still(sheet).image
    side = rows.shape[1] // 3
    parts = rows.reshape(-1, side, 3, side, 3)[1:6:3]  # (row, y, panel, x, RGB)
    return written("personalized", [list(row.transpose(1, 0, 2, 3)) for row in parts])


def upscaled(engine: Engine, folder: Path) -> Path:
    """One frame of the driver, halved and brought back to its size."""
    small, large = folder / "small", folder / "large"
    small.mkdir()
    with open_frames(DRIVER) as frames:
        truths = [frame.image for frame in frames if 30 <= frame.index < 42]
    for number, truth in enumerate(truths):
        half = cv2.resize(truth, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        write_still(small / f"{number:02}.png", np.asarray(half, np.uint8))
    upscale(small, large, UpscaleOptions(encoding=Encoding("png")), engine=engine)
    middle = len(truths) // 2
    half = read_still(small / f"{middle:02}.png").image
    size = truths[middle].shape[1::-1]
    plain = np.asarray(cv2.resize(half, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    found = read_still(large / f"{middle:06}.png").image
    return written("upscaled", [[plain, found, truths[middle]]])


def written(name: str, rows: Sequence[Sequence[Picture]]) -> Path:
    """Panels of one size as `{name}.png`."""
    path = GALLERY / f"{name}.png"
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    write_still(path, np.ascontiguousarray(sheet), comment=MARK)
    return path


def scaled(picture: Picture, height: int) -> Picture:
    """The picture at another height."""
    width = round(picture.shape[1] * height / picture.shape[0])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def gif(frames: Sequence[Picture], rate: Fraction) -> bytes:
    """Pictures under one palette, without dithering, which a GIF can't pack."""
    strip = Image.fromarray(np.concatenate(frames[:: len(frames) // 6], axis=0))
    palette = strip.quantize(256, dither=Image.Dither.NONE)
    shown = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    encoded = BytesIO()
    shown[0].save(
        encoded,
        "GIF",
        save_all=True,
        append_images=shown[1:],
        duration=round(1000 / rate),
        loop=0,
        comment=MARK.encode(),
    )
    return encoded.getvalue()


if __name__ == "__main__":
    main()
