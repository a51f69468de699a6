"""Answers joined to what is right, set by set: the rows of an evaluation's predictions."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import EvaluateSpec, RunSummary
from paliflow.jobs.evaluate.ranking import BOXES, LIKELIHOOD, kept_boxes
from paliflow.jobs.evaluate.toxicity import scores_of
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.orientation import boxes_in_picture
from paliflow.jobs.examples.plan import ExamplePlan, open_examples
from paliflow.jobs.media.reader import reader
from paliflow.jobs.runs.outputs import row_files

_BLOCK = 8192
_ANSWERS = ["id", "text", "status", "error", "source_sha256", "width", "height", "safety"]
_SCORES = ["id", "text", "logprob", "token_count", "status", "error"]
Row = dict[str, Any]


class Asked(NamedTuple):
    """An evaluation whose answers are there."""

    plan: ExamplePlan
    metrics: dict[str, tuple[str, ...]]
    """How each set is scored that is of no benchmark."""
    digest: str
    """Of all that was asked and is right."""
    answers: RunSummary
    ranked: tuple[str, ...]
    """The sets whose boxes are ranked by how sure the model is of them."""
    scored: tuple[str, ...]
    """The sets of which it is wanted how likely what is right is."""
    likelihoods: RunSummary | None
    """The annotation run that says it; None if there is nothing to say."""


def rows_of_sets(
    spec: EvaluateSpec, done: Asked, misfits: Counter[str]
) -> Callable[[str], list[Row]]:
    """Joins answers to what is right, set by set in the plan's order.

    Args:
        spec: of the evaluation.
        done: its answers.
        misfits: counts what is right and does not fit the image that was asked about or cannot be
            scored, and why.
    """
    plan, answers = done.plan, done.answers
    answered = answers_in_order(answers, [*_ANSWERS, *(["detections"] if done.ranked else [])])
    likely = (
        groupby(_rows(done.likelihoods, _SCORES), itemgetter("id")) if done.likelihoods else None
    )

    def rows_of(name: str) -> list[Row]:
        examples = open_examples(spec.location, plan, name)
        roots = plan.source(name).roots
        asked = list(zip(examples, islice(answered, len(examples)), strict=True))
        rows = [
            {
                "set": name,
                "id": example.id,
                "image": example.images[0],
                "prefix": example.prefix,
                "details": json.loads(example.details or "{}") | scores_of(answer.get("safety")),
                **_of(answer, f"{name}/{example.id}", answers.location),
                **references_of(example, answer, spec, misfits, roots),
            }
            for example, answer in asked
        ]
        for row, (example, answer) in zip(rows, asked, strict=True):
            if name in done.ranked and row["status"] != "error":
                row["details"][BOXES] = kept_boxes(answer)
            if likely and name in done.scored and any(example.suffixes):
                question, scores = next(likely)
                _require(question, f"{name}/{example.id}", spec.location)
                if row["status"] != "error":
                    row["details"][LIKELIHOOD] = _likelihood(scores, example.suffixes, misfits)
        return rows

    return rows_of


def references_of(
    example: Example,
    answer: Row,
    spec: EvaluateSpec,
    misfits: Counter[str],
    roots: tuple[str, ...] | None,
) -> Row:
    """What is right, its boxes in the frame of the image that was asked about.

    Where they are of another image's size, the answer's columns are those of an error.
    """
    picture, upright = (answer["width"], answer["height"]), spec.exif == "apply"
    if example.size is None or answer["status"] == "error" or example.size == picture:
        return {"references": example.suffixes}
    item = image_item(example.images[0], roots, example.edit)
    read = next(found for found in reader(spec, 1)(item) if found)
    try:
        if read.error:
            raise ValueError(read.error)
        turned = [
            boxes_in_picture(suffix, example.size, picture, read.orientation, upright=upright)
            for suffix in example.suffixes
        ]
    except ValueError as error:
        misfits[str(error)] += 1
        failed = {"text": None, "status": "error", "error": str(error)}
        return {"references": example.suffixes, **failed}
    return {"references": turned}


def answers_in_order(run: RunSummary, columns: list[str]) -> Iterator[Row]:
    """Some columns of the annotation run, `id` among them: a row a question, in their order.

    After the answer about a video, or about several images, of which some is missing comes a row
    that says so. A video answers all the same, of several images none may be missing.
    """
    for _, rows in groupby(_rows(run, columns), key=itemgetter("id")):
        first, *more = rows
        video = run.spec.get("video") or {}
        yield more[0] if more and video.get("frame_rate") else first


def _rows(run: RunSummary, columns: list[str]) -> Iterator[Row]:
    for uri in row_files(run):
        with storage.open_binary(uri) as file:
            for batch in pq.ParquetFile(file).iter_batches(_BLOCK, columns=columns):
                yield from batch.to_pylist()


def _likelihood(
    scores: Iterator[Row], right: Sequence[str], misfits: Counter[str]
) -> tuple[float, int]:
    """The negative log-probability of right answers, each as often as it is one, and their tokens.

    Args:
        scores: a row of each that could be asked.
        right: all of them.
        misfits: counts those that have no score.
    """
    nats, tokens, times = 0.0, 0, Counter(right)
    for row in scores:
        if row["status"] == "ok":
            nats -= times[row["text"]] * row["logprob"]
            tokens += times[row["text"]] * row["token_count"]
        else:
            misfits[row["error"]] += 1
    return nats, tokens


def _of(answer: Row, question: str, location: str) -> Row:
    _require(answer["id"], question, location)
    columns = {name: answer[name] for name in ("text", "status", "error")}
    return {"image_sha256": answer["source_sha256"], **columns}


def _require(answered: str, question: str, location: str) -> None:
    if answered != question:
        raise RuntimeError(f"{location} answers {answered!r} where {question!r} was asked")
