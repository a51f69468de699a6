"""Raw scores to frequencies: maps of three shapes, cross-fitted; thresholds by precision."""

from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy  # whose parts are imported when they are used: a process that only maps needs none
from numpy.typing import ArrayLike, NDArray

from paliflow.metrics.bootstrap import cluster_sums

Method = Literal["logistic", "isotonic", "binned"]
Floats = NDArray[np.float64]

ENOUGH = 100
"""Answers with which a map is fitted at all."""
_A_STEP = 20
"""Answers at least that an isotonic step is made of."""
_A_BIN = 100
"""Answers at least that a bin has."""
_BINS = 20
_STEPS = 200
_KNOTS = 33
_FOLDS = 5
_LEAST = 1e-6
_SLOPE = 1e-3
THRESHOLDS = 20
"""As many thresholds are looked at; the bounds of all hold at once."""


class Map(NamedTuple):
    """A map from raw scores to confidences: lines between knots, from a score of 0 to one of 1."""

    method: Method
    x: Floats
    """[K], log-odds of raw scores, rising."""
    y: Floats
    """[K], confidences, rising but of `binned`."""


def log_odds(raw: ArrayLike) -> Floats:
    """The log-odds of scores from 0 to 1, kept finite."""
    inside = np.clip(np.asarray(raw, np.float64), _LEAST, 1 - _LEAST)
    return np.log(inside) - np.log1p(-inside)


def mapped(x: ArrayLike, y: ArrayLike, raw: ArrayLike) -> Floats:
    """The confidences of raw scores by a map's knots."""
    return np.interp(log_odds(raw), np.asarray(x, np.float64), np.asarray(y, np.float64))


def fit(raw: ArrayLike, right: ArrayLike) -> Map:
    """Fits a map to answers, of the shape that fits best.

    A logistic curve (Platt 1999, with his targets); isotonic regression of steps of at least twenty
    answers (Zadrozny and Elkan 2002); or the shares of up to twenty bins (Zadrozny and Elkan 2001),
    as a model may be surest of what it gets wrong. Best is the lowest Brier score on answers that a
    map was not fitted to; from 200 and 400 answers on, the second and the third are tried, and bins
    that do not rise have to be better by a standard error. Each level is drawn towards a half as if
    one more answer, half right, were there, so that none is 0 or 1.

    Args:
        raw: [N], 0 to 1.
        right: [N], 1 where an answer is right.
    """
    x, outcomes = log_odds(raw), np.asarray(right, np.float64)
    best = _logistic
    if len(x) >= 2 * ENOUGH:
        losses = _held_out_losses(_logistic, x, outcomes)
        others = _held_out_losses(_isotonic, x, outcomes)
        if others.mean() < losses.mean():
            best, losses = _isotonic, others
        if len(x) >= 4 * _A_BIN:
            gain = losses - _held_out_losses(_binned, x, outcomes)
            if gain.mean() > gain.std() / len(x) ** 0.5:
                best = _binned
    return best(x, outcomes)


def _held_out_losses(shape: Callable[[Floats, Floats], Map], x: Floats, right: Floats) -> Floats:
    """The squared error of each answer, by a map that was fitted to answers of other folds."""
    fold = folds(range(len(x)))
    losses = np.zeros(len(x))
    for number in range(_FOLDS):
        held = fold == number
        _, knots, levels = shape(x[~held], right[~held])
        losses[held] = (np.interp(x[held], knots, levels) - right[held]) ** 2
    return losses


def _binned(x: Floats, right: Floats) -> Map:
    bins = np.array_split(np.argsort(x, kind="stable"), max(1, min(_BINS, len(x) // _A_BIN)))
    y = np.array([(right[own].sum() + 0.5) / (len(own) + 1) for own in bins])
    # A score that many answers share may fill several bins.
    centres, places = np.unique([x[own].mean() for own in bins], return_inverse=True)
    return _to_the_ends("binned", centres, np.bincount(places, y) / np.bincount(places))


def _isotonic(x: Floats, right: Floats) -> Map:
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, max(1, min(_STEPS, len(x) // _A_STEP)))
    rows = np.array([len(own) for own in bins], np.float64)
    accuracy = np.array([right[own].mean() for own in bins])
    levels = scipy.optimize.isotonic_regression(accuracy, weights=rows).x
    starts = np.flatnonzero(np.diff(levels, prepend=-1.0) > 0)
    totals = np.add.reduceat(rows, starts)
    centres = np.add.reduceat(np.array([x[own].sum() for own in bins]), starts) / totals
    y = np.maximum.accumulate((levels[starts] * totals + 0.5) / (totals + 1))
    rises = np.diff(y, prepend=-1.0) > 0  # not where two steps have become level
    centres, y = centres[rises], y[rises]
    # Scores that many answers share may end one step and begin the next.
    centres, places = np.unique(centres, return_index=True)
    return _to_the_ends("isotonic", centres, y[places])


def _to_the_ends(method: Method, x: Floats, y: Floats) -> Map:
    """Beyond the first and the last knot, scores that no answer had yet keep their order."""
    ends = log_odds([0.0, 1.0]) + np.array([-_LEAST, _LEAST])
    beyond = y[0] * (1 - _SLOPE), 1 - (1 - y[-1]) * (1 - _SLOPE)
    return Map(method, np.insert(ends, 1, x), np.insert(beyond, 1, y))


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
    return _to_the_ends("logistic", knots, 1 / (1 + np.exp(-(found[0] * knots + found[1]))))


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
