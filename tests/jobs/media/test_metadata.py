"""Copies of image files lose what tells of places and people, and keep every pixel."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from sklearn.datasets import load_sample_images

from paliflow.jobs.media.metadata import without_metadata
from paliflow.jobs.media.pixels import copied

TEMPLE = Image.fromarray(load_sample_images().images[0]).resize((160, 107))
SECRET = b"in my garden"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION, DESCRIPTION, GPS = 0x0112, 0x010E, 0x8825


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION], tags[DESCRIPTION] = orientation, SECRET.decode()
    tags.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 29: SECRET.decode()})
    return tags


def saved(kind: str, orientation: int = 6, **options: Any) -> bytes:
    file = io.BytesIO()
    TEMPLE.save(file, kind, exif=exif(orientation), icc_profile=PROFILE, **options)
    return file.getvalue()


def jpeg(**options: Any) -> bytes:
    """With EXIF, XMP, a comment, Photoshop's IPTC, and a second picture behind the end."""
    data = saved("JPEG", comment=SECRET, **options)
    more = [b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + SECRET]
    more += [b"\xff\xed", b"Photoshop 3.0\0" + SECRET, b"\xff\xe2", b"MPF\0" + SECRET]
    segments = b"".join(
        marker + (len(content) + 2).to_bytes(2, "big") + content
        for marker, content in zip(more[::2], more[1::2], strict=True)
    )
    return data[:2] + segments + data[2:] + saved("JPEG")


def png() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", SECRET.decode())
    texts.add_itxt("Place", SECRET.decode(), zip=False)
    return saved("PNG", pnginfo=texts)


@pytest.mark.parametrize(
    "data", [jpeg(), jpeg(progressive=True), jpeg(restart_marker_rows=1), png()],
    ids=["jpeg", "progressive", "restarts", "png"],
)  # fmt: skip
def test_pixels_colours_and_orientation_stay_and_all_else_is_gone(data: bytes) -> None:
    copy = without_metadata(data, 6)
    assert copy
    assert SECRET in data
    assert SECRET not in copy
    before, after = (Image.open(io.BytesIO(each)) for each in (data, copy))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert after.info["icc_profile"] == PROFILE
    assert dict(after.getexif()) == {ORIENTATION: 6}
    assert ImageOps.exif_transpose(after).size == (107, 160)
    assert dict(Image.open(io.BytesIO(without_metadata(data) or b"")).getexif()) == {}


def test_a_webp_loses_its_metadata_and_one_that_has_to_be_turned_is_encoded_again() -> None:
    data = saved("WEBP", 1, lossless=True)
    copy = without_metadata(data)
    assert copy
    assert SECRET in data
    assert SECRET not in copy
    after = Image.open(io.BytesIO(copy))
    assert np.array_equal(np.asarray(after), np.asarray(TEMPLE))
    assert (dict(after.getexif()), after.info["icc_profile"]) == ({}, PROFILE)
    turned = copied(saved("WEBP", 6), 10**6, as_jpeg=False)
    assert (turned.width, turned.height) == (107, 160)
    assert Image.open(io.BytesIO(turned.thumbnail or b"")).format == "JPEG"


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "JPEG"])
def test_what_is_encoded_again_is_an_upright_jpeg_without_metadata(kind: str) -> None:
    data = jpeg() if kind == "JPEG" else saved(kind, comment=SECRET)
    done = copied(data, 10**6, as_jpeg=kind == "JPEG")
    assert done.thumbnail
    assert SECRET not in done.thumbnail
    picture = Image.open(io.BytesIO(done.thumbnail))
    assert (picture.format, dict(picture.getexif())) == ("JPEG", {})
    assert "comment" not in picture.info


def test_a_file_that_is_cut_anywhere_is_refused_or_copied_and_nothing_else_happens() -> None:
    for data in (jpeg(), png(), saved("WEBP", 1)):
        for end in range(0, len(data), 7):
            try:
                copy = without_metadata(data[:end])
            except ValueError:
                continue
            assert copy is None or SECRET not in copy
    assert copied(jpeg()[:300], 10**6, as_jpeg=False).error
