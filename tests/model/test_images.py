"""Any image file becomes an upright RGB picture, then the network's square input."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from paliflow.jobs.media.pixels import decode
from paliflow.model import ImageTooLarge, decode_image, images, preprocess
from paliflow.model.vision import normalised
from paliflow.tests.model.conftest import load_reference

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


RAMP = np.linspace(0, 1, 40 * 30).reshape(30, 40)


def _tiff(values: np.ndarray[Any, Any], **tags: Any) -> bytes:
    """A TIFF of one strip; tags by name, each a number."""
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    numbers = {"bits": 258, "photometric": 262, "min": 280, "max": 281, "smin": 340, "smax": 341}
    defaults = {"bits": values.dtype.itemsize * 8, "photometric": 1 if channels == 1 else 2}
    fields: dict[int, tuple[str, list[float]]] = {
        256: ("L", [values.shape[1]]),
        257: ("L", [values.shape[0]]),
        259: ("H", [1]),
        273: ("L", [8]),
        277: ("H", [channels]),
        279: ("L", [values.nbytes]),
        339: ("H", [kind] * channels),
    }
    for name, value in (defaults | tags).items():
        form = "f" if name in ("smin", "smax") else "H"
        fields[numbers[name]] = form, [value] * (channels if name == "bits" else 1)
    kinds = {"H": 3, "L": 4, "f": 11}
    place = 8 + values.nbytes
    entries, more = b"", b""
    start = place + 2 + 12 * len(fields) + 4
    for number, (form, content) in sorted(fields.items()):
        packed = struct.pack(f"<{len(content)}{form}", *content)
        if len(packed) > 4:
            inline = struct.pack("<I", start + len(more))
            more += packed
        else:
            inline = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", number, kinds[form], len(content)) + inline
    head = b"II*\0" + struct.pack("<I", place)
    return head + values.tobytes() + struct.pack("<H", len(fields)) + entries + bytes(4) + more


def _png(values: np.ndarray[Any, Any], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16-bit greys with chunks before its pixels; one without a checksum ends in `!`."""
    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name[:4]
        + data
        + struct.pack(">I", zlib.crc32(name + data) if len(name) == 4 else 1)
        for name, data in parts
    )


def _greys(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(decode_image(data, LIMIT).image)[..., 0].astype(int)


@pytest.mark.parametrize(
    "data",
    [
        _tiff(RAMP.astype(np.float32)),
        _tiff((RAMP * 255).astype(np.float32)),
        _tiff((RAMP * 4095).astype(np.uint16)),
        _tiff((RAMP * 255).astype(np.uint16)),
        _tiff((RAMP * 4095).astype(np.int32)),
        _tiff((RAMP * 1e9).astype(np.int32)),
        _tiff((RAMP * 7.5).astype(np.float32)),
        _tiff((RAMP * 1000).astype(np.uint16), max=1000),
        _tiff((100 + RAMP * 900).astype(np.uint16), min=100, max=1000),
        _tiff((RAMP * 2 - 1).astype(np.float32), smin=-1.0, smax=1.0),
        _tiff(((1 - RAMP) * 4095).astype(np.uint16), photometric=0),
        _png((RAMP * 4095).astype(np.uint16)),
        _png((RAMP * 255).astype(np.uint16)),
        _png((RAMP * 1023).astype(np.uint16), (b"sBIT", b"\x0a")),
        _png((RAMP * 1023).astype(np.uint16) << 6, (b"sBIT", b"\x0a")),
    ],
)
def test_greys_of_more_than_eight_bits_span_black_to_white(data: bytes) -> None:
    np.testing.assert_allclose(_greys(data), RAMP * 255, atol=1.5)


def test_twelve_bits_a_sample_are_what_the_file_says() -> None:
    dark = np.array([[0, 100], [200, 255]], np.uint16)  # by the values alone they were 8 bits
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in dark.astype(int).tolist()
    )
    whole = _tiff(np.frombuffer(packed, np.uint8).reshape(2, 3), bits=12)
    width = whole.index(struct.pack("<HHI", 256, 4, 1)) + 8
    data = whole[:width] + struct.pack("<I", 2) + whole[width + 4 :]
    np.testing.assert_allclose(_greys(data), dark * 255 / 4095, atol=0.51)


def test_a_stated_range_keeps_a_dark_picture_dark() -> None:
    assert _greys(_tiff((RAMP * 200).astype(np.uint16), max=65535)).max() == 1
    assert _greys(_tiff((RAMP * 0.1).astype(np.float32), smax=1.0)).max() == 26
    assert _greys(_png((RAMP * 3000).astype(np.uint16) + 5000)).max() == round(8000 / 257)


def test_floats_that_are_no_numbers_are_black_and_infinite_ones_white() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 0.5], [0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(_greys(_tiff(values)), [[0, 255], [0, 128], [0, 255]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tiff_that_pillow_cannot_read_is_unsupported_not_broken(dtype: type) -> None:
    colour: np.ndarray[Any, Any] = np.zeros((4, 4, 3), dtype)
    for values in (colour, colour[..., 0]) if dtype is np.float64 else (colour,):
        error = decode(_tiff(values), LIMIT)
        assert error == "unsupported image: TIFF: unknown pixel mode"
        broken = decode(_tiff(values)[:50], LIMIT)
        assert isinstance(broken, str)
        assert broken.startswith("truncated or broken image")


MUCH = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"profile\0\0" + MUCH),
        (b"zTXt", b"Comment\0\0" + MUCH),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + MUCH),
        (b"zTXt", b"Raw profile type exif\0\0" + MUCH),
        (b"zTXt", b"Raw profile type exif\0\0no deflate"),
        (b"tEXt!", b"Comment\0a bad checksum"),
        (b"eXIf!", b"a bad checksum"),
        (b"tEXt", b"Comment\0" + bytes(2_000_000)),
        (b"iCCP", b""),
        (b"pHYs", b"\0"),
        (b"acTL", b""),
    ],
    ids=lambda chunk: f"{chunk[0].decode()}-{len(chunk[1])}",
)
def test_metadata_does_not_make_an_image_unreadable(chunk: tuple[bytes, bytes]) -> None:
    values = (RAMP * 65535).astype(np.uint16)
    wanted = _greys(_png(values))
    assert wanted.max() == 255
    np.testing.assert_array_equal(_greys(_png(values, chunk)), wanted)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        (
            b"iTXt",
            b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>'),
        ),
    ],
)
def test_metadata_that_says_which_way_is_up_is_kept(chunk: tuple[bytes, bytes]) -> None:
    decoded = decode_image(_png((RAMP * 65535).astype(np.uint16), chunk), LIMIT)
    assert (decoded.width, decoded.height, decoded.orientation) == (30, 40, 6)


def test_broken_pixels_of_a_png_stay_an_error() -> None:
    data = _png((RAMP * 65535).astype(np.uint16))
    wrong = data.index(b"IDAT") + 6
    for broken in (data[:wrong] + bytes(40) + data[wrong + 40 :], data[: wrong + 9]):
        with pytest.raises((OSError, ValueError, SyntaxError)):
            decode_image(broken, LIMIT)


def test_alpha_is_dropped_not_blended() -> None:
    transparent = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert decode_image(_file(transparent), LIMIT).image.getpixel((0, 0)) == (200, 100, 50)


def test_grey_and_alpha_in_a_jpeg_2000_that_speaks_of_other_colours_are_read() -> None:
    content = io.BytesIO()
    Image.new("LA", (8, 6), (90, 10)).save(content, "JPEG2000")
    grey, ycc = b"colr\1\0\0\0\0\0\x11", b"colr\1\0\0\0\0\0\x12"  # as FFmpeg writes it
    for data in (content.getvalue(), content.getvalue().replace(grey, ycc)):
        assert np.asarray(decode_image(data, 1000).image).tolist() == [[[90] * 3] * 8] * 6


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise
    data = _file(_gradient(), "JPEG", exif=exif, quality=95)
    stored = decode_image(data, LIMIT, upright=False)
    assert (stored.image.size, stored.width, stored.height, stored.orientation) == (
        (40, 30),
        40,
        30,
        6,
    )
    turned = decode_image(data, LIMIT).image
    assert turned.size == (30, 40)
    wanted = np.asarray(_gradient().rotate(-90, expand=True), int)
    assert np.abs(np.asarray(turned, int) - wanted).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda x: x),
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (4, np.flipud),
        (5, lambda x: x.swapaxes(0, 1)),
        (6, np.rot90),
        (7, lambda x: np.rot90(x, 2).swapaxes(0, 1)),
        (8, lambda x: np.rot90(x, -1)),
        (9, lambda x: x),
    ],
)
def test_each_orientation_is_undone(orientation: int, stored: Callable[..., Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.asarray(_gradient())
    data = _file(Image.fromarray(np.ascontiguousarray(stored(upright))), exif=exif)
    decoded = decode_image(data, LIMIT)
    assert (decoded.width, decoded.height) == (40, 30)
    np.testing.assert_array_equal(np.asarray(decoded.image), upright)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, LIMIT).image.getpixel((0, 0)) == (255, 0, 0)


def test_an_image_that_announces_too_many_pixels_is_not_decoded() -> None:
    data = _file(Image.new("1", (400, 300)))
    with pytest.raises(ImageTooLarge, match="400 x 300 pixels are more than max_pixels=10000"):
        decode_image(data, LIMIT)


@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_is_lifted_while_decoding_and_left_to_everyone_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Image.MAX_IMAGE_PIXELS  # importing the package has not changed it
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(images, "LARGE", 1000)
    inside, leave = Event(), Event()

    @contextmanager
    def waiting() -> Iterator[None]:
        inside.set()
        leave.wait(60)
        yield

    monkeypatch.setattr(images, "one_at_a_time", waiting())
    small, large = _file(Image.new("L", (25, 25))), _file(Image.new("L", (50, 50)))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(decode_image, large, LIMIT)
        assert inside.wait(60)
        assert decode_image(small, LIMIT).width == 25
        assert Image.MAX_IMAGE_PIXELS is None  # the other thread is not done
        leave.set()
        assert other.result().width == 50
    assert Image.MAX_IMAGE_PIXELS == 100


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
    np.testing.assert_allclose(ours, exact, atol=1.01 / 127.5)  # truncated to grey levels


@pytest.mark.parametrize(("width", "height"), [(97, 131), (131, 20), (20, 17), (56, 80)])
def test_preprocessing_truncates_to_grey_levels_as_big_vision_does(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    exact = _bilinear(_bilinear(pixels.astype(float), 56).swapaxes(0, 1), 56).swapaxes(0, 1)
    levels = (preprocess(Image.fromarray(pixels), 56) + 1) * 127.5
    sure = np.abs(exact - np.round(exact)) > 2e-3
    assert sure.mean() > 0.9
    np.testing.assert_allclose(levels[sure], np.floor(exact)[sure], atol=1e-4)


def test_preprocessing_in_strips_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8))
    whole = preprocess(image, 56)
    monkeypatch.setattr(images, "_STRIP", 1000)
    np.testing.assert_array_equal(preprocess(image, 56), whole)


def test_preprocessing_changes_nothing_where_the_size_fits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    levels = (preprocess(Image.fromarray(pixels), 56) + 1) * 127.5
    np.testing.assert_allclose(levels, pixels, atol=1e-4)


def _bilinear(pixels: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Resizes the first axis with a triangle as wide as the scale, in float64."""
    source = len(pixels)
    scale = source / size
    centre = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(source) - centre) / max(scale, 1))
    return np.tensordot(weights / weights.sum(1, keepdims=True), pixels, axes=1)


def test_preprocessing_spans_minus_one_to_one() -> None:
    for colour, value in (("black", -1.0), ("white", 1.0)):
        np.testing.assert_array_equal(preprocess(Image.new("RGB", (9, 5), colour), 14), value)


def test_levels_are_normalised_on_the_device_as_on_the_host_bit_by_bit() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(jax.jit(normalised)(levels), images.normalize(levels))
    model = load_reference("pg1")
    size = model.config.image_size
    shown = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    found = model.encode_images(shown)
    wanted = model.encode_images(images.normalize(shown))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
