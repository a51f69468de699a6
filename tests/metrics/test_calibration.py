"""ECE, Brier score and average precision by hand, and how sure they are."""

import numpy as np
import pytest

from paliflow.metrics import METRICS, Answers
from paliflow.metrics.calibration import agreement, average_precision, reliability
from paliflow.metrics.objects import RankedBoxes


def test_reliability_has_bins_of_equally_many_answers_by_rising_confidence() -> None:
    confidence = [0.9, 0.1, 0.2, 0.8]
    low, high = reliability(confidence, [1, 0, 1, 1], bins=2)
    assert tuple(low) == pytest.approx((2, 0.15, 0.5))
    assert tuple(high) == pytest.approx((2, 0.85, 1.0))


def test_ece_and_brier_are_what_a_hand_computes() -> None:
    # Two answers a bin: of 0.4 all wrong, then all right, of 0.8 one right in each.
    confidence = [0.4] * 8 + [0.8] * 12
    found = agreement(confidence, [0] * 4 + [1] * 4 + [1, 0] * 6)
    assert found.ece.value == pytest.approx((2 * 0.4 + 2 * 0.6 + 6 * 0.3) / 10)
    assert found.brier.value == pytest.approx((4 * 0.16 + 4 * 0.36 + 6 * 0.04 + 6 * 0.64) / 20)


def test_intervals_of_dependent_answers_are_wider() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(100) < 0.7, 4)
    apart = agreement(np.full(400, 0.7), right, resamples=300)
    together = agreement(
        np.full(400, 0.7), right, np.repeat(np.arange(100), 4).tolist(), resamples=300
    )
    assert together.brier.value == apart.brier.value
    assert apart.brier.low < apart.brier.value < apart.brier.high
    width = together.brier.high - together.brier.low
    assert width > 1.5 * (apart.brier.high - apart.brier.low)


def test_average_precision_is_the_area_under_falling_precision() -> None:
    # Precision 1, 1/2, 2/3 at recalls 1/4, 1/4, 2/4.
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1], 4) == pytest.approx((1 + 2 / 3) / 4)
    assert (
        average_precision([0.5, 0.5], [0, 1], 1) == average_precision([0.5, 0.5], [1, 0], 1) == 0.5
    )
    assert average_precision([], [], 3) == 0


def test_the_metric_ranks_the_boxes_of_all_answers_by_their_scores() -> None:
    ranked = [
        RankedBoxes([0.9, 0.7], [True, True], 2),
        RankedBoxes((), (), 1),
        RankedBoxes([0.8], [False], 1),
    ]
    none = [""] * 3
    answers = Answers(none, [none] * 3, none, lambda _: [], lambda *_: [], ranked=ranked)
    score = METRICS["detection_ap"].score(answers)
    assert score.numerators.tolist() == pytest.approx([1 + 2 / 3, 0, 0])
    assert score.denominators.tolist() == [2, 1, 1]
    assert score.figure == average_precision([0.9, 0.8, 0.7], [1, 0, 1], 4)


@pytest.mark.parametrize(
    ("confidence", "right"), [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([float("nan")], [1])]
)
def test_what_is_no_confidence_is_refused(confidence: list[float], right: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        agreement(confidence, right)
