"""Still images: read whatever phones and editors write, write PNG and JPEG."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.srgb import split_srgb

FORMATS = (*("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF"),)
"""Those that are recognised by a signature: without one, noise passes for an image."""
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}
"""Formats whose further pictures are moments; in others they are thumbnails, pages or depth."""
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, struct.error, zlib.error, MemoryError),
)
"""What Pillow's decoders raise on damaged files, besides their own errors."""


@dataclass(frozen=True)
class Still:
    """A still image, upright."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB in [0, 255], not multiplied by alpha."""
    alpha: NDArray[np.uint8] | None
    """(H, W) in [0, 255], 0 = transparent; None where every pixel is opaque."""
    path: Path


def read_still(path: Path) -> Still:
    """Read a still image: EXIF orientation applied, colours converted to sRGB.

    Raises:
        MediaError: it is missing, damaged, too large, animated, or no image.
    """
    with open_image(path) as image:
        if _is_animated(image):
            raise MediaError(
                f"{path} is an animation where a still image is expected: save one frame of it"
            )
        pixels, alpha = split_srgb(ImageOps.exif_transpose(image))
    return Still(image=pixels, alpha=alpha, path=path)


def is_still(path: Path) -> bool:
    """Whether the content of `path` is a still image; False for what can't be opened."""
    try:
        with open_image(path) as image:
            return not _is_animated(image)
    except MediaError:
        return _is_heic(path)


def is_animation(path: Path) -> bool:
    """Whether the content of `path` is an animated GIF, WebP, PNG or AVIF."""
    try:
        with open_image(path) as image:
            return _is_animated(image)
    except MediaError:
        return False


def write_still(
    path: Path,
    image: NDArray[np.uint8],
    *,
    alpha: NDArray[np.uint8] | None = None,
    comment: str = "",
) -> None:
    """Write (H, W, 3) sRGB as PNG or JPEG, by the suffix of `path`, whole or not at all.

    A PNG may carry (H, W) `alpha`. `comment` is stored as the file's comment; nothing else is
    stored beside the pixels.

    Raises:
        UsageError: another suffix, alpha in a JPEG, or a place that can't be written to.
    """
    kind = path.suffix.lower()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if kind not in {".png", ".jpg", ".jpeg"}:
        raise UsageError(f"{path}: images are written as .png, .jpg or .jpeg: choose one of them")
    if kind == ".png":
        notes = PngInfo()
        notes.add(b"sRGB", b"\0")
        if comment:
            notes.add_itxt("Comment", comment)
        if alpha is not None:
            picture.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
        options: dict[str, Any] = {"format": "PNG", "pnginfo": notes}
    elif alpha is None:
        options = {"format": "JPEG", "quality": 95, "subsampling": 0, "comment": comment.encode()}
    else:
        raise UsageError(f"{path}: a JPEG holds no transparency: write a .png")
    with atomic_output(path) as partial:
        try:
            picture.save(partial, **options)
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror or error}") from error


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file with Pillow, its decoders' errors turned into ours.

    Raises:
        MediaError: it is missing, damaged, larger than Pillow's MAX_IMAGE_PIXELS, or no image.
    """
    formats = _readable_formats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # notes on damaged metadata
            with Image.open(path, formats=formats) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediaError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels: scale it down first"
        ) from error
    except FileNotFoundError as error:
        raise MediaError(f"{path} doesn't exist: check the path") from error
    except UnidentifiedImageError as error:
        if "HEIF" not in formats and _is_heic(path):
            raise MediaError(
                f"{path} is a HEIC image: run `pip install pillow-heif`, or save it as JPEG"
            ) from error
        raise MediaError(
            f"{path} can't be read as an image: it is empty, damaged, or of another kind"
        ) from error
    except _DECODER_ERRORS as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MediaError(f"{path} can't be read as an image: {reason}") from error


def _is_animated(image: Image.Image) -> bool:
    return image.format in _ANIMATED and getattr(image, "is_animated", False)


def _is_heic(path: Path) -> bool:
    """By its first bytes, so that the answer doesn't depend on what is installed."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS


@cache
def _readable_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with, HEIF if its package is installed."""
    Image.init()
    available = set(Image.OPEN)
    try:
        import pillow_heif  # noqa: PLC0415  # optional

        pillow_heif.register_heif_opener()
        available.add("HEIF")
    except ImportError:
        available.discard("HEIF")
    return tuple(name for name in FORMATS if name in available)
