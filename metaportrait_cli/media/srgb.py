"""Any Pillow picture as 8-bit sRGB, with alpha kept apart."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SPACE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of an ICC profile to the Pillow mode that it applies to."""


def split_srgb(
    image: Image.Image, profile: bytes | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """(H, W, 3) straight sRGB and (H, W) alpha, both in [0, 255]; no alpha where all is opaque.

    Its own ICC profile, or the one given, is honoured; one that doesn't fit the picture is
    ignored. 16-bit grey is scaled from [0, 65535]; floating-point grey is taken to be in [0, 1].

    Raises:
        ValueError: a colour mode that has no way to RGB.
    """
    profile = profile or image.info.get("icc_profile")
    image, alpha = _without_alpha(_to_8_bit(image))
    return _colours(image, profile), alpha


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 257
    elif image.mode == "I":
        values = np.asarray(image)
        # 32-bit grey is how 16-bit files of some kinds arrive; a picture that stays below 256
        # can only be an 8-bit one.
        grey = values.astype(np.float32) / (257 if values.max(initial=0) > 255 else 1)
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image)) * 255
    else:
        return image
    return Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8))


def _without_alpha(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    if not image.has_transparency_data:
        return image, None
    image = image.convert("RGBA")
    alpha = np.array(image.getchannel("A"))
    return image.convert("RGB"), None if alpha.min(initial=255) == 255 else alpha


def _colours(image: Image.Image, profile: bytes | None) -> NDArray[np.uint8]:
    converted = _by_profile(image, profile) if profile else None
    return np.array(converted if converted is not None else image.convert("RGB"))


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _SPACE_MODES.get(source.profile.xcolor_space.strip())
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
            return None
        return ImageCms.profileToProfile(
            image if image.mode == mode else image.convert(mode),
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
