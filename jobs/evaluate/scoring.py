"""Answers to scores: which metrics a set is scored by, and what each example adds to a figure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paliflow import model
from paliflow.configs.base import SpecError
from paliflow.configs.examples import MetricName
from paliflow.configs.prompts import task_of
from paliflow.jobs.evaluate.regions import region_overlap
from paliflow.jobs.examples.objects import objects_of
from paliflow.metrics import METRICS, Answers, Object, Score, metrics_of_task
from paliflow.metrics.objects import RankedBoxes


def metrics_of(
    name: str, chosen: Sequence[MetricName] | None, prefixes: Iterable[str]
) -> tuple[str, ...]:
    """Returns the metrics of a set: those chosen, or else those of the task of all prefixes.

    Args:
        name: of the set, for the error.
        chosen: `EvaluationSet.metrics`.
        prefixes: what is asked; not looked at if metrics were chosen.

    Raises:
        SpecError: nothing was chosen, and there are several tasks or one without a metric.
    """
    if chosen:
        return tuple(dict.fromkeys(chosen))
    tasks = sorted({task_of(prefix) for prefix in prefixes})
    if len(tasks) == 1 and (own := metrics_of_task(tasks[0])):
        return own
    why = f"are of the tasks {', '.join(tasks)}" if len(tasks) > 1 else "name no task of a metric"
    raise SpecError(
        f"set {name!r}: its prefixes {why}; give `metrics`, some of {', '.join(METRICS)}, "
        "or make one set of each task"
    )


def score(
    chosen: Sequence[str],
    prefixes: Sequence[str],
    answers: Sequence[Sequence[str]],
    texts: Sequence[str | None],
    mask_decoder: "model.MaskDecoder | None" = None,
    details: Sequence[Mapping[str, Any]] = (),
    flags: Sequence[Mapping[str, bool]] = (),
    ranked: Sequence[RankedBoxes] = (),
    coco_shares: Callable[[float | None], NDArray[np.float64]] | None = None,
    likelihoods: Sequence[tuple[float, int]] = (),
) -> dict[str, Score]:
    """Scores a set; the sequences are of one length, and not empty.

    Args:
        chosen: names of `METRICS`.
        prefixes: what was asked.
        answers: what is right, at least one of each.
        texts: what was answered; None where nothing could be asked, which scores nothing.
        mask_decoder: for `mean_iou`, and for `region_mask_iou`, which needs it.
        details: of a benchmark's rows; none of others.
        flags: of each answer, what a scorer says; none without one.
        ranked: of each answer its boxes, for metrics that rank them; what failed has none.
        coco_shares, likelihoods: as in `Answers`; `of_model` finds them.
    """

    def objects(prompt: str, text: str) -> list[Object]:
        return objects_of(text, mask_decoder if task_of(prompt) == "segment" else None)

    def overlap(text: str, row: Mapping[str, Any], masks: bool) -> float:
        return region_overlap(text, row, mask_decoder if masks else None)

    said = [text or "" for text in texts]
    seen = (prefixes, answers, said, objects_of, objects, details, overlap, flags, ranked)
    given = Answers(*seen, coco_shares, likelihoods)
    failed = np.array([text is None for text in texts])
    scores = {name: METRICS[name].score(given) for name in chosen}
    return {
        name: own
        if METRICS[name].of_set or METRICS[name].by_scorer or METRICS[name].lower_is_better
        else _without(failed, own, counted=bool(details))
        for name, own in scores.items()
    }


def _without(failed: NDArray[np.bool_], score: Score, *, counted: bool) -> Score:
    """The score in which what failed found nothing.

    Nothing sought and nothing found adds nothing, but what failed has found nothing out.

    Args:
        failed: of each row, whether nothing could be asked.
        score: in which it is an empty answer.
        counted: whether the metric says what such a row counts, as a benchmark's does.
    """
    numerators, denominators = score
    if counted:
        return Score(np.where(failed, 0.0, numerators), denominators)
    least = np.where(failed, np.maximum(denominators, 1.0), denominators)
    return Score(np.where(failed, 0.0, numerators), least)
