"""Reading for a network: fewer pixels are decoded, and what it sees is nearly the same."""

import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paliflow.model import ImageTooLarge, decode_image, images
from paliflow.model.images import Decoded, squash

SIDE, LIMIT = 56, 10**7
MARKER = b"\xff\xda"


def photograph(width: int, height: int) -> Image.Image:
    """Shapes of all sizes, the smaller the fainter, as photographs have them."""
    rng = np.random.default_rng(3)
    levels = np.full((height, width, 3), 128.0)
    for octave in range(2, 9):
        noise = rng.normal(0, 90 / octave**1.5, (2**octave, 2**octave, 3)).astype(np.float32)
        for band in range(3):
            layer = Image.fromarray(noise[..., band])
            levels[..., band] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(levels.clip(8, 247).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **({"quality": 90} | options))
    return file.getvalue()


def ways(data: bytes, **options: Any) -> tuple[Decoded, np.ndarray[Any, Any]]:
    """What is decoded fast, and by how many levels the squares differ from the exact one."""
    fast = decode_image(data, LIMIT, side=SIDE, **options)
    exact = decode_image(data, LIMIT, **options)
    assert exact.box is None
    assert fast[1:4] == exact[1:4]  # the file's size and orientation
    return fast, squash(fast, SIDE).astype(int) - squash(exact, SIDE)


@pytest.mark.parametrize(
    ("mode", "form", "options", "decoded"),
    [
        ("RGB", "JPEG", {}, (251, 176)),
        ("RGB", "JPEG", {"progressive": True}, (251, 176)),
        ("RGB", "JPEG", {"subsampling": 0}, (251, 176)),
        ("L", "JPEG", {}, (251, 176)),
        ("CMYK", "JPEG", {}, (251, 176)),
        ("RGB", "MPO", {"save_all": True}, (251, 176)),
        ("RGB", "PNG", {}, (1001, 701)),
        ("P", "PNG", {}, (1001, 701)),
        ("RGB", "JPEG2000", {}, (1001, 701)),
    ],
)
def test_fast_square_is_the_exact_one_to_half_a_level(
    mode: str, form: str, options: dict[str, Any], decoded: tuple[int, int]
) -> None:
    fast, difference = ways(encoded(photograph(1001, 701).convert(mode), form, **options))
    assert fast.image.size == decoded
    assert (fast.image.mode, fast.width, fast.height) == ("RGB", 1001, 701)
    assert np.abs(difference).mean() < 0.5
    assert abs(difference.mean()) < 0.15
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize("upright", [True, False])
def test_fast_square_is_turned_with_all_of_its_picture(upright: bool) -> None:
    image = photograph(
        457, 451
    )  # whose last pixels, decoded to a quarter, are of one of the file's
    stored = squash(decode_image(encoded(image), LIMIT, side=SIDE), SIDE).astype(int)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        fast, difference = ways(encoded(image, exif=exif), upright=upright)
        sideways = upright and orientation >= 5
        assert (fast.width, fast.height) == ((451, 457) if sideways else (457, 451))
        assert np.abs(difference).mean() < 0.5
        square = squash(fast, SIDE).astype(int)
        undone = images._turned(Image.fromarray(stored.astype(np.uint8)), orientation)
        assert np.abs(square - (undone if upright else stored)).max() <= 1


@pytest.mark.parametrize("size", [(40, 30), (56, 56), (200, 100), (223, 1000)])
def test_image_with_few_pixels_is_read_alike_both_ways(size: tuple[int, int]) -> None:
    for form in ("JPEG", "PNG"):
        fast, difference = ways(encoded(photograph(*size), form))
        assert fast.image.size == size
        assert np.abs(difference).max() <= (1 if max(size) > 4 * SIDE else 0)


def test_limits_are_of_the_pixels_of_the_file() -> None:
    data = encoded(photograph(1001, 701))
    with pytest.raises(ImageTooLarge, match="1001 x 701 pixels are more than max_pixels=700000"):
        decode_image(data, 700_000, side=SIDE)
    with pytest.raises(OSError, match="truncated"):
        decode_image(data[: len(data) // 2], LIMIT, side=SIDE)


def test_scans_are_those_of_the_picture_and_not_of_what_is_around_it() -> None:
    image = photograph(64, 48)

    def scans(data: bytes) -> int:
        with Image.open(io.BytesIO(data)) as opened:
            return images._scans(opened, data)

    assert scans(encoded(image, comment=100 * MARKER)) == 1
    assert scans(encoded(image) + 100 * MARKER) == 1
    assert scans(encoded(image, "PNG")) == 1
    progressive = encoded(image, progressive=True)
    assert scans(progressive) == progressive.count(MARKER) > 5
    assert scans(progressive + 100 * MARKER) > 100


def test_large_photographs_are_read_beside_others_unless_memory_holds_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Held(threading.Semaphore):
        times = 0

        def __enter__(self) -> bool:  # type: ignore[override]
            self.times += 1
            return True

        def __exit__(self, *raised: object) -> None: ...

    held = Held()
    monkeypatch.setattr(images, "one_at_a_time", held)
    monkeypatch.setattr(images, "LARGE", 300_000)
    for progressive, side, taken in (
        (False, SIDE, 0),
        (False, None, 1),
        (True, SIDE, 1),
        (False, 10 * SIDE, 1),  # no scale leaves enough
    ):
        held.times = 0
        data = encoded(photograph(1001, 701), progressive=progressive)
        fast = decode_image(data, LIMIT, side=side)
        assert held.times == taken
        whole = squash(decode_image(data, LIMIT), SIDE).astype(int)
        assert np.abs(squash(fast, SIDE) - whole).mean() < 0.6
