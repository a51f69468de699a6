"""Drift: runs of one distribution pass at the set rate, what has changed is seen."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from paliflow.jobs.gates.drift import Distance, distances

Run = dict[str, list[tuple[Hashable, Any]]]


def drawn(rng: Generator, images: int, *, each: int = 1, dark: bool = False) -> Run:
    """A run's values; with `each`, as many equal answers to an image, as of a video's frames."""
    shares = [0.1, 0.1, 0.8] if dark else [0.5, 0.3, 0.2]
    labels = rng.choice(["top", "middle", "none"], images, p=shares)
    sure = rng.beta(8, 1, images)
    lengths = (labels == "none") + rng.poisson(4, images)
    return {
        "labels": [(n, str(label)) for n, label in enumerate(labels) for _ in range(each)],
        "confidences": [(n, float(value)) for n, value in enumerate(sure) for _ in range(each)],
        "lengths": [(n, float(value)) for n, value in enumerate(lengths) for _ in range(each)],
    }


def alarms(found: list[Distance]) -> list[str]:
    return [each.name for each in found if each.value > each.limit]


def test_a_run_like_the_other_passes_and_limits_are_the_seeds() -> None:
    rng = np.random.default_rng(0)
    before, now = drawn(rng, 300), drawn(rng, 200)
    found = distances(before, now, false_alarm=0.01, draws=400)
    assert [each.name for each in found] == ["labels", "confidences", "lengths"]
    assert not alarms(found)
    assert distances(before, now, false_alarm=0.01, draws=400) == found


def test_what_has_changed_is_named() -> None:
    rng = np.random.default_rng(0)
    found = distances(drawn(rng, 300), drawn(rng, 200, dark=True), false_alarm=0.01, draws=400)
    assert "labels" in alarms(found)
    assert "confidences" not in alarms(found)


def test_respects_that_one_run_lacks_are_passed_over() -> None:
    rng = np.random.default_rng(0)
    before, now = drawn(rng, 100), drawn(rng, 100)
    del before["lengths"]
    now["confidences"] = []
    assert [each.name for each in distances(before, now, false_alarm=0.01, draws=50)] == ["labels"]
    assert distances({}, now, false_alarm=0.01) == []


def test_identical_runs_have_no_distance() -> None:
    before = drawn(np.random.default_rng(0), 100)
    for each in distances(before, before, false_alarm=0.01, draws=100):
        assert each.value == pytest.approx(0)
        assert each.limit > 0
    constant: Run = {"labels": [(n, "a") for n in range(50)]}
    (alone,) = distances(constant, constant, false_alarm=0.01, draws=100)
    assert not alone.value > alone.limit


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 4])
def test_clean_runs_are_held_back_at_the_set_rate(each: int) -> None:
    runs, rate, held = 1000, 0.05, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        before, now = drawn(rng, 120, each=each), drawn(rng, 100, each=each)
        held += bool(alarms(distances(before, now, false_alarm=rate, seed=seed, draws=300)))
    # Three standard deviations of a binomial share.
    assert abs(held / runs - rate) < 3 * (rate * (1 - rate) / runs) ** 0.5
