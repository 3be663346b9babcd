"""Still images: read whatever phones and editors write, write PNG and JPEG."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media.outputs import atomic_output, is_full
from metaportrait_cli.media.srgb import split_srgb

FORMATS = (*("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF"),)
"""Those that are recognised by a signature: without one, noise passes for an image."""
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}
"""Formats whose further pictures are moments; in others they are thumbnails, pages or depth."""
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a")
_TOLD = {b"\x89PNG\r\n\x1a\n": ("PNG",), b"\xff\xd8\xff": ("JPEG",), b"\x1aE\xdf\xa3": ()}
"""What the first bytes alone say of a file's format; a video is of none."""
_VIDEO_BRANDS = {
    *(b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42"),
    *(b"avc1", b"dash", b"qt  ", b"M4V ", b"3gp4", b"3gp5", b"3gp6"),
}
_CURES = {
    "HEIC": "run `pip install pillow-heif`, or save it as JPEG",
    "JPEG XL": "save it as JPEG or PNG first",
}
"""What to do about pictures of kinds that are known, but not read."""
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, struct.error, zlib.error, MemoryError, RuntimeError),
)
"""What Pillow's decoders raise on damaged files, besides their own errors."""

_LYING = range(5, 9)
"""Orientations of EXIF whose pictures are stored on their side"""

LARGEST_SIDE = 65_535
NARROWEST = 64
"""Of a picture's sides one is at most so many times longer than the other."""
_MOST_JPEG_PIXELS = 1 << 28
"""What a phone's largest sensor gives; a JPEG that is not progressive is read at half size or less
in little memory."""
_PLENTY_PIXELS = 36_000_000
"""Larger pictures are halved, or more, before anything else: what is made of them is smaller yet,
and the steps between would hold several copies."""


@dataclass(frozen=True)
class Still:
    """A still image, upright."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB in [0, 255], not multiplied by alpha."""
    alpha: NDArray[np.uint8] | None
    """(H, W) in [0, 255], 0 = transparent; None where every pixel is opaque."""
    in_file: tuple[int, int]
    """Width and height as they are stored, upright."""


def read_still(path: Path) -> Still:
    """Read a still image: EXIF orientation applied, colours converted to sRGB.

    One of more than 36 million pixels comes at half its size, or less.

    Raises:
        MediaError: it is missing, damaged, too large, animated, or no image.
    """
    with open_image(path) as image:
        if _is_animated(image):
            raise MediaError(
                f"{path} is an animation where a still image is expected: save one frame of it"
            )
        profile, stored = image.info.get("icc_profile"), image.size
        lies = image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        pixels, alpha = split_srgb(ImageOps.exif_transpose(_reduced(image)), profile)
    return Still(image=pixels, alpha=alpha, in_file=stored[::-1] if lies else stored)


def is_still(path: Path) -> bool:
    """Whether the content of `path` is a still image; False for what is no image.

    Raises:
        MediaError: it is an image, and can't be read for a reason that its reader should hear.
    """
    return _looked_at(path) is False


def is_animation(path: Path) -> bool:
    """Whether the content of `path` is an animated GIF, WebP, PNG or AVIF; raises as `is_still`."""
    return _looked_at(path) is True


def _looked_at(path: Path) -> bool | None:
    """Whether an image is animated, None for what is no image."""
    try:
        with open_image(path) as image:
            return _is_animated(image)
    except _NotAnImageError:
        return None


class _NotAnImageError(MediaError):
    """The content is of another kind; whoever can read others may try."""


def sheet_path(path: str | os.PathLike[str] | None) -> Path | None:
    """The name of a picture that is written at the end of a run, if one is. Raises `UsageError`
    before the work for a suffix that `write_still` doesn't take."""
    if path is None:
        return None
    _check_suffix(Path(path))
    return Path(path)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise UsageError(f"{path}: images are written as .png, .jpg or .jpeg: choose one of them")


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
    _check_suffix(path)
    kind = path.suffix.lower()
    picture = Image.fromarray(np.ascontiguousarray(image))
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
            if is_full(error):
                raise
            raise UsageError(f"{path} can't be written: {error.strerror or error}") from error


@contextmanager
def open_image(
    file: Path | BytesIO, *, name: str | None = None, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """Open an image with Pillow, its decoders' errors turned into ours; the one way to pictures.

    `name` is what messages call it, by default its path. Only `formats` are tried, by default all
    that are read here. Nothing is decoded yet.

    Raises:
        MediaError: it is missing, no regular file, damaged, too large or too narrow, or no image.
    """
    name = name or str(file)
    if isinstance(file, Path) and file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "no regular file"
        raise _NotAnImageError(f"{name} can't be read as an image: it is {kind}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see _check_size
            warnings.simplefilter("ignore", UserWarning)  # notes on damaged metadata
            with _opened(file, formats or _formats_of(file)) as image:
                _check_size(image, name)
                yield image
    except FileNotFoundError as error:
        raise _NotAnImageError(f"{name} doesn't exist: check the path") from error
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS} pixels: scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        kind = _known_kind(file)
        if kind is not None:
            raise MediaError(f"{name} is a {kind} image: {_CURES[kind]}") from error
        raise _NotAnImageError(
            f"{name} can't be read as an image: it is empty, damaged, or of another kind"
        ) from error
    except _DECODER_ERRORS as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = said or f"it is damaged ({type(error).__name__})"
        raise MediaError(f"{name} can't be read as an image: {reason}") from error


def _opened(file: Path | BytesIO, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        if "JPEG" not in formats or not _head(file).startswith(b"\xff\xd8\xff"):
            raise
        # Of the largest JPEGs Pillow reads the head alone: they needn't be unpacked at full size.
        return JpegImageFile(file)


def _check_size(image: Image.Image, name: str) -> None:
    """Raises `MediaError` for pictures of which no one could make use, before they are unpacked."""
    width, height = image.size
    small = image.format == "JPEG" and not image.info.get("progressive")
    most = _MOST_JPEG_PIXELS if small else Image.MAX_IMAGE_PIXELS
    if width * height > (most or _MOST_JPEG_PIXELS) or max(width, height) > LARGEST_SIDE:
        raise MediaError(f"{name} is {width}x{height}, too large to be read: scale it down first")
    if max(width, height) > NARROWEST * min(width, height):
        raise MediaError(f"{name} is {width}x{height}: too narrow for a picture of a face")


def _reduced(image: Image.Image) -> Image.Image:
    """The picture, averaged over whole pixels to no more than `_PLENTY_PIXELS`."""
    factor = math.ceil(math.sqrt(image.width * image.height / _PLENTY_PIXELS))
    if factor < 2:
        return image
    if image.format == "JPEG":
        image.draft(None, (image.width // factor, image.height // factor))
        factor = math.ceil(math.sqrt(image.width * image.height / _PLENTY_PIXELS))
    if image.mode in {"P", "1"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode.startswith("I;16"):
        image = image.convert("I")
    orientation = image.getexif()
    return _with_exif(image.reduce(factor), orientation) if factor > 1 else image


def _with_exif(image: Image.Image, exif: Image.Exif) -> Image.Image:
    """The picture with what `exif_transpose` looks for, which copies don't take along."""
    image.info["exif"] = exif.tobytes()
    return image


def _is_animated(image: Image.Image) -> bool:
    return image.format in _ANIMATED and getattr(image, "is_animated", False)


def _formats_of(file: Path | BytesIO) -> tuple[str, ...]:
    """Those that it may be of. To try all takes a tenth of a second, for Pillow's plugins."""
    head = _head(file)
    if head[4:8] == b"ftyp" and head[8:12] in _VIDEO_BRANDS:
        return ()
    told = (formats for start, formats in _TOLD.items() if head.startswith(start))
    known = next(told, None)
    return _readable_formats() if known is None else known


def _known_kind(file: Path | BytesIO) -> str | None:
    """By its first bytes, so that the answer doesn't depend on what is installed."""
    head = _head(file)
    if head.startswith(_JPEG_XL):
        return "JPEG XL"
    return "HEIC" if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS else None


def _head(file: Path | BytesIO) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[:12]
    with file.open("rb") as opened:
        return opened.read(12)


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
