"""The paired bootstrap bounds a gain as theory says it should."""

import numpy as np
import pytest

from paliflow.metrics import paired_bootstrap_lower_bound, ratio

ONES = np.ones(2000)


def test_the_bound_of_means_is_the_normal_distributions() -> None:
    rng = np.random.default_rng(1)
    incumbent = rng.normal(3.0, 2.0, 2000)
    candidate = incumbent + rng.normal(0.1, 0.5, 2000)
    gains = candidate - incumbent
    for confidence, deviations in [(0.95, 1.6449), (0.99, 2.3263), (0.5, 0.0)]:
        low = paired_bootstrap_lower_bound(
            (candidate, ONES), (incumbent, ONES), confidence=confidence
        )
        expected = gains.mean() - deviations * gains.std() / len(gains) ** 0.5
        assert low == pytest.approx(expected, abs=0.001)  # unpaired it would be 0.1 lower


def test_the_bound_of_ratios_is_the_delta_methods() -> None:
    rng = np.random.default_rng(2)
    below = rng.integers(1, 6, 2000).astype(float)
    better, worse = rng.binomial(below.astype(int), 0.7), rng.binomial(below.astype(int), 0.6)
    gain = (better.sum() - worse.sum()) / below.sum()
    residuals = (better - worse - gain * below) / below.mean()
    low = paired_bootstrap_lower_bound((better, below), (worse, below), confidence=0.95)
    assert low == pytest.approx(gain - 1.6449 * residuals.std() / 2000**0.5, abs=0.001)


def test_it_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(400):
        candidate, incumbent = rng.random((2, 200)) < [[0.7], [0.6]]
        ones = np.ones(200)
        low = paired_bootstrap_lower_bound(
            (candidate, ones), (incumbent, ones), confidence=0.9, resamples=500, seed=seed
        )
        held += low <= 0.1
    assert 0.86 <= held / 400 <= 0.94


def test_the_same_seed_gives_the_same_bound_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    first, second = (rng.random(300), np.ones(300)), (rng.random(300), np.ones(300))
    low = paired_bootstrap_lower_bound(first, second, resamples=1000, seed=5)
    assert paired_bootstrap_lower_bound(first, second, resamples=1000, seed=5) == low
    assert paired_bootstrap_lower_bound(first, second, resamples=1000, seed=6) != low
    monkeypatch.setattr("paliflow.metrics.bootstrap._DRAWS", 1)
    assert paired_bootstrap_lower_bound(first, second, resamples=1000, seed=5) == pytest.approx(
        low, abs=1e-12
    )


def test_equal_answers_are_no_gain_and_no_loss() -> None:
    scores = (np.random.default_rng(5).random(50), np.ones(50))
    assert paired_bootstrap_lower_bound(scores, scores) == 0


def test_a_draw_without_anything_to_find_is_perfect_for_both() -> None:
    assert ratio([0.0, 1.0], [0.0, 2.0]).tolist() == [1.0, 0.5]
    assert paired_bootstrap_lower_bound(([0.0, 0.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])) == 0


@pytest.mark.parametrize("numerators", [[1.0], [], [[1.0, 2.0]]])
def test_what_is_not_paired_is_refused(numerators: list[float]) -> None:
    with pytest.raises(ValueError, match="give four of one length"):
        paired_bootstrap_lower_bound((numerators, [1.0, 1.0]), ([1.0, 1.0], [1.0, 1.0]))
