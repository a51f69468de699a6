"""Finished evaluations read back: whether two are alike, and what their figures are made of."""

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import EvaluateSummary
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark
from paliflow.configs.schema import SCORE
from paliflow.jobs.evaluate.predictions import PREDICTIONS_FILE
from paliflow.jobs.runs.outputs import read_summary
from paliflow.metrics import METRICS, Score
from paliflow.metrics.bootstrap import cluster_sums

_ABOUT = ("id", "image", "image_sha256", "details")
"""The columns that say what rows depend on; predictions of older versions lack some."""


_ASKED = ("id", "prefix", "references")
Run = tuple[str, str]
"""Where an evaluation lies, and the name of one of its sets."""


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


def parts_of(
    evaluations: Sequence[Evaluation], figures: Iterable[str]
) -> tuple[dict[str, Score], ...]:
    """What each figure is made of in alike evaluations: sums over the rows of each image of its
    set, or of what else a benchmark says that rows depend on.

    Questions about one image are not independent, so that a bootstrap has to draw whole images. An
    image is told by its digest: TensorFlow Datasets keep a copy of it beside each question.

    Args:
        evaluations: as `require_alike` has them; the images are the same, in the same order, in
            all of them.
        figures: `<set>/<metric>`.

    Returns:
        Of each evaluation its parts by figure.

    Raises:
        SpecError: an evaluation has no such figure, or it is no number.
    """
    names = {figure: figure.partition("/") for figure in figures}
    metrics = sorted({metric for _, _, metric in names.values()})
    tables = [_known_figures(each, names, metrics) for each in evaluations]
    clusters: dict[str, list[str]] = {}
    parts: tuple[dict[str, Score], ...] = tuple({} for _ in evaluations)
    for figure, (name, _, metric) in names.items():
        of_set = [table.filter(pc.field("set") == name) for table in tables]
        if name not in clusters:
            clusters[name] = _clusters(of_set)
        for own, rows in zip(parts, of_set, strict=True):
            own[figure] = _score(rows[metric], clusters[name])
    for evaluation, own in zip(evaluations, parts, strict=True):
        if odd := [name for name, score in own.items() if not np.isfinite(score).all()]:
            raise SpecError(
                f"{', '.join(odd)} of {evaluation.location}: no number; evaluate it again"
            )
    return parts


def _known_figures(
    evaluation: Evaluation, figures: Iterable[str], metrics: Sequence[str]
) -> pa.Table:
    """The columns of an evaluation's predictions that its figures are made of.

    Raises:
        SpecError: it has no such figure.
    """
    for figure in figures:
        if figure not in evaluation.summary.figures:
            raise SpecError(
                f"{figure!r} is no figure of {evaluation.location}; it has "
                f"{', '.join(evaluation.summary.figures)}"
            )
    with storage.open_binary(posixpath.join(evaluation.location, PREDICTIONS_FILE)) as file:
        known = pq.ParquetFile(file)
        about = [name for name in _ABOUT if name in known.schema_arrow.names]
        return known.read(columns=["set", *about, *metrics])


def falls(summary: EvaluateSummary, figure: str) -> bool:
    """Whether a figure, `<set>/<metric>`, gets better as it falls."""
    name, _, metric = figure.partition("/")
    own = summary.sets.get(name)
    if own and own.benchmark:
        metric = next(
            each.metric for each in benchmark(own.benchmark).figures if each.name == metric
        )
    return metric in METRICS and METRICS[metric].lower_is_better


def paired_parts(
    candidate: Run, incumbent: Run, figures: Sequence[str]
) -> dict[str, tuple[Score, Score]]:
    """What the figures of one set are made of in two evaluations, as in `parts_of`.

    Args:
        candidate, incumbent: where each evaluation lies, and what it calls the set.
        figures: without the set's name.

    Returns:
        By figure, the candidate's parts and the incumbent's; nothing if the two were asked
        otherwise, or of images that changed in between, or one lacks a figure.
    """
    tables = [_set_of(run, figures) for run in (candidate, incumbent)]
    if None in tables:
        return {}
    own, other = (table for table in tables if table is not None)
    if any(not own[column].equals(other[column]) for column in _ASKED):
        return {}
    pairs = zip(own["image_sha256"].to_pylist(), other["image_sha256"].to_pylist(), strict=True)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return {}
    clusters = _clusters((own, other))
    found = {each: (_score(own[each], clusters), _score(other[each], clusters)) for each in figures}
    return {
        each: pair
        for each, pair in found.items()
        if all(np.isfinite(score).all() for score in pair)
    }


def _set_of(run: Run, figures: Sequence[str]) -> pa.Table | None:
    """The rows of a set; None if the predictions are gone or lack a column."""
    location, name = run
    try:
        with storage.open_binary(posixpath.join(location, PREDICTIONS_FILE)) as file:
            known = pq.ParquetFile(file)
            names = known.schema_arrow.names
            if not {*_ASKED, *figures} <= set(names):
                return None
            columns = dict.fromkeys((*_ASKED, *_ABOUT, *figures))
            table = known.read(columns=["set", *(each for each in columns if each in names)])
    except FileNotFoundError:
        return None
    return table.filter(pc.field("set") == name).combine_chunks()


def _score(column: pa.ChunkedArray, clusters: Sequence[str]) -> Score:
    parts = column.combine_chunks()
    of_rows = np.stack([parts.field(side).to_numpy() for side in SCORE.names], axis=1)
    sums = cluster_sums(of_rows, clusters)
    return Score(sums[:, 0], sums[:, 1])


def _clusters(tables: Sequence[pa.Table]) -> list[str]:
    """What makes each row dependent on others, as `cluster_of` has it, once for alike evaluations.

    What one of them does not know, as the digest of an image that it could not read, another may.
    """
    known = [
        table.select([each for each in _ABOUT if each in table.column_names]) for table in tables
    ]
    return [_cluster(rows) for rows in zip(*(each.to_pylist() for each in known), strict=True)]


def _cluster(rows: Sequence[Mapping[str, str | None]]) -> str:
    """
    Args:
        rows: the same example's, of each evaluation.
    """
    own = (json.loads(row.get("details") or "{}").get("cluster") for row in rows)
    named = (row.get(column) for column in ("image_sha256", "image") for row in rows)
    return str(next(filter(None, (*own, *named)), rows[0]["id"]))


def _images(evaluation: Evaluation) -> Iterator[str | None]:
    with storage.open_binary(posixpath.join(evaluation.location, PREDICTIONS_FILE)) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["image_sha256"]):
            yield from batch.column(0).to_pylist()
