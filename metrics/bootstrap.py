"""How sure a difference is: the paired bootstrap of two figures of the same examples."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 2**17
"""At once: what fits a core's cache is drawn fastest, and memory does not grow with resamples."""


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> NDArray[np.float64]:
    """Figures float64 [...] from sums [...]; 1 where the denominator is 0.

    Then nothing was sought and nothing found.
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    return np.divide(above, below, out=np.ones(below.shape), where=below != 0)


def paired_bootstrap_lower_bound(
    candidate: tuple[ArrayLike, ArrayLike],
    incumbent: tuple[ArrayLike, ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """By how much a candidate's figure is better, at least, with some confidence.

    A figure is a ratio of sums over the examples. As many examples as there are are drawn with
    replacement, the same for both, so that what is hard for both does not count as doubt; the
    bound is the `1 - confidence` quantile of the differences so found. One-sided, by percentiles.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        candidate: numerators [N] and denominators [N].
        incumbent: likewise, of the same examples in the same order.
        confidence: 0.5 to 1.
        resamples: how often it is drawn.
        seed: the same seed gives the same bound.

    Returns:
        In the figure's unit; below 0 if the candidate may be worse.

    Raises:
        ValueError: the four are not of one length, or empty.
    """
    parts = [np.asarray(part, np.float64) for part in (*candidate, *incumbent)]
    if len({part.shape for part in parts}) > 1 or parts[0].ndim != 1 or not parts[0].size:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"numerators and denominators of shapes {shapes}: give four of one length")
    examples, count = np.stack(parts, axis=1), parts[0].size
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWS // count)
    gains = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, count, (rows, count))
        drawn += count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums = times.astype(np.float64) @ examples
        gains.append(ratio(sums[:, 0], sums[:, 1]) - ratio(sums[:, 2], sums[:, 3]))
    return float(np.quantile(np.concatenate(gains), 1 - confidence))
