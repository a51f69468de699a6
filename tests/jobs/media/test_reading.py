"""Reading one input: every kind of image becomes pixels, everything else a reason."""

import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.jobs.media import reading
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.runs.plan import Item
from paliflow.model import images
from paliflow.tests.jobs.files import bomb, encode


@pytest.fixture(params=["local", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path, gcs: None) -> str:
    """A fresh folder."""
    return str(tmp_path) if request.param == "local" else f"gs://images/{tmp_path.name}"


def read(path: Path, content: bytes | None = None, max_pixels: int = 100_000_000) -> Input:
    if content is not None:
        path.write_bytes(content)
    return read_item(Item(str(path)), max_pixels=max_pixels)


def read_item(item: Item, **options: Any) -> Input:
    defaults = {"size": 56, "max_pixels": 1000, "thumbnail": None, "https_hosts": ()}
    return read_input(item, **{**defaults, **options})


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
    assert result.pixels.dtype == np.uint8
    assert result.pixels.min() < result.pixels.max()


def test_an_image_on_its_side_is_left_so_where_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "image").write_bytes(encode("RGB", "JPEG", exif=exif))
    fields: dict[str, Any] = {"output": "o", "run_id": "r", "input": "i", "prompts": ["ocr"]}
    found = {}
    for exif_field in ("apply", "ignore"):
        spec = AnnotateSpec(**fields, exif=exif_field)
        (one,) = reader(spec, 56, thumbnail=40)(Item(str(tmp_path / "image")))
        assert one is not None
        assert one.thumbnail is not None
        with Image.open(io.BytesIO(one.thumbnail)) as thumbnail:
            found[exif_field] = one.width, one.height, one.orientation, thumbnail.size
    assert found == {"apply": (30, 40, 6, (30, 40)), "ignore": (40, 30, 6, (40, 30))}


def test_spec_says_how_images_and_frames_that_are_images_are_read(tmp_path: Path) -> None:
    gradient = np.add.outer(np.arange(600), np.arange(802)).astype(np.uint16) // 6
    picture = Image.fromarray(gradient.astype(np.uint8)).convert("RGB")
    picture.save(tmp_path / "0.jpg", quality=60)
    fields: dict[str, Any] = {"output": "o", "run_id": "r", "input": "i", "prompts": ["ocr"]}
    film = Item(str(tmp_path), frames=(str(tmp_path / "0.jpg"),))
    for item, more in (
        (Item(str(tmp_path / "0.jpg")), {}),
        (film, {"video": {"frame_rate": 1, "every_frames": 1}}),
    ):
        found: dict[str, Input] = {}
        for way in ("exact", "fast"):
            spec = AnnotateSpec.parse(fields | more | {"decode": way})
            (one,) = [each for each in reader(spec, 56, thumbnail=40)(item) if each]
            assert (one.width, one.height, one.error) == (802, 600, None)
            with Image.open(io.BytesIO(one.thumbnail or b"")) as thumbnail:
                assert thumbnail.size == (40, 30)
            found[way] = one
        assert found["exact"].sha256 == found["fast"].sha256
        exact, fast = (found[way].pixels for way in ("exact", "fast"))
        assert exact is not None
        assert fast is not None
        apart = np.abs(exact.astype(int) - fast)
        assert 0 < apart.mean() < 0.5
        if item is not film:
            read = read_item(item, max_pixels=10**6, way="fast", thumbnail=40)
            np.testing.assert_array_equal(read.pixels, fast)


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
def test_of_a_broken_file_nothing_is_told_but_the_reason(
    tmp_path: Path, content: bytes, error: str
) -> None:
    result = read(tmp_path / "image", content)
    assert result.error is not None
    assert result.error.startswith(error)
    assert result == Input(result.item, error=result.error)


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
        "https://host/a.jpg": "no access: its host is not among https_hosts, which are: none",
        "http://host/a.jpg": "cannot be read: http:// is not read; give",
        "nope://u:secret@host/a": "cannot be read: nope:// is not read",
        "a\0b": "cannot be read: ",
        "": "the manifest names no image in this row",
    }.items():
        result = read_item(Item(uri))
        assert result.error is not None
        assert result.error.startswith(error)
        assert result == Input(Item(uri), error=result.error)


def test_a_member_of_a_tar_is_read_where_it_lies(tmp_path: Path, root: str) -> None:
    image = encode("RGB", "JPEG")
    archive = f"{root}/images.tar"
    storage.overwrite(archive, io.BytesIO(b"before" + image + b"behind"))
    item = Item(f"{archive}#a.jpg", archive=archive, offset=6, size=len(image))
    result = read_item(item, max_pixels=10_000)
    assert (result.error, result.item) == (None, item)
    assert result.sha256 == hashlib.sha256(image).hexdigest()
    assert (
        read_item(item._replace(size=10**6)).error == "cannot be read: the archive ends before it"
    )
    assert read_item(item._replace(archive=f"{root}/gone.tar")).error == "not found"


def test_a_file_above_the_bytes_that_fit_is_not_read(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 999)
    storage.overwrite(f"{root}/a.jpg", io.BytesIO(bytes(1000)))
    whole, member = Item(f"{root}/a.jpg"), Item("x", archive=f"{root}/a.jpg", offset=0, size=1000)
    for item in (whole, member):
        assert read_item(item) == Input(item, error="cannot be read: larger than 999 bytes")


@pytest.mark.parametrize("turned", [False, True])
def test_the_thumbnail_is_a_small_upright_jpeg(tmp_path: Path, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    path = tmp_path / "image"
    path.write_bytes(encode("RGB", "JPEG", (400, 300), exif=exif))
    result = read_item(Item(str(path)), max_pixels=200_000, thumbnail=100)
    assert result.thumbnail is not None
    small = Image.open(io.BytesIO(result.thumbnail))
    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert small.size == ((75, 100) if turned else (100, 75))
    tiny = read_item(Item(str(path)), max_pixels=200_000, thumbnail=1000).thumbnail
    assert tiny is not None
    assert max(Image.open(io.BytesIO(tiny)).size) == 400  # never enlarged


def test_a_large_image_keeps_its_size_and_its_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(4).normal(128, 90, (40, 60)).clip(0, 255).astype(np.uint8)
    smooth = Image.fromarray(noise).convert("RGB").resize((1200, 801))
    exif = Image.Exif()
    exif[0x0112] = 8
    for kind in ("PNG", "JPEG"):
        smooth.save(tmp_path / kind, kind, exif=exif, quality=95)
        item = Item(str(tmp_path / kind))
        exact = read_item(item, max_pixels=10**6)
        with monkeypatch.context() as patch:
            patch.setattr(images, "LARGE", 300_000)
            reduced = read_item(item, max_pixels=10**6)
        assert (reduced.width, reduced.height) == (exact.width, exact.height) == (801, 1200)
        assert exact.pixels is not None
        assert reduced.pixels is not None
        difference = np.abs(reduced.pixels.astype(int) - exact.pixels)
        assert difference.mean() < 1.5
        assert difference.max() < 10


JPEG, PNG = encode("RGB", "JPEG"), encode("RGB", "PNG")


@given(st.sampled_from([JPEG, PNG]), st.integers(0, 3_000), st.binary(max_size=20))
def test_any_damage_ends_in_pixels_or_a_reason(content: bytes, at: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = read(Path(folder, "image"), content[:at] + damage + content[at + len(damage) :])
    assert (result.pixels is None) == (result.error is not None)
