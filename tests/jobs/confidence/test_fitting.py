"""Fits become frequencies, thresholds keep what they promise, dependence is counted."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from paliflow.jobs.confidence.fitting import (
    Point,
    design_effect,
    fit,
    folds,
    mapped,
    points,
    precision_bound,
    threshold,
)

Floats = NDArray[np.float64]


def drawn(count: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Raw scores that promise more than they keep."""
    rng = np.random.default_rng(seed)
    raw = rng.beta(4, 1, count)
    return raw, (rng.random(count) < raw**3).astype(float)


@pytest.mark.parametrize("count", [150, 400, 6000])
def test_a_fit_comes_near_the_frequencies(count: int) -> None:
    raw, right = drawn(count)
    found = fit(raw, right)
    assert (np.diff(found.x) > 0).all()
    assert ((found.y > 0) & (found.y < 1)).all()
    if found.method != "binned":
        assert (np.diff(found.y) >= 0).all()
    asked = np.linspace(0.5, 0.97, 20)
    assert np.abs(mapped(found.x, found.y, asked) - asked**3).max() < 0.15


def a_step(raw: Floats) -> Floats:
    return np.where(raw > 0.5, 0.9, 0.2)


def surest_when_wrong(raw: Floats) -> Floats:
    return np.where(np.abs(raw - 0.6) < 0.2, 0.95, 0.3)


@pytest.mark.parametrize(
    ("frequency", "methods"),
    [(a_step, ("isotonic", "binned")), (surest_when_wrong, ("binned",))],
)
def test_a_fit_has_the_shape_of_the_frequencies(
    frequency: Callable[[Floats], Floats], methods: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(0)
    raw = rng.random(3000)
    found = fit(raw, rng.random(3000) < frequency(raw))
    assert found.method in methods
    asked = np.array([0.1, 0.6, 0.95])
    assert np.abs(mapped(found.x, found.y, asked) - frequency(asked)).max() < 0.15


@pytest.mark.parametrize("count", [150, 1500])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_fit_to_outcomes_all_alike_is_neither_0_nor_1(count: int, outcome: float) -> None:
    found = fit(np.full(count, 0.7), np.full(count, outcome))
    (confidence,) = mapped(found.x, found.y, [0.7])
    assert 0 < confidence < 1
    assert abs(confidence - outcome) < 0.02


def test_folds_keep_answers_of_an_image_together() -> None:
    images = [number // 3 for number in range(300)]
    fold = folds(images, seed=1)
    assert (fold.reshape(-1, 3) == fold[::3, None]).all()
    assert np.bincount(fold).tolist() == [60] * 5


def test_points_count_what_is_at_least_so_confident() -> None:
    confidence = np.round(np.random.default_rng(0).random(500), 1)
    right = np.arange(500) % 3 == 0
    found = points(confidence, right)
    for point in found:
        among = confidence >= point.confidence
        assert (point.rows, point.right) == (among.sum(), right[among].sum())
    assert found[-1].rows == 500


def test_the_bound_of_a_precision_is_clopper_and_pearsons() -> None:
    assert precision_bound(59, 59, 0.95) == pytest.approx(0.05 ** (1 / 59))
    assert precision_bound(0, 10, 0.95) == 0


def test_a_threshold_takes_in_the_most_answers_with_a_precision_that_is_sure() -> None:
    found = [Point(0.99, 100, 100), Point(0.9, 1000, 985), Point(0.5, 2000, 1900)]
    assert threshold(found, 0.95) == found[1]
    assert threshold(found, 0.95, effect=20.0) is None  # a twentieth as many images
    assert threshold(found, 0.5) == found[2]


def test_dependent_answers_tell_less() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(2000) < 0.9
    images = np.arange(2000)
    confidence = np.full(2000, 0.9)
    assert design_effect(confidence, right, images.tolist()) == pytest.approx(1)
    repeated = np.repeat(right[:500], 4)
    assert design_effect(confidence, repeated, (images // 4).tolist()) == pytest.approx(4)
