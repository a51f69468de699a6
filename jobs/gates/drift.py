"""Drift: whether two runs' answers may come from one distribution, by a permutation test."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 2000
_LABELS = 30
"""As many of the most common labels are told apart; the others count as one."""
_BINS = 10
_ROUNDING = 1e-9
"""Of sums in another order; no distance."""
_BLOCK = 200
"""Permutations that are drawn at once."""
Floats = NDArray[np.float64]
Values = Mapping[str, Sequence[tuple[Hashable, Any]]]
"""By what is compared, pairs of a cluster and a value: text, or a number."""


class Distance(NamedTuple):
    """How far two runs are from each other in one respect."""

    name: str
    value: float
    """The Jensen-Shannon divergence in bits, 0 to 1."""
    limit: float
    """What it exceeds by chance as rarely as is allowed, all respects together."""


def distances(
    before: Values, now: Values, *, false_alarm: float, seed: int = 0, draws: int = PERMUTATIONS
) -> list[Distance]:
    """Compares two runs in each respect in which both have values.

    Where both come from one distribution, any of the distances exceeds its limit with a probability
    of `false_alarm`: limits come from permutations of the clusters (images, or videos) among the
    two runs, the same for all respects (Westfall and Young 1993, min-p), so that respects which
    move together are not counted twice.

    Args:
        before, now: the runs' values.
        false_alarm: 0 to 0.5.
        seed: the same seed gives the same limits.
        draws: permutations.
    """
    names = [name for name in before if before[name] and now.get(name)]
    if not names:
        return []
    clusters: dict[tuple[int, Hashable], int] = {}
    for run, values in enumerate((before, now)):
        for name in names:
            for cluster, _ in values[name]:
                clusters.setdefault((run, cluster), len(clusters))
    tables = [_counts(before[name], now[name], clusters) for name in names]
    edges = np.cumsum([0, *(table.shape[1] for table in tables)])
    counts = np.concatenate(tables, axis=1)
    of_now = np.array([run == 1 for run, _ in clusters])
    total, found = counts.sum(0), counts[of_now].sum(0)
    observed = _divergences(found[None], total, edges)[0]
    drawn = np.concatenate(
        [
            _divergences(chosen @ counts, total, edges)
            for chosen in _permuted(len(clusters), int(of_now.sum()), draws, seed)
        ]
    )
    return [
        Distance(name, float(value), float(limit))
        for name, value, limit in zip(names, observed, _limits(drawn, false_alarm), strict=True)
    ]


def _limits(drawn: Floats, false_alarm: float) -> Floats:
    """Of divergences [R, K] under permutation, the limits [K] that rows exceed anywhere with a
    share of at most `false_alarm`."""
    rows = len(drawn)
    order = np.sort(drawn, axis=0)
    # How many of the permutations reach at least each value: the larger, the more ordinary.
    ranks = rows - np.stack(
        [np.searchsorted(*column, side="left") for column in zip(order.T, drawn.T, strict=True)], 1
    )
    rarest = np.sort(ranks.min(axis=1))
    # The rank up to which at most that share of the permutations is rare.
    critical = int(rarest[min(rows - 1, int(false_alarm * (rows + 1)))])
    limits: Floats = order[min(max(rows - critical, 0), rows - 1)] + _ROUNDING
    return limits


def _permuted(clusters: int, chosen: int, draws: int, seed: int) -> Iterable[Floats]:
    """Blocks [r, clusters] of rows with ones where a cluster falls to the second run."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _BLOCK):
        keys = generator.random((min(_BLOCK, draws - start), clusters), np.float32)
        least = np.partition(keys, chosen - 1, axis=1)[:, chosen - 1 : chosen]
        yield (keys <= least).astype(np.float64)


def _divergences(now: Floats, total: Floats, edges: NDArray[np.intp]) -> Floats:
    """Jensen-Shannon divergences [R, K] of the second run's counts [R, bins] and the rest."""
    found = []
    for first, last in pairwise(edges.tolist()):
        ours = now[:, first:last]
        theirs = total[first:last] - ours
        p, q = (side / np.maximum(side.sum(1, keepdims=True), 1e-12) for side in (ours, theirs))
        middle = (p + q) / 2
        found.append(_entropy(middle) - (_entropy(p) + _entropy(q)) / 2)
    return np.stack(found, axis=1)


def _entropy(shares: Floats) -> Floats:
    """In bits, over the last axis."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Floats = -(shares * logs).sum(-1)
    return entropy


def _counts(
    before: Sequence[tuple[Hashable, Any]],
    now: Sequence[tuple[Hashable, Any]],
    clusters: Mapping[tuple[int, Hashable], int],
) -> Floats:
    """How often each cluster has a value in each bin, float64 [clusters, bins]."""
    values = [value for _, value in (*before, *now)]
    if isinstance(values[0], str):
        names = [name for name, _ in Counter(values).most_common(_LABELS)]
        place = {name: number for number, name in enumerate(names)}
        bins = np.array([place.get(value, len(names)) for value in values])
    else:
        numbers = np.array(values, np.float64)
        inner = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
        bins = np.searchsorted(inner, numbers, side="left")
    counts = np.zeros((len(clusters), int(bins.max()) + 1))
    places = [clusters[0, cluster] for cluster, _ in before]
    places += [clusters[1, cluster] for cluster, _ in now]
    np.add.at(counts, (np.array(places), bins), 1)
    return counts
