"""How well confidences agree with what is right: ECE, Brier score, reliability, AP."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paliflow.metrics.bootstrap import cluster_sums, resampled_sums

BINS = 10


class Bin(NamedTuple):
    """Answers of nearly the same confidence."""

    rows: int
    confidence: float
    """Their mean."""
    accuracy: float
    """The share that is right."""


class Estimate(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """How far confidences are from being frequencies."""

    ece: Estimate
    """The expected calibration error: over bins, the mean distance of confidence and accuracy."""
    brier: Estimate
    """The mean squared distance of confidence and outcome."""


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equally many answers, by ascending confidence.

    Args:
        confidence: [N], 0 to 1.
        right: [N], 1 where an answer is right.
        bins: at most; fewer where there are fewer answers.
    """
    confidences, outcomes = _checked(confidence, right)
    order = np.argsort(confidences, kind="stable")
    return [
        Bin(len(own), float(confidences[own].mean()), float(outcomes[own].mean()))
        for own in np.array_split(order, min(bins, len(order)))
    ]


def agreement(
    confidence: ArrayLike,
    right: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """ECE over bins of equally many answers and the Brier score, with bootstrap intervals.

    Whole clusters are drawn. Intervals are basic ones, 2 x estimate - quantiles, extended to the
    estimate: a resampled ECE has the noise of two samples, so that its percentiles lie too high.

    Source: Naeini et al. 2015 for ECE; Davison and Hinkley 1997, section 2.4, for the intervals.

    Args:
        confidence: [N], 0 to 1.
        right: [N], 1 where an answer is right.
        clusters: of each answer what it depends on, e.g. its image; each is one if not given.
        level: of the intervals.
        resamples: how often it is drawn.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: there are none, they are not of one length, or a confidence is not 0 to 1.
    """
    confidences, outcomes = _checked(confidence, right)
    bins = min(BINS, len(confidences))
    parts = np.zeros((len(confidences), bins + 2))
    for number, own in enumerate(np.array_split(np.argsort(confidences, kind="stable"), bins)):
        parts[own, number] = confidences[own] - outcomes[own]
    parts[:, -2] = (confidences - outcomes) ** 2
    parts[:, -1] = 1
    sums = cluster_sums(parts, clusters if clusters is not None else range(len(parts)))
    now = _figures(parts.sum(0)[None])[:, 0]
    drawn = np.concatenate([_figures(each) for each in resampled_sums(sums, resamples, seed)], 1)
    tail = (1 - level) / 2
    high, low = 2 * now - np.quantile(drawn, [tail, 1 - tail], axis=1)
    estimates = [
        Estimate(float(value), max(0.0, float(min(least, value))), float(max(most, value)))
        for value, least, most in zip(now, low, high, strict=True)
    ]
    return Agreement(*estimates)


def average_precision(score: ArrayLike, right: ArrayLike, wanted: int) -> float:
    """Average precision of detections: the area under precision, made falling, over recall.

    Args:
        score: [N], by which detections are ranked; those of equal score count together.
        right: [N], 1 where a detection was matched to an object, each object at most once.
        wanted: objects that there are.

    Raises:
        ValueError: they are not of one length, or nothing is wanted.
    """
    scores, outcomes = np.asarray(score, np.float64), np.asarray(right, np.float64)
    if scores.shape != outcomes.shape or wanted < 1:
        raise ValueError(
            f"{len(scores)} scores of {len(outcomes)} detections, {wanted} objects wanted: give a "
            "score each, and at least one object"
        )
    return float(precision_shares(scores, outcomes).sum() / wanted)


def precision_shares(score: ArrayLike, right: ArrayLike) -> NDArray[np.float64]:
    """What each detection adds to the average precision, times the objects wanted.

    That is nothing of a wrong one, and of a right one the precision of those that score at least as
    high, or that of any longer list if it is higher.

    Args:
        score: [N], by which detections are ranked.
        right: [N], 1 where a detection was matched.
    """
    scores, outcomes = np.asarray(score, np.float64), np.asarray(right, np.float64)
    shares = np.zeros(len(scores))
    if not len(scores):
        return shares
    order = np.argsort(-scores, kind="stable")
    starts = np.append(True, np.diff(scores[order]) != 0)
    ends = np.flatnonzero(np.append(starts[1:], True))
    precision = np.cumsum(outcomes[order])[ends] / (ends + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    shares[order] = outcomes[order] * precision[np.cumsum(starts) - 1]
    return shares


def _figures(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """ECE and Brier score [2, R] of sums [R, bins + 2]."""
    return np.stack([np.abs(sums[:, :-2]).sum(1), sums[:, -2]]) / sums[:, -1]


def _checked(
    confidence: ArrayLike, right: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    confidences, outcomes = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if confidences.shape != outcomes.shape or not confidences.size:
        raise ValueError(
            f"{confidences.size} confidences of {outcomes.size} answers: give one each, and at "
            "least one"
        )
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError("a confidence is not from 0 to 1")
    return confidences, outcomes
