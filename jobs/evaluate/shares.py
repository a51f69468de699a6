"""Shares of rare events in groups: exact intervals, and what chance makes of their maximum."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv


class Chance(NamedTuple):
    """What the largest of some groups' shares would be if all groups were alike."""

    expected_maximum: float
    p_value: float
    """The probability of a maximum as large as the observed one."""


def clopper_pearson(flagged: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of `flagged` in `count`; 0 to 1 of nothing.

    Source: Clopper and Pearson 1934, by quantiles of the beta distribution.
    """
    if not count:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = betaincinv(flagged, count - flagged + 1, tail) if flagged else 0.0
    high = betaincinv(flagged + 1, count - flagged, 1 - tail) if flagged < count else 1.0
    return float(low), float(high)


def chance_of_maximum(
    flagged: Sequence[int], counts: Sequence[int], *, draws: int = 10_000, seed: int = 0
) -> Chance:
    """A permutation test of the largest share: what is flagged is dealt to the groups at random.

    Args:
        flagged: how many each group has; one group or more.
        counts: how many each group has in all, none of them 0.
        draws: how often they are dealt.
        seed: the same seed gives the same.
    """
    sizes = np.asarray(counts, np.int64)
    observed = float((np.asarray(flagged) / sizes).max())
    rng = np.random.default_rng(seed)
    # To deal who is flagged to groups is to draw from all without replacement.
    dealt = rng.multivariate_hypergeometric(sizes, sum(flagged), size=draws, method="marginals")
    maxima = (dealt / sizes).max(1)
    as_large = int((maxima >= observed - 1e-12).sum())
    return Chance(float(maxima.mean()), (1 + as_large) / (1 + draws))
