"""<loc> and <seg> text is read and written without loss, and junk never raises."""

import re
from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from paliflow.model import (
    Detection,
    MaskDecoder,
    format_detections,
    parse_detections,
    score_detections,
)
from paliflow.model.masks import paste_mask
from paliflow.tests.model.conftest import REFERENCE

bins = st.integers(0, 1023)
labels = st.from_regex(r"[a-z0-9][a-z0-9 ,.'-]{0,20}", fullmatch=True).map(str.strip)


@st.composite
def detections(draw: st.DrawFn, width: int, height: int) -> Detection:
    y_min, y_max = sorted(draw(st.lists(bins, min_size=2, max_size=2, unique=True)))
    x_min, x_max = sorted(draw(st.lists(bins, min_size=2, max_size=2, unique=True)))
    codes = draw(st.none() | st.tuples(*[st.integers(0, 127)] * 16))
    top, bottom = (n / 1023 * height for n in (y_min, y_max))
    left, right = (n / 1023 * width for n in (x_min, x_max))
    return Detection(draw(labels), top, left, bottom, right, codes)


@given(st.lists(detections(640, 480), max_size=5))
def test_what_is_written_is_read_back(objects: list[Detection]) -> None:
    text = format_detections(objects, 640, 480)
    assert parse_detections(text, 640, 480) == objects
    assert format_detections(parse_detections(text, 640, 480), 640, 480) == text


@given(bins, st.integers(1, 5000))
def test_every_bin_survives_the_way_to_pixels_and_back(n: int, extent: int) -> None:
    box = Detection("", n / 1023 * extent, 0, extent, extent)
    assert format_detections([box], extent, extent).startswith(f"<loc{n:04d}>")


junk = st.lists(
    st.one_of(
        st.from_regex(r"<loc\d{4}>", fullmatch=True),
        st.from_regex(r"<seg\d{3}>", fullmatch=True),
        st.sampled_from([" ; ", " cat", "<", ">", ";", "<loc", "\n", "<loc12>", "é"]),
    ),
    max_size=40,
).map("".join)


@given(junk | st.text())
def test_no_answer_makes_the_parser_raise(text: str) -> None:
    for found in parse_detections(text, 100, 50):
        assert 0 <= found.y_min < found.y_max <= 50
        assert 0 <= found.x_min < found.x_max <= 100
        assert text[slice(*found.span)].startswith("<loc")


def test_corners_come_as_y_x_y_x_in_1023_bins() -> None:
    (found,) = parse_detections("<loc0000><loc1023><loc0341><loc1023> cat", 300, 90)[:1] or (None,)
    assert found is None  # no width
    (found,) = parse_detections("<loc0000><loc0341><loc1023><loc0682> cat", 300, 90)
    assert found is not None
    assert (found.y_min, found.x_min, found.y_max, found.x_max) == pytest.approx((0, 100, 90, 200))
    assert found.label == "cat"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("no cats here", []),
        ("<loc0001><loc0001><loc0009>", []),
        ("<loc0009><loc0001><loc0001><loc0009> flipped", []),
        ("<loc0001><loc0001><loc9999><loc0009> no such bin", []),
        ("<loc0001><loc0001><loc0009><loc0009>", [("", None)]),
        ("<loc0001><loc0001><loc0009><loc0009> cat ; <loc0001>", [("cat", None)]),
        ("<loc0001><loc0001><loc0009><loc0009><seg001><seg002> cat", [("cat", None)]),
        ("<loc0001><loc0001><loc0009><loc0009>" + "<seg128>" * 16 + " cat", [("cat", None)]),
        ("<loc0001><loc0001><loc0009><loc0009>" + "<seg007>" * 16 + " cat", [("cat", (7,) * 16)]),
        ("<loc0001><loc0001><loc0009><loc0009> a b;<loc0001><loc0001><loc0009><loc0009> c",
         [("a b", None), ("c", None)]),
    ],
)  # fmt: skip
def test_what_is_valid_is_kept(text: str, found: list[tuple[str, object]]) -> None:
    assert [(d.label, d.codes) for d in parse_detections(text, 100, 100)] == found


def test_a_detection_scores_the_mean_log_probability_of_its_own_tokens() -> None:
    pieces = ["<loc0001>", "<loc0001>", "<loc0009>", "<loc0009>", " cat", " ;", " "]
    pieces += ["<loc0002>", "<loc0002>", "<loc0008>", "<loc0008>", " dog"]
    offsets = np.cumsum([0, *map(len, pieces)]).tolist()
    logprobs = [-0.1] * 5 + [-9.0] * 2 + [-0.2] * 4 + [-0.7]
    nearby = [-0.01, -0.02, -0.03, -0.04, -5, -9, -9, 0.0, 0.0, 1e-6, 0.0, -5]
    found = parse_detections("".join(pieces), 10, 10)
    first, second = score_detections(found, offsets, logprobs, nearby)
    # The separator belongs to neither, but for the blank that the first label is read with.
    assert first.score == pytest.approx(exp((-0.1 * 5 - 9.0) / 6))
    assert second.score == pytest.approx(exp((-0.2 * 4 - 0.7) / 5))
    # The label alone, and what is near the four locations; rounding makes no more than all of it.
    assert first.label_probability == pytest.approx(exp(-0.1))
    assert first.location_mass == pytest.approx(exp(-0.1))
    assert second.label_probability == pytest.approx(exp(-0.7))
    assert second.location_mass == 1.0
    (bare,) = parse_detections("".join(pieces[:4]), 10, 10)
    (bare,) = score_detections([bare], offsets[:5], logprobs[:4])
    assert (bare.label_probability, bare.location_mass) == (None, None)


def test_masks_are_pasted_into_their_boxes_as_coco_rle() -> None:
    half = np.ones((64, 64), np.float32)
    half[:, 32:] = -1
    rle = paste_mask(half, (10.9, 20.2, 30.9, 60.7), width=100, height=50)
    assert rle["size"] == [50, 100]
    mask = coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()})
    wanted = np.zeros((50, 100), np.uint8)
    wanted[10:30, 20:40] = 1
    np.testing.assert_array_equal(mask, wanted)


def test_a_box_thinner_than_a_pixel_has_an_empty_mask() -> None:
    rle = paste_mask(np.ones((64, 64), np.float32), (1.2, 1.2, 1.9, 8.0), width=10, height=10)
    encoded = {"size": rle["size"], "counts": rle["counts"].encode()}
    assert coco_mask.area(encoded) == 0


def test_codes_become_masks_where_there_is_a_decoder() -> None:
    decoder = MaskDecoder.from_checkpoint(REFERENCE / "vae.weights.npz")
    codes = np.load(REFERENCE / "vae.expected.npz")["codes"][0]
    box = "<loc0000><loc0000><loc1023><loc1023>"
    text = box + "".join(f"<seg{c:03d}>" for c in codes) + f" cat ; {box} dog"
    cat, dog = parse_detections(text, 64, 64, decoder)
    assert cat.mask is not None
    assert dog.mask is None
    decoded = coco_mask.decode({"size": [64, 64], "counts": cat.mask["counts"].encode()})
    wanted = np.load(REFERENCE / "vae.expected.npz")["masks"][0, ..., 0] > 0
    np.testing.assert_array_equal(decoded, wanted)


def test_the_text_around_objects_is_ignored() -> None:
    text = "I see <loc0001><loc0001><loc0009><loc0009> cat"
    assert re.match("I see", text)
    assert [d.label for d in parse_detections(text, 10, 10)] == ["cat"]
