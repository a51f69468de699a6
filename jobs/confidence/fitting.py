"""Raw scores to frequencies: isotonic or logistic maps, cross-fitted; thresholds by precision."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy  # whose parts are imported when they are used: a process that only maps needs none
from numpy.typing import ArrayLike, NDArray

from paliflow.metrics.bootstrap import cluster_sums

Method = Literal["isotonic", "logistic"]
Floats = NDArray[np.float64]

ENOUGH = 100
"""Answers with which a map is fitted at all."""
_MANY = 1000
"""Answers with which a shape is found; of fewer, a logistic curve has less to go wrong."""
_A_BIN = 20
"""Answers at least that an isotonic step is made of."""
_STEPS = 200
_KNOTS = 33
_FOLDS = 5
_LEAST = 1e-6
THRESHOLDS = 20
"""As many thresholds are looked at; the bounds of all hold at once."""


class Map(NamedTuple):
    """A rising map from raw scores to confidences: lines between knots, level beyond them."""

    method: Method
    x: Floats
    """[K], log-odds of raw scores, rising."""
    y: Floats
    """[K], confidences."""


def log_odds(raw: ArrayLike) -> Floats:
    """The log-odds of scores from 0 to 1, kept finite."""
    inside = np.clip(np.asarray(raw, np.float64), _LEAST, 1 - _LEAST)
    return np.log(inside) - np.log1p(-inside)


def mapped(x: ArrayLike, y: ArrayLike, raw: ArrayLike) -> Floats:
    """The confidences of raw scores by a map's knots."""
    return np.interp(log_odds(raw), np.asarray(x, np.float64), np.asarray(y, np.float64))


def fit(raw: ArrayLike, right: ArrayLike) -> Map:
    """Fits a map to answers: isotonic from a thousand on, else logistic.

    Isotonic regression of steps of at least twenty answers; each level is drawn towards a half as
    if one more answer, half right, were there, so that none is 0 or 1. Sources: Zadrozny and Elkan
    2002; Platt 1999 for the logistic curve and its targets.

    Args:
        raw: [N], 0 to 1.
        right: [N], 1 where an answer is right.
    """
    x, outcomes = log_odds(raw), np.asarray(right, np.float64)
    return _isotonic(x, outcomes) if len(x) >= _MANY else _logistic(x, outcomes)


def _isotonic(x: Floats, right: Floats) -> Map:
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, max(1, min(_STEPS, len(x) // _A_BIN)))
    rows = np.array([len(own) for own in bins], np.float64)
    accuracy = np.array([right[own].mean() for own in bins])
    levels = scipy.optimize.isotonic_regression(accuracy, weights=rows).x
    starts = np.flatnonzero(np.diff(levels, prepend=-1.0) > 0)
    totals = np.add.reduceat(rows, starts)
    centres = np.add.reduceat(np.array([x[own].sum() for own in bins]), starts) / totals
    y = np.maximum.accumulate((levels[starts] * totals + 0.5) / (totals + 1))
    # Scores that many answers share may end one step and begin the next.
    centres, places = np.unique(centres, return_index=True)
    return Map("isotonic", centres, y[places])


def _logistic(x: Floats, right: Floats) -> Map:
    hits = right.sum()
    misses = len(right) - hits
    targets = np.where(right > 0.5, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, shift = parameters
        odds = slope * x + shift
        off = 1 / (1 + np.exp(-odds)) - targets
        value = np.logaddexp(0, odds) - targets * odds
        return float(value.mean()), np.array([(off * x).mean(), off.mean()])

    found = scipy.optimize.minimize(
        loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, 50), (-50, 50)]
    ).x
    knots = np.linspace(x.min() - _LEAST, x.max() + _LEAST, _KNOTS)
    return Map("logistic", knots, 1 / (1 + np.exp(-(found[0] * knots + found[1]))))


def folds(clusters: Sequence[Hashable], seed: int = 0) -> NDArray[np.intp]:
    """Of each answer its fold, 0 to 4, at random; answers of one cluster share theirs."""
    distinct = list(dict.fromkeys(clusters))
    drawn = np.random.default_rng(seed).permutation(len(distinct)) % _FOLDS
    of = dict(zip(distinct, drawn.tolist(), strict=True))
    return np.array([of[cluster] for cluster in clusters], np.intp)


class Point(NamedTuple):
    """Of all answers at least so confident, how many are right."""

    confidence: float
    rows: int
    right: int


def points(confidence: ArrayLike, right: ArrayLike) -> list[Point]:
    """Up to `THRESHOLDS` thresholds, by falling confidence; the last takes all answers in.

    Answers of the same confidence lie on the same side of each.
    """
    confidences, outcomes = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    order = np.argsort(-confidences, kind="stable")
    ranked, found = confidences[order], np.cumsum(outcomes[order])
    counts = np.unique(np.linspace(0, len(order), THRESHOLDS + 1).round().astype(int)[1:])
    counts = np.unique(np.searchsorted(-ranked, -ranked[counts - 1], side="right"))
    return [
        Point(float(ranked[count - 1]), int(count), round(float(found[count - 1])))
        for count in counts.tolist()
    ]


def design_effect(confidence: ArrayLike, right: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """How many dependent answers tell as much as one independent answer; at least 1.

    The variance of what is right beyond confidence, summed over clusters, beside that of answers
    that are independent of each other. Source: Kish 1965, Survey Sampling.
    """
    off = np.asarray(right, np.float64) - np.asarray(confidence, np.float64)
    together = cluster_sums(off[:, None], clusters)
    apart = float((off**2).sum())
    return max(1.0, float((together**2).sum()) / apart) if apart else 1.0


def precision_bound(right: float, rows: float, level: float) -> float:
    """The one-sided lower confidence bound of a share (Clopper and Pearson 1934).

    Args:
        right, rows: of which; need not be whole.
        level: 0.5 to 1.
    """
    return float(scipy.stats.beta.ppf(1 - level, right, rows - right + 1)) if right > 0 else 0.0


def threshold(
    found: Sequence[Point], precision: float, level: float = 0.95, effect: float = 1.0
) -> Point | None:
    """The point that takes in the most answers with a precision that is surely reached.

    The bounds of all `THRESHOLDS` points hold at once with the level, so that choosing among them
    breaks no promise.

    Args:
        found: from `points`.
        precision: the least.
        level: of the lower bound of precision.
        effect: from `design_effect`.
    """
    each = 1 - (1 - level) / THRESHOLDS
    enough = [
        point
        for point in found
        if precision_bound(point.right / effect, point.rows / effect, each) >= precision
    ]
    return max(enough, key=lambda point: point.rows, default=None)
