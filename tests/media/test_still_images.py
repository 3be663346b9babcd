"""What phones and editors write, as upright 8-bit sRGB. Sizes are never square."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media import stills
from metaportrait_cli.media.srgb import split_srgb
from metaportrait_cli.media.stills import is_animation, is_still, read_still, write_still

HEIGHT, WIDTH = 24, 36
RED = (200, 30, 10)


def gradient() -> NDArray[np.uint8]:
    """(24, 36, 3), different in each row and column."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 10, columns * 7, rows + columns], axis=-1).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def wide_gamut_profile() -> bytes:
    """A matrix profile with sRGB's red and green primaries exchanged: no way to overlook it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {}
    for entry in range(int.from_bytes(profile[128:132])):
        start = 132 + 12 * entry
        table[bytes(profile[start : start + 4])] = slice(start + 4, start + 12)
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


def test_plain_pixels_and_owner(tmp_path: Path) -> None:
    still = read_still(saved(tmp_path / "a.png", Image.fromarray(gradient())))
    np.testing.assert_array_equal(still.image, gradient())
    assert still.alpha is None
    assert still.image.flags.c_contiguous
    assert still.image.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(gradient())
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(read_still(path).image, gradient())


def test_embedded_profile_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    saved(path, Image.new("RGB", (WIDTH, HEIGHT), RED), icc_profile=wide_gamut_profile())
    pixel = read_still(path).image[3, 5].astype(int)
    assert np.abs(pixel - [RED[1], RED[0], RED[2]]).max() <= 2


def test_a_broken_profile_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    saved(path, Image.new("RGB", (WIDTH, HEIGHT), RED), icc_profile=b"nonsense" * 30)
    assert tuple(read_still(path).image[0, 0]) == RED


def test_grey_with_an_rgb_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    saved(path, Image.new("L", (WIDTH, HEIGHT), 90), icc_profile=wide_gamut_profile())
    assert np.ptp(read_still(path).image[0, 0].astype(int)) <= 2


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_colour_modes(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode in {"CMYK", "YCbCr"} else ".png"
    path = saved(tmp_path / f"a{suffix}", Image.new("RGB", (WIDTH, HEIGHT), "white").convert(mode))
    image = read_still(path).image
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.min() >= 254


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (WIDTH, HEIGHT), RED).convert("CMYK"))
    assert np.abs(read_still(path).image[5, 5].astype(int) - RED).max() <= 8


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.full((HEIGHT, WIDTH), 128 * 257, np.uint16)
    values[0, 1] = 65535
    image = read_still(saved(tmp_path / "a.png", Image.fromarray(values))).image
    assert image[5, 5].tolist() == [128] * 3
    assert image[0, 1].tolist() == [255] * 3


def test_float_and_32_bit_grey() -> None:
    half, _ = split_srgb(Image.fromarray(np.full((2, 3), 0.5, np.float32)))
    assert half[0, 0].tolist() == [128] * 3
    deep, _ = split_srgb(Image.fromarray(np.full((2, 3), 257 * 7, np.int32)))
    assert deep[0, 0].tolist() == [7] * 3
    shallow, _ = split_srgb(Image.fromarray(np.full((2, 3), 7, np.int32)))
    assert shallow[0, 0].tolist() == [7] * 3


def test_alpha_is_kept_apart(tmp_path: Path) -> None:
    picture = Image.fromarray(gradient())
    alpha = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
    picture.putalpha(Image.fromarray(alpha))
    still = read_still(saved(tmp_path / "a.png", picture))
    np.testing.assert_array_equal(still.image, gradient())
    assert still.alpha is not None
    np.testing.assert_array_equal(still.alpha, alpha)


def test_transparent_palette_and_opaque_alpha(tmp_path: Path) -> None:
    palette = Image.new("P", (WIDTH, HEIGHT), 1)
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((4, 2), 0)
    still = read_still(saved(tmp_path / "p.png", palette, transparency=0))
    assert still.alpha is not None
    assert still.alpha[2, 4] == 0
    assert tuple(still.image[0, 0]) == RED
    opaque = saved(tmp_path / "o.png", Image.new("RGBA", (WIDTH, HEIGHT), (*RED, 255)))
    assert read_still(opaque).alpha is None


def test_size_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "_PLENTY_PIXELS", WIDTH * HEIGHT // 4)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    still = read_still(saved(tmp_path / "a.jpg", Image.fromarray(gradient()), exif=exif))
    assert still.in_file == (HEIGHT, WIDTH)
    assert still.image.shape[0] == WIDTH // 2


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(path, quality=95)
    assert is_still(path)
    still = read_still(path)
    assert still.image.shape == (48, 64, 3)
    assert np.abs(still.image[20, 20].astype(int) - RED).max() <= 8


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    stills._readable_formats.cache_clear()
    try:
        for look in (is_still, read_still):
            with pytest.raises(MediaError, match="pip install pillow-heif"):
                look(path)
    finally:
        stills._readable_formats.cache_clear()


def test_pictures_of_a_phone_are_not_an_animation(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.tif"):
        two = [Image.fromarray(gradient()), Image.fromarray(gradient())]
        options = {"format": "MPO"} if name == "a.jpg" else {}
        path = saved(tmp_path / name, two[0], save_all=True, append_images=two[1:], **options)
        assert is_still(path)
        assert read_still(path).image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_an_animation_is_no_still(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), c) for c in ("red", "blue")]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    assert is_animation(path)
    assert not is_still(path)
    with pytest.raises(MediaError, match="animation"):
        read_still(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", bytes(range(256)) * 40, b"text"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png") as caught:
        read_still(path)
    assert "\n" not in str(caught.value)
    assert not is_still(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated(tmp_path: Path, name: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path = saved(tmp_path / name, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(MediaError, match="can't be read"):
        read_still(path)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="doesn't exist"):
        read_still(tmp_path / "no.png")
    with pytest.raises(MediaError, match="can't be read"):
        read_still(tmp_path)
    assert not is_still(tmp_path)


@pytest.mark.parametrize(("limit", "told"), [(100, "more than 100 pixels"), (700, "36x24, too")])
def test_too_many_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, told: str
) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(MediaError, match=told):
        read_still(path)


def test_decoder_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    monkeypatch.setattr(stills, "_opened", Mock(side_effect=EOFError))
    with pytest.raises(MediaError, match=r"damaged \(EOFError\)"):
        read_still(path)


def test_write_png_with_alpha_and_comment(tmp_path: Path) -> None:
    path = tmp_path / "-a $x '日'.png"
    alpha = np.full((HEIGHT, WIDTH), 9, np.uint8)
    write_still(path, gradient(), alpha=alpha, comment="made by AI")
    still = read_still(path)
    np.testing.assert_array_equal(still.image, gradient())
    assert still.alpha is not None
    assert still.alpha.max() == 9
    with Image.open(path) as image:
        assert image.info["Comment"] == "made by AI"
        assert not image.getexif()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_write_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.JPG"
    write_still(path, gradient(), comment="made by AI")
    assert np.abs(read_still(path).image.astype(int) - gradient()).max() <= 12
    assert b"made by AI" in path.read_bytes()


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png"):
        write_still(tmp_path / "a.bmp", gradient())
    with pytest.raises(UsageError, match="transparency"):
        write_still(tmp_path / "a.jpg", gradient(), alpha=gradient()[:, :, 0])
    with pytest.raises(UsageError, match="doesn't exist"):
        write_still(tmp_path / "no" / "where" / "a.png", gradient())


def test_profile_bytes_are_those_of_a_profile() -> None:
    assert ImageCms.ImageCmsProfile(BytesIO(wide_gamut_profile())).profile.xcolor_space == "RGB "
