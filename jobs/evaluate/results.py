"""Finished evaluations read back: whether two are alike, and what their figures are made of."""

import posixpath
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.evaluate.job import PREDICTIONS_FILE
from paliflow.jobs.runs.outputs import read_summary
from paliflow.metrics import Score


class Evaluation(NamedTuple):
    """A finished evaluation, and where it is."""

    location: str
    summary: EvaluateSummary


def read_evaluation(location: str) -> Evaluation:
    """
    Raises:
        SpecError: there is none, or it is not finished.
    """
    location = storage.absolute(location)
    try:
        summary = read_summary(location, EvaluateSummary)
    except SpecError as error:
        raise SpecError(f"{location} is no evaluation: {error}") from None
    if not summary:
        raise SpecError(f"{location}: no finished evaluation there; evaluate with its run_id first")
    return Evaluation(location, summary)


def require_alike(candidate: Evaluation, incumbent: Evaluation) -> None:
    """
    Raises:
        SpecError: they are of different examples, or of images that changed in between.
    """
    if candidate.summary.examples_sha256 != incumbent.summary.examples_sha256:
        raise SpecError(
            f"candidate={candidate.location!r} and incumbent={incumbent.location!r} are of "
            f"different examples ({candidate.summary.examples} and {incumbent.summary.examples}); "
            "evaluate both with the same `sets` of the same files"
        )
    pairs = zip(_images(candidate), _images(incumbent), strict=True)
    changed = sum(None not in pair and pair[0] != pair[1] for pair in pairs)
    if changed:
        raise SpecError(
            f"{changed} images have changed between candidate={candidate.location!r} and "
            f"incumbent={incumbent.location!r}; evaluate both again, with new run_ids"
        )


def parts_of(evaluation: Evaluation, figures: Iterable[str]) -> dict[str, Score]:
    """What each figure is made of, example by example of its set.

    Raises:
        SpecError: the evaluation has no such figure, or it is no number.
    """
    names = {figure: figure.partition("/") for figure in figures}
    for figure in names:
        if figure not in evaluation.summary.figures:
            raise SpecError(
                f"{figure!r} is no figure of {evaluation.location}; it has "
                f"{', '.join(evaluation.summary.figures)}"
            )
    metrics = sorted({metric for _, _, metric in names.values()})
    with storage.open_binary(posixpath.join(evaluation.location, PREDICTIONS_FILE)) as file:
        table = pq.read_table(file, columns=["set", *metrics])
    parts = {
        figure: _score(table.filter(pc.field("set") == name)[metric])
        for figure, (name, _, metric) in names.items()
    }
    if odd := [figure for figure, score in parts.items() if not np.isfinite(score).all()]:
        raise SpecError(f"{', '.join(odd)} of {evaluation.location}: no number; evaluate it again")
    return parts


def _score(column: pa.ChunkedArray) -> Score:
    parts = column.combine_chunks()
    return Score(parts.field("numerator").to_numpy(), parts.field("denominator").to_numpy())


def _images(evaluation: Evaluation) -> Iterator[str | None]:
    with storage.open_binary(posixpath.join(evaluation.location, PREDICTIONS_FILE)) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["image_sha256"]):
            yield from batch.column(0).to_pylist()
