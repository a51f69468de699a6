"""Files that benchmarks' servers take, and the scores that they give."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paliflow import storage
from paliflow.configs import EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import Submission, benchmark
from paliflow.configs.summary import SetSummary
from paliflow.jobs.evaluate.predictions import Row, read_predictions
from paliflow.jobs.evaluate.results import read_evaluation
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.metrics.answers import edit_distance


def write_submission(runs: Iterable[str], output: str) -> int:
    """Writes the answers of finished evaluations in their server's form.

    Several runs are one file where the server takes an object by id, as A-OKVQA's takes both of
    its tasks; of others only one is taken.

    Args:
        runs: folders of evaluations, each of one benchmark's split that a server scores.
        output: the file; it is replaced.

    Returns:
        How many ids it has.

    Raises:
        SpecError: an evaluation is of another split, or not of all of its rows, or an id is not
            of the server's kind.
    """
    forms, answers = [], []
    for run in runs:
        location, summary = read_evaluation(run)
        name, own, form = _submitted(summary)
        rows = read_predictions(location, name)
        if own.rows != own.of:
            raise SpecError(
                f"{location} asked {own.rows:,} of {own.of:,} rows; the server wants all of them: "
                "evaluate without a limit"
            )
        _require_whole(location, own)
        forms.append(form)
        answers.append({_key(row, form): {form.answer: _answer(row, form)} for row in rows})
        if len(answers[-1]) < len(rows):
            raise SpecError(f"{location}: two rows have the same id for the server")
    if not forms:
        raise SpecError("give at least one evaluation")
    content = _joined(forms, answers)
    storage.overwrite(
        storage.absolute(output), io.BytesIO(json.dumps(content, ensure_ascii=False).encode())
    )
    return len(content)


def record_score(run: str, figure: str, score: float) -> EvaluateSummary:
    """Keeps what a server gave in the manifest of the evaluation that was sent.

    Args:
        run: the folder of the evaluation.
        figure: of the benchmark, as published figures are called.
        score: in the unit of published figures.

    Raises:
        SpecError: the evaluation is of no split that a server scores, or there is no such figure.
    """
    _, summary = read_evaluation(run)
    name, own, _ = _submitted(summary)
    assert own.benchmark
    known = [each.name for each in benchmark(own.benchmark).figures]
    if figure not in known:
        raise SpecError(f"{figure!r} is no figure of {own.benchmark}; it has {', '.join(known)}")
    given = {**summary.server, f"{name}/{figure}": score}
    summary = summary.model_copy(update={"server": given})
    write_manifest(summary, again=True)
    return summary


def _submitted(summary: EvaluateSummary) -> tuple[str, SetSummary, Submission]:
    """The only set of an evaluation, whose split a server scores.

    Raises:
        SpecError: there are several sets, or it is of another split.
    """
    if len(summary.sets) != 1:
        raise SpecError(f"{summary.location} has {len(summary.sets)} sets; a server takes one")
    ((name, own),) = summary.sets.items()
    form = benchmark(own.benchmark).submission if own.benchmark else None
    if form is None or own.split not in form.splits:
        there = ", ".join(form.splits) if form else "none"
        raise SpecError(f"{summary.location} is of split {own.split!r}; a server scores: {there}")
    return name, own, form


def _require_whole(location: str, own: SetSummary) -> None:
    """
    Raises:
        SpecError: the data lacks rows of the split, as a prepared folder may, whose builder left
            out what had no image.
    """
    assert own.benchmark
    known = benchmark(own.benchmark)
    if own.split == known.published_split and own.rows != (known.published_rows or own.rows):
        raise SpecError(
            f"{location} asked {own.rows:,} rows of {own.split}, which has "
            f"{known.published_rows:,}; the server wants all of them: evaluate the official files, "
            "whose rows without an image are answered with nothing"
        )


def _key(row: Row, form: Submission) -> int | str:
    """
    Raises:
        SpecError: the id is not of the server's kind.
    """
    key = row["details"].get("key")
    if form.integer:
        if isinstance(key, bool) or not isinstance(key, int):
            raise SpecError(f"row {row['id']!r}: {form.key}={key!r} has to be a number")
        return key
    if not isinstance(key, str) or not key:
        raise SpecError(f"row {row['id']!r}: {form.key}={key!r} has to be a text")
    return key


def _answer(row: Row, form: Submission) -> str:
    """What was answered, nothing of a missing image; the nearest choice if it has to be one."""
    text: str = row["text"] or ""
    choices: list[str] = row["details"].get("choices", [])
    if form.choose and text not in choices:
        return min(choices, key=lambda choice: edit_distance(choice.lower(), text.lower()))
    return text


def _joined(
    forms: Sequence[Submission], answers: Sequence[Mapping[int | str, dict[str, str]]]
) -> list[dict[str, Any]] | dict[str, dict[str, str]]:
    first = forms[0]
    if first.by_key and all(form.by_key for form in forms):
        if len({form.answer for form in forms}) < len(forms):
            raise SpecError("two of the evaluations are of the same task")
        content: dict[str, dict[str, str]] = {}
        for own in answers:
            for key, answer in own.items():
                content.setdefault(str(key), {}).update(answer)
        if any(len(answer) < len(forms) for answer in content.values()):
            raise SpecError("the evaluations are not of the same questions")
        return content
    if len(forms) > 1:
        raise SpecError("this server takes the answers of one evaluation")
    return [{first.key: key, **answer} for key, answer in answers[0].items()]
