"""Any image file becomes an upright RGB picture, then the network's square input."""

import io
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from paliflow.model import ImageTooLarge, decode_image, preprocess

LIMIT = 10_000


def _file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _gradient(size: tuple[int, int] = (40, 30)) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    image = decode_image(_file(_gradient().convert(mode), form), LIMIT).image
    assert (image.mode, image.size) == ("RGB", (40, 30))
    if mode not in ("1", "P", "L", "LA"):
        np.testing.assert_allclose(np.asarray(image), np.asarray(_gradient()), atol=2)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bit_greys_keep_their_range(dtype: type) -> None:
    grey: np.ndarray[Any, Any] = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(dtype)
    form = "PNG" if dtype is np.uint16 else "TIFF"
    image = np.asarray(decode_image(_file(Image.fromarray(grey), form), LIMIT).image)
    np.testing.assert_allclose(image[..., 0], grey / 257, atol=1.01)


def test_alpha_is_dropped_not_blended() -> None:
    transparent = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert decode_image(_file(transparent), LIMIT).image.getpixel((0, 0)) == (200, 100, 50)


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise
    turned = decode_image(_file(_gradient(), "JPEG", exif=exif, quality=95), LIMIT).image
    assert turned.size == (30, 40)
    wanted = np.asarray(_gradient().rotate(-90, expand=True), int)
    assert np.abs(np.asarray(turned, int) - wanted).mean() < 4


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, LIMIT).image.getpixel((0, 0)) == (255, 0, 0)


def test_an_image_that_announces_too_many_pixels_is_not_decoded() -> None:
    data = _file(Image.new("1", (400, 300)))
    with pytest.raises(ImageTooLarge, match="400 x 300 pixels are more than max_pixels=10000"):
        decode_image(data, LIMIT)


@pytest.mark.parametrize("keep", [0, 1, 10, 60, 200])
def test_truncated_files_raise(keep: int) -> None:
    data = _file(_gradient(), "JPEG")[:keep]
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode_image(data, LIMIT)


def test_preprocessing_equals_an_antialiased_bilinear_resize() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8))
    ours = preprocess(image, 56)
    pixels = np.asarray(image, np.float32)
    exact = jax.image.resize(pixels, (56, 56, 3), "bilinear", antialias=True) / 127.5 - 1
    assert ours.shape == (56, 56, 3)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, exact, atol=1.01 / 127.5)  # Pillow rounds to grey levels


def test_preprocessing_spans_minus_one_to_one() -> None:
    for colour, value in (("black", -1.0), ("white", 1.0)):
        np.testing.assert_array_equal(preprocess(Image.new("RGB", (9, 5), colour), 14), value)
