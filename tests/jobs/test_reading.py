"""Reading one input: every kind of image becomes pixels, everything else a reason."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow.jobs.reading import Input, read_input
from paliflow.tests.jobs.files import bomb, encode


def read(path: Path, content: bytes | None = None, max_pixels: int = 100_000_000) -> Input:
    if content is not None:
        path.write_bytes(content)
    return read_input(str(path), 56, max_pixels)


ANIMATION: dict[str, Any] = {"save_all": True, "append_images": [Image.new("P", (40, 30), 7)]}


@pytest.mark.parametrize(
    "content",
    [
        encode("RGB", "JPEG"),
        encode("CMYK", "JPEG"),
        encode("L", "JPEG"),
        encode("I;16", "PNG"),
        encode("P", "PNG", transparency=0),
        encode("RGBA", "PNG"),
        encode("1", "PNG"),
        encode("P", "GIF", **ANIMATION),
        encode("RGB", "WEBP"),
        encode("RGB", "TIFF"),
        encode("RGB", "BMP"),
    ],
)
def test_every_kind_of_image_becomes_pixels(tmp_path: Path, content: bytes) -> None:
    result = read(tmp_path / "image", content)
    assert result.error is None
    assert (result.width, result.height) == (40, 30)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert result.pixels is not None
    assert result.pixels.shape == (56, 56, 3)
    assert result.pixels.dtype == np.float32
    assert -1 <= result.pixels.min() < result.pixels.max() <= 1


def test_an_image_on_its_side_has_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    result = read(tmp_path / "image", encode("RGB", "JPEG", exif=exif))
    assert (result.width, result.height) == (30, 40)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (encode("RGB", "JPEG")[:-300], "truncated or broken image: image file is truncated"),
        (encode("RGB", "PNG")[:-300], "truncated or broken image: "),
        (bomb(12_000), "too many pixels: 12000 x 12000"),
        (bomb(50_000), "too many pixels: "),
    ],
)
def test_a_broken_file_has_a_digest_and_a_reason(
    tmp_path: Path, content: bytes, error: str
) -> None:
    result = read(tmp_path / "image", content)
    assert result.error is not None
    assert result.error.startswith(error)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert (result.pixels, result.width, result.height) == (None, None, None)


def test_max_pixels_is_the_limit(tmp_path: Path) -> None:
    content = encode("RGB", "PNG")
    assert read(tmp_path / "image", content, max_pixels=40 * 30).error is None
    error = read(tmp_path / "image", content, max_pixels=40 * 30 - 1).error
    assert error == "too many pixels: 40 x 30 pixels are more than max_pixels=1199"


def test_what_cannot_be_read_has_only_a_reason(tmp_path: Path, gcs: None) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for uri, error in {
        str(tmp_path / "nothing"): "not found",
        "gs://images/nothing": "not found",
        str(tmp_path / "folder.jpg"): "cannot be read: ",
        "https://host/a.jpg": "cannot be read: 'https://host/a.jpg' is neither",
        "a\0b": "cannot be read: ",
        "": "the manifest names no image in this row",
    }.items():
        result = read_input(uri, 56, 1_000)
        assert result.error is not None
        assert result.error.startswith(error)
        assert result == Input(uri, error=result.error)


JPEG, PNG = encode("RGB", "JPEG"), encode("RGB", "PNG")


@given(st.sampled_from([JPEG, PNG]), st.integers(0, 3_000), st.binary(max_size=20))
def test_any_damage_ends_in_pixels_or_a_reason(content: bytes, at: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = read(Path(folder, "image"), content[:at] + damage + content[at + len(damage) :])
    assert (result.pixels is None) == (result.error is not None)
