"""Calibration: an evaluation's labelled answers to a checkpoint's `calibration.json`."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow import storage
from paliflow.configs import AnnotateSpec, CalibrateSpec, CalibrateSummary, RunSummary
from paliflow.configs.base import SpecError, printable
from paliflow.jobs.confidence.calibration import (
    CALIBRATION,
    Calibration,
    decoding_of,
    keep_calibration,
    write_calibration,
)
from paliflow.jobs.confidence.groups import calibrated
from paliflow.jobs.confidence.outcomes import Outcome, answer_outcome, box_outcomes
from paliflow.jobs.confidence.page import REPORT, write_page
from paliflow.jobs.evaluate.joining import answers_in_order
from paliflow.jobs.evaluate.predictions import PREDICTIONS_FILE, stored_predictions
from paliflow.jobs.evaluate.results import Evaluation, read_evaluation
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import Model, Weights, with_calibration, with_version
from paliflow.jobs.runs.outputs import finished_runs
from paliflow.metrics import METRICS

_ANSWERS = [
    *("id", "task", "prompt", "text", "status", "width", "height", "logprob", "choices"),
    "detections",
]
_ONE_ANSWER = (
    *("exact_match", "vqa_accuracy", "simple_vqa_accuracy", "relaxed_match", "count_match"),
    *("anls", "accuracy"),
)
"""Figures that say of one answer how right it is, in the order of preference."""


class Labelled(NamedTuple):
    """Answers of an evaluation, each right or wrong."""

    evaluation: Evaluation
    spec: AnnotateSpec
    """How they were asked."""
    outcomes: list[Outcome]
    objects: Counter[str]
    """How many there were to find, by prompt."""
    left_out: Counter[str]
    """Answers that are not among them, by why."""


def calibrate(
    spec: CalibrateSpec, console: Console, ray_address: str | None = None
) -> CalibrateSummary:
    """Fits confidences to an evaluation's answers and writes them down; safe to repeat.

    Args:
        spec: relative paths in it are relative to this process's folder.
        console: where the figures go.
        ray_address: of no use; nothing here needs Ray.

    Raises:
        SpecError: there is no such evaluation, set or figure, or no answers of which enough are
            alike.
    """
    evaluation, prompts, found, objects, left_out = labelled_answers(spec)
    groups = calibrated(found, objects, prompts, left_out, level=spec.level, seed=spec.seed)
    if not groups:
        said = "; ".join(f"{count} x {why}" for why, count in left_out.most_common())
        raise SpecError(f"evaluation={spec.evaluation!r}: nothing to calibrate: {said or 'empty'}")
    calibration = Calibration(
        checkpoint_sha256=evaluation.summary.checkpoint_sha256,
        decoding=decoding_of(prompts),
        evaluation=evaluation.location,
        created=datetime.now(UTC),
        level=spec.level,
        groups=groups,
    )
    folder = storage.absolute(spec.output) if spec.output else evaluation.location
    written = posixpath.join(folder, CALIBRATION)
    write_calibration(written, calibration)
    report = posixpath.join(folder, REPORT)
    write_page(report, calibration, left_out)
    version = _register(spec, evaluation, written) if spec.registry else None
    summary = CalibrateSummary(
        calibration=written,
        report=report,
        evaluation=evaluation.location,
        checkpoint_sha256=calibration.checkpoint_sha256,
        groups=groups,
        left_out=dict(left_out.most_common()),
        registry=spec.registry and storage.absolute(spec.registry),
        name=spec.name,
        version=version,
    )
    _show(summary, console)
    return summary


def labelled_answers(spec: CalibrateSpec) -> Labelled:
    """Reads what a calibration is fitted to.

    Raises:
        SpecError: there is no such evaluation, set or figure, or the figure falls as answers get
            better.
    """
    if spec.metric and spec.metric in METRICS and METRICS[spec.metric].lower_is_better:
        raise SpecError(
            f"metric={spec.metric!r} falls as answers get better, and right are those with at "
            "least a half of it; take one that rises, such as exact_match"
        )
    evaluation = read_evaluation(spec.evaluation)
    left_out: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    asked = _asked(evaluation)
    found = list(_outcomes(spec, evaluation, asked, left_out, objects))
    return Labelled(evaluation, AnnotateSpec.parse(asked.spec), found, objects, left_out)


def _asked(evaluation: Evaluation) -> RunSummary:
    """The annotation run that asked an evaluation's questions."""
    runs = finished_runs(f"{evaluation.location}/_answers")
    if len(runs) != 1:
        raise SpecError(
            f"{evaluation.location}/_answers: {len(runs)} finished runs where one has the "
            "evaluation's answers with their scores; evaluate again"
        )
    return runs[0]


def _outcomes(
    spec: CalibrateSpec,
    evaluation: Evaluation,
    asked: RunSummary,
    left_out: Counter[str],
    objects: Counter[str],
) -> Iterator[Outcome]:
    """What can be fitted to: answers and boxes with their raw scores, right or wrong.

    Args:
        spec: the calibration's.
        evaluation: whose predictions say what is right.
        asked: has the scores.
        left_out: counts what cannot be fitted to, and why.
        objects: counts what there was to find, by prompt.
    """
    location, sets = evaluation.location, evaluation.summary.sets
    if unknown := sorted(set(spec.sets) - set(sets)):
        raise SpecError(f"sets: {location} has no {', '.join(unknown)}; it has {', '.join(sets)}")
    predictions = stored_predictions(location, scores=True)
    for predicted, answer in zip(predictions, answers_in_order(asked, _ANSWERS), strict=True):
        if answer["id"] != f"{predicted['set']}/{predicted['id']}":
            raise SpecError(f"{location}/{PREDICTIONS_FILE} is not of the answers beside it")
        if spec.sets and predicted["set"] not in spec.sets:
            continue
        if predicted["status"] not in ("ok", "unscored"):
            left_out["errors"] += 1
        elif not predicted["references"]:
            left_out["answers whose set has no right ones"] += 1
        elif answer["task"] in ("detect", "segment"):
            boxes, wanted = box_outcomes(answer, predicted)
            objects[answer["prompt"]] += wanted
            yield from boxes
        elif (figure := _figure(spec, predicted)) is None:
            left_out[f"answers of set {predicted['set']!r}, none of whose figures is of one"] += 1
        else:
            score = predicted[figure]
            yield answer_outcome(answer, predicted, score["numerator"] / score["denominator"])


def _figure(spec: CalibrateSpec, row: dict[str, Any]) -> str | None:
    """The figure that says whether a row's answer is right."""
    wanted = (spec.metric,) if spec.metric else _ONE_ANSWER
    return next((name for name in wanted if (row.get(name) or {}).get("denominator")), None)


def _register(spec: CalibrateSpec, evaluation: Evaluation, written: str) -> int:
    """Has the registry know the calibration, of which it keeps a copy; returns the version."""
    assert spec.registry
    assert spec.name
    own = evaluation.summary
    uri = keep_calibration(storage.absolute(spec.registry), written)

    def change(model: Model) -> Model:
        weights = Weights(own.checkpoint, own.checkpoint_sha256)
        model, number = with_version(model, weights, evaluation.location, own.figures)
        return with_calibration(model, number, uri)

    model = registry.update(spec.registry, spec.name, change)
    return next(known.number for known in model.versions if known.calibration == uri)


def _show(summary: CalibrateSummary, console: Console) -> None:
    table = Table("answers to", box=None, header_style="bold", pad_edge=False)
    for column in ("rows", "right", "ECE before", "after", "95 % precise from", "takes in"):
        table.add_column(column, justify="right")
    for group in summary.groups:
        at = next(each for each in group.thresholds if each.precision == 0.95)
        share = f"{at.rows / group.rows:.0%}" if at.confidence is not None else ""
        table.add_row(
            Text(printable(group.prompt or f"any {group.task}")),
            *(f"{group.rows:,}", f"{group.right / group.rows:.1%}"),
            *(f"{each.ece.value:.4f}" for each in (group.before, group.after)),
            "never" if at.confidence is None else f"{at.confidence:.3f}",
            share,
        )
    console.print(table)
    for why, count in summary.left_out.items():
        print(f"left out: {count} {printable(why)}", flush=True)
    print(summary.said(), flush=True)
