"""Boxes, masks and detections are compared as RefCOCO and detection benchmarks do."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from paliflow.metrics import (
    box_iou,
    count_matches,
    detection_f1,
    detection_scores,
    mask_iou,
    mean_iou,
)
from paliflow.metrics.limits import MAX_OBJECTS

COORDINATE = st.integers(0, 20).map(float)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
SOLID = st.builds(
    lambda y, x, height, width: (y, x, y + height + 1, x + width + 1),
    COORDINATE,
    COORDINATE,
    COORDINATE,
    COORDINATE,
)
IMAGE = st.lists(st.tuples(st.sampled_from("ab"), SOLID), max_size=5)
IMAGES = st.lists(st.tuples(IMAGE, IMAGE), min_size=1, max_size=4)


def test_boxes_and_masks_overlap_as_in_pycocotools() -> None:
    rng = np.random.default_rng(5)
    low = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.5, 60, (40, 2))], axis=1)  # y, x, y, x
    as_coco = np.concatenate([low[:, ::-1], (boxes[:, 2:] - low)[:, ::-1]], axis=1)
    official = coco_mask.iou(as_coco[:20], as_coco[20:], [0] * 20)
    ours = box_iou(boxes[:20, None], boxes[None, 20:])
    np.testing.assert_allclose(ours, official, atol=1e-12)
    masks = rng.random((12, 30, 20)) < rng.uniform(0.1, 0.9, (12, 1, 1))
    packed = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    official = coco_mask.iou(packed[:6], packed[6:], [0] * 6)
    ours = np.array([[mask_iou(one, other) for other in masks[6:]] for one in masks[:6]])
    np.testing.assert_allclose(ours, official, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),
        ((0, 0, 0.2, 0.1), (0, 0, 0.1, 0.1), 0.5),
        ((0, 0, 2, 2), (2, 2, 0, 0), 0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0),
    ],
)
def test_box_iou_is_the_shared_area_over_the_covered_area(
    a: tuple[float, ...], b: tuple[float, ...], expected: float
) -> None:
    assert box_iou(a, b) == pytest.approx(expected)


@given(BOX, BOX)
def test_box_iou_is_symmetric_and_in_range(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    assert 0 <= box_iou(a, b) <= 1
    assert box_iou(a, b) == box_iou(b, a)


@given(SOLID, SOLID)
def test_box_iou_equals_the_iou_of_the_drawn_boxes(
    a: tuple[float, ...], b: tuple[float, ...]
) -> None:
    def drawn(box: tuple[float, ...]) -> np.ndarray:
        mask = np.zeros((42, 42), bool)
        y_min, x_min, y_max, x_max = map(int, box)
        mask[y_min:y_max, x_min:x_max] = True
        return mask

    assert box_iou(a, b) == pytest.approx(mask_iou(drawn(a), drawn(b)))


def test_boxes_broadcast() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 4, 4], [9, 9, 10, 10]])
    assert box_iou(boxes[:, None], boxes[:2]).tolist() == [[1, 0.25], [0.25, 1], [0, 0]]


def test_masks_compare_any_nonzero_value() -> None:
    a = np.array([[0, 255, 255], [0, 0, 0]], np.uint8)
    b = np.array([[0, 0, 1], [0, 0, 1]])
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a, a) == 1
    assert mask_iou(a, np.zeros_like(a)) == 0
    assert mask_iou(np.zeros((2, 2)), np.zeros((2, 2))) == 1


def test_mean_iou_counts_what_did_not_parse_as_zero() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]])
    assert mean_iou(boxes, boxes) == 1
    assert mean_iou(boxes, [(0, 0, 2, 2), None, (1, 0, 3, 2)]) == pytest.approx(4 / 9)


def test_mean_iou_takes_masks_of_different_sizes() -> None:
    masks = [np.ones((2, 3), bool), np.eye(4, dtype=bool)]
    assert mean_iou(masks, masks) == 1
    assert mean_iou(masks, [np.zeros((2, 3)), np.ones((4, 4))]) == pytest.approx(1 / 8)


def test_detections_count_once_and_only_under_their_label() -> None:
    dog, cat, far = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)
    references = [[("dog", dog), ("cat", cat)], [("dog", dog)]]
    predictions = [[("dog", dog), ("dog", dog), ("dog", cat)], [("dog", far)]]
    scores = detection_scores(references, predictions)
    assert scores == pytest.approx((1 / 4, 1 / 3, 2 / 7))
    assert detection_f1(references, predictions) == scores.f1


def test_detections_are_matched_so_that_most_find_a_partner() -> None:
    # The first reference would take the only prediction that fits the second.
    references = [[("dog", (0, 0, 10, 10)), ("dog", (0, 0, 10, 16))]]
    predictions = [[("dog", (0, 0, 10, 12)), ("dog", (0, 0, 10, 6))]]
    assert detection_f1(references, predictions) == 1


def test_the_threshold_is_inclusive() -> None:
    half = [[("dog", (0, 0, 10, 10))]], [[("dog", (0, 0, 10, 5))]]
    assert detection_f1(*half, iou=0.5) == 1
    assert detection_f1(*half, iou=0.51) == 0


@pytest.mark.parametrize(
    ("references", "predictions", "expected"),
    [
        ([[]], [[]], (1, 1, 1)),
        ([[("dog", (0, 0, 1, 1))]], [[]], (0, 0, 0)),
        ([[]], [[("dog", (0, 0, 1, 1))]], (0, 0, 0)),
    ],
)
def test_nothing_to_find_is_right_only_if_nothing_was_found(
    references: list[list[tuple[str, tuple[float, float, float, float]]]],
    predictions: list[list[tuple[str, tuple[float, float, float, float]]]],
    expected: tuple[float, float, float],
) -> None:
    assert detection_scores(references, predictions) == expected


@given(IMAGES)
def test_exchanging_the_sides_exchanges_precision_and_recall(
    images: list[tuple[list[tuple[str, tuple[float, float, float, float]]], ...]],
) -> None:
    one, other = ([image[side] for image in images] for side in (0, 1))
    scores, exchanged = detection_scores(one, other), detection_scores(other, one)
    assert scores == (exchanged.recall, exchanged.precision, exchanged.f1)
    assert all(0 <= score <= 1 for score in scores)
    assert detection_scores(one, one) == (1, 1, 1)


def test_inputs_that_cannot_be_scored_are_refused() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"others has shape \(3,\)"):
        box_iou(box, (0, 0, 1))
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 2\)"):
        mask_iou(np.ones((2, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="1 references but 2 predictions"):
        mean_iou([box], [box, box])
    with pytest.raises(ValueError, match="references is empty"):
        mean_iou([], [])
    with pytest.raises(ValueError, match="references is empty"):
        detection_f1([], [])
    with pytest.raises(ValueError, match=r"iou is 0: give"):
        detection_f1([[("dog", box)]], [[("dog", box)]], iou=0)
    with pytest.raises(ValueError, match=r"iou is 50: give"):
        detection_f1([[("dog", box)]], [[("dog", box)]], iou=50)


@given(IMAGE, IMAGE)
def test_as_many_are_matched_as_in_the_best_of_all_assignments(
    wanted: list[tuple[str, tuple[float, float, float, float]]],
    given_: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    fewer, more = sorted((wanted, given_), key=len)
    best = max(
        sum(a[0] == b[0] and box_iou(a[1], b[1]) >= 0.3 for a, b in zip(fewer, order, strict=False))
        for order in itertools.permutations(more)
    )
    assert count_matches(wanted, given_, iou=0.3) == best


def test_a_thousand_overlapping_boxes_are_matched_without_recursion() -> None:
    # Each fits its neighbours, so that what comes last can push all others along.
    chain = [("dog", (0.0, 0.0, 10.0, 1000.0 + 3 * n)) for n in range(1000)]
    start = time.process_time()
    assert count_matches(chain, chain[::-1]) == 1000
    assert count_matches(chain[::-1], chain[:1] * 1000) == 334
    assert time.process_time() - start < 10  # seconds


def test_objects_beyond_the_limit_are_counted_and_not_matched() -> None:
    many = [("dog", (0.0, 0.0, 1.0, 1.0))] * (2 * MAX_OBJECTS)
    assert detection_scores([many], [many]) == (0.5, 0.5, 0.5)
