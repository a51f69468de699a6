"""How sure a figure, and a difference of two, is: bootstraps over examples or their clusters."""

from collections.abc import Hashable, Iterator, Sequence

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
    return float(np.quantile(_gains(candidate, incumbent, resamples, seed), 1 - confidence))


def paired_bootstrap_interval(
    candidate: tuple[ArrayLike, ArrayLike],
    incumbent: tuple[ArrayLike, ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Between which bounds the difference of two figures lies with some confidence.

    As `paired_bootstrap_lower_bound`, but two-sided.

    Args:
        candidate, incumbent: as there, and so are the others.

    Raises:
        ValueError: the four are not of one length, or empty.
    """
    tail = (1 - confidence) / 2
    gains = _gains(candidate, incumbent, resamples, seed)
    low, high = np.quantile(gains, [tail, 1 - tail])
    return float(low), float(high)


def _gains(
    candidate: tuple[ArrayLike, ArrayLike],
    incumbent: tuple[ArrayLike, ArrayLike],
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """The differences of two figures over resampled examples, float64 [resamples]."""
    parts = [np.asarray(part, np.float64) for part in (*candidate, *incumbent)]
    if len({part.shape for part in parts}) > 1 or parts[0].ndim != 1 or not parts[0].size:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"numerators and denominators of shapes {shapes}: give four of one length")
    gains = []
    for sums in resampled_sums(np.stack(parts, axis=1), resamples, seed):
        gains.append(ratio(sums[:, 0], sums[:, 1]) - ratio(sums[:, 2], sums[:, 3]))
    return np.concatenate(gains)


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Between which bounds a figure, a ratio of sums over examples, lies with some confidence.

    Whole clusters are drawn: questions about one image are not independent of each other, and to
    draw them one by one would make the interval too narrow. Two-sided, by percentiles.

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.

    Args:
        numerators, denominators: [N], one an example.
        clusters: of each example what it depends on, e.g. its image; each is one if not given.
        confidence: 0.5 to 1.
        resamples: how often it is drawn.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: they are not of one length, or empty.
    """
    parts = np.stack(
        [np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)], axis=1
    )
    if clusters is not None:
        parts = cluster_sums(parts, clusters)
    if not parts.size:
        raise ValueError("numerators and denominators are empty: give at least one example")
    figures = [ratio(sums[:, 0], sums[:, 1]) for sums in resampled_sums(parts, resamples, seed)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(figures), [tail, 1 - tail])
    return float(low), float(high)


def cluster_sums(parts: NDArray[np.float64], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """The sums of rows [N, K] over clusters, float64 [C, K], by their first appearance.

    Raises ValueError if there are not as many clusters as rows.
    """
    if len(clusters) != len(parts):
        raise ValueError(f"{len(clusters)} clusters of {len(parts)} rows: give one a row")
    numbers: dict[Hashable, int] = {}
    of_row = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    sums = np.zeros((len(numbers), parts.shape[1]))
    np.add.at(sums, of_row, parts)
    return sums


def resampled_sums(
    examples: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Sums [R, K] over as many rows of `examples` [N, K] as there are, drawn with replacement."""
    count, generator = len(examples), np.random.default_rng(seed)
    block = max(1, _DRAWS // count)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, count, (rows, count))
        drawn += count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.float64) @ examples
