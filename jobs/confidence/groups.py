"""Labelled answers to groups of a calibration: by prompt, or by task where prompts differ."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from paliflow.configs import AnnotateSpec
from paliflow.configs.summary import Interval, Reliability, ReliabilityBin, Threshold
from paliflow.jobs.confidence.calibration import Group, Knots, RankedBy, form_of_prompt
from paliflow.jobs.confidence.fitting import (
    ENOUGH,
    Map,
    design_effect,
    fit,
    folds,
    mapped,
    points,
    threshold,
)
from paliflow.jobs.confidence.outcomes import Outcome
from paliflow.metrics.calibration import agreement, average_precision, reliability

USUAL = (0.8, 0.9, 0.95, 0.98, 0.99)
"""Precisions whose thresholds are shown."""
VARIED = 20
"""Different prompts of a task from which on each is one of many."""
Floats = NDArray[np.float64]
Maps = tuple[Map, dict[str, Map]]
"""Of answers of a group, and of labels that have their own."""


def calibrated(
    outcomes: Iterable[Outcome],
    objects: Mapping[str, int],
    spec: AnnotateSpec,
    left_out: Counter[str],
    *,
    level: float,
    seed: int,
) -> tuple[Group, ...]:
    """Fits a group to each prompt with enough answers, and one to each task of many prompts.

    Args:
        outcomes: what was answered, and whether it was right.
        objects: how many there were to find, by prompt.
        spec: what was asked; its prompts say what answers may be.
        left_out: counts answers of which there are too few, by prompt.
        level: of bounds and intervals.
        seed: of folds and bootstraps.
    """
    forms = {
        text: form_of_prompt(prompt) for text, prompt in zip(spec.texts, spec.prompts, strict=True)
    }
    kinds: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        kind = outcome.task, forms.get(outcome.prompt, "free")
        kinds.setdefault(kind, {}).setdefault(outcome.prompt, []).append(outcome)
    groups = []
    for (task, form), by_prompt in kinds.items():
        chosen: list[tuple[str | None, list[Outcome]]] = [
            (prompt, own) for prompt, own in by_prompt.items() if len(own) >= ENOUGH
        ]
        together = [outcome for own in by_prompt.values() for outcome in own]
        if len(by_prompt) >= VARIED and len(together) >= ENOUGH:
            chosen.append((None, together))
        else:
            for prompt, own in by_prompt.items():
                if len(own) < ENOUGH:
                    left_out[f"answers to {prompt!r}, which are fewer than {ENOUGH}"] += len(own)
        for one, own in chosen:
            wanted = sum(objects.get(name, 0) for name in ([one] if one else by_prompt))
            groups.append(_group(task, form, one, own, wanted, level, seed))
    return tuple(groups)


def _group(
    task: str,
    form: str,
    prompt: str | None,
    own: Sequence[Outcome],
    wanted: int,
    level: float,
    seed: int,
) -> Group:
    raw = np.array([outcome.raw for outcome in own])
    right = np.array([outcome.right for outcome in own], np.float64)
    labels = [outcome.label for outcome in own]
    clusters = [outcome.cluster for outcome in own]
    by: RankedBy = "location_mass"
    if wanted:
        score = np.array([outcome.score or 0.0 for outcome in own])
        by, raw, confidence = better(raw, score, right, labels, clusters, seed)
    else:
        confidence = cross_fitted(raw, right, labels, clusters, seed)
    whole, by_label = maps_of(raw, right, labels)
    found, effect = points(confidence, right), design_effect(confidence, right, clusters)
    thresholds = []
    for precision in USUAL:
        point = threshold(found, precision, level, effect)
        thresholds.append(
            Threshold(precision=precision, confidence=None)
            if point is None
            else Threshold(precision=precision, **point._asdict())
        )
    average = None
    if wanted:
        average = (
            average_precision(score, right, wanted),
            average_precision(confidence, right, wanted),
        )
    return Group(
        task=task,
        form=form,
        prompt=prompt,
        rows=len(own),
        right=int(right.sum()),
        before=_reliability(raw, right, clusters, level, seed),
        after=_reliability(confidence, right, clusters, level, seed),
        thresholds=tuple(thresholds),
        average_precision=average,
        by=by,
        whole=_knots(whole),
        labels={label: _knots(own_map) for label, own_map in by_label.items()},
        points=tuple((point.confidence, point.rows, point.right) for point in found),
        design_effect=effect,
    )


def better(
    mass: Floats,
    score: Floats,
    right: Floats,
    labels: Sequence[str],
    clusters: Sequence[str],
    seed: int,
) -> tuple[RankedBy, Floats, Floats]:
    """Which raw score of boxes to go by; it, and its cross-fitted confidences.

    It is `score`, if the other's Brier score is not lower by a standard error.

    Where boxes are drawn well, the neighbours of a location are as good as itself; where a model
    guesses, a location that is spread over many bins is a sign of it.
    """
    by_mass, by_score = (cross_fitted(raw, right, labels, clusters, seed) for raw in (mass, score))
    gain = (by_score - right) ** 2 - (by_mass - right) ** 2
    if gain.mean() > gain.std() / len(gain) ** 0.5:
        return "location_mass", mass, by_mass
    return "score", score, by_score


def cross_fitted(
    raw: Floats, right: Floats, labels: Sequence[str], clusters: Sequence[str], seed: int
) -> Floats:
    """The confidences of answers, each from a fit to the clusters of other folds."""
    confidence = np.zeros(len(raw))
    fold = folds(clusters, seed)
    for number in np.unique(fold):
        held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(rest):
            rest = held  # a single image
        maps = maps_of(raw[rest], right[rest], [labels[n] for n in rest.tolist()])
        confidence[held] = applied(maps, raw[held], [labels[n] for n in held.tolist()])
    return confidence


def maps_of(raw: Floats, right: Floats, labels: Sequence[str]) -> Maps:
    """The maps of labels with enough answers of their own; and one of the others, or if these are
    too few, of all."""
    of_label: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        of_label.setdefault(label, []).append(number)
    enough = {label: own for label, own in of_label.items() if len(own) >= ENOUGH}
    if len(of_label) == 1:
        enough = {}
    rest = [place for label, own in of_label.items() if label not in enough for place in own]
    whole = fit(raw[rest], right[rest]) if len(rest) >= ENOUGH else fit(raw, right)
    return whole, {label: fit(raw[own], right[own]) for label, own in enough.items()}


def applied(maps: Maps, raw: Floats, labels: Sequence[str]) -> Floats:
    """The confidences of answers, each by the map of its label if that has one."""
    whole, by_label = maps
    confidence = mapped(whole.x, whole.y, raw)
    for label, own in by_label.items():
        at = np.array([each == label for each in labels], bool)
        confidence[at] = mapped(own.x, own.y, raw[at])
    return confidence


def _knots(own: Map) -> Knots:
    return Knots(
        method=own.method,
        x=tuple(own.x.round(6).tolist()),
        y=tuple(own.y.round(6).tolist()),
    )


def _reliability(
    confidence: Floats, right: Floats, clusters: Sequence[str], level: float, seed: int
) -> Reliability:
    of_all = agreement(confidence, right, clusters, level=level, seed=seed)
    return Reliability(
        ece=Interval(**of_all.ece._asdict()),
        brier=Interval(**of_all.brier._asdict()),
        bins=tuple(ReliabilityBin(**each._asdict()) for each in reliability(confidence, right)),
    )
