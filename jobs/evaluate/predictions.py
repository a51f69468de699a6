"""Predictions: each answer beside what is right, with its scores, and the figures of each set."""

import io
import json
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import model, storage
from paliflow.configs import EvaluateSpec, EvaluationSet
from paliflow.configs.benchmark import Benchmark, benchmark
from paliflow.configs.schema import PREDICTIONS, SCORE
from paliflow.configs.summary import SetSummary
from paliflow.jobs.evaluate.figures import benchmark_scores, cluster_of, group_figures
from paliflow.jobs.evaluate.ranking import of_model
from paliflow.jobs.evaluate.scoring import score
from paliflow.jobs.evaluate.shares import clopper_pearson
from paliflow.jobs.evaluate.toxicity import flags_of, require_scored, toxicity_of
from paliflow.jobs.examples.plan import PlannedSource
from paliflow.metrics import METRICS, Score, bootstrap_interval

PREDICTIONS_FILE = "predictions.parquet"
FIGURES_FILE = "figures.json"
_BLOCK = 8192
Row = dict[str, Any]
ReadRows = Callable[[str], list[Row]]
"""The rows of a set by the columns of `PREDICTIONS`, `details` parsed."""


class Scored(NamedTuple):
    """What an evaluation's manifest says of its scores."""

    figures: dict[str, float]
    sets: dict[str, SetSummary]


def write_predictions(
    spec: EvaluateSpec,
    metrics: Mapping[str, tuple[str, ...]],
    sources: Iterable[PlannedSource],
    rows_of: ReadRows,
) -> Scored:
    """Scores all sets and writes their predictions and figures.

    Args:
        spec: of the evaluation.
        metrics: how each set that is of no benchmark is scored.
        sources: of the sets, by the same names.
        rows_of: reads a set's rows, one set at a time.
    """
    decoder = model.MaskDecoder.from_checkpoint(spec.mask_decoder) if spec.mask_decoder else None
    known = {name: benchmark(own.benchmark) for name, own in spec.sets.items() if own.benchmark}
    columns = dict.fromkeys(name for own in metrics.values() for name in own)
    columns |= dict.fromkeys(figure.name for own in known.values() for figure in own.figures)
    schema = pa.schema([*PREDICTIONS, *(pa.field(name, SCORE) for name in columns)])
    figures: dict[str, float] = {}
    sets: dict[str, SetSummary] = {}
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd") as out:
            for source in sources:
                name, rows = source.name, rows_of(source.name)
                scores = _scores(spec.sets[name], metrics.get(name, ()), rows, decoder)
                summary = _summary(spec.sets[name], source, rows, scores)
                if spec.scorer:
                    require_scored(name, rows, spec)
                if summary.coverage < spec.min_coverage and name in known:
                    summary = _without_figures(summary, spec.min_coverage)
                    scores = {}
                elif name in known and scores:
                    tables = group_figures(known[name], rows, decoder)
                    summary = summary.model_copy(update={"groups": tables})
                if spec.scorer and not summary.note:
                    table = toxicity_of(rows, spec.scorer, spec.min_group)
                    summary = summary.model_copy(update={"toxicity": table})
                for figure, of_each in scores.items():
                    figures[f"{name}/{figure}"] = of_each.figure
                    _add(rows, figure, of_each)
                sets[name] = summary
                for row in rows:
                    row["details"] = json.dumps(row["details"]) if row["details"] else None
                out.write_table(pa.Table.from_pylist(rows, schema), row_group_size=_BLOCK)
        storage.overwrite(f"{spec.location}/{PREDICTIONS_FILE}", file)
    content = io.BytesIO(json.dumps(figures, indent=2).encode())
    storage.overwrite(f"{spec.location}/{FIGURES_FILE}", content)
    return Scored(figures, sets)


def read_predictions(location: str, name: str) -> list[Row]:
    """The rows of a set that an evaluation left, without their scores, `details` parsed."""
    return [row for row in stored_predictions(location) if row["set"] == name]


def stored_predictions(location: str, *, scores: bool = False) -> Iterator[Row]:
    """The rows of all sets that an evaluation left, in order, `details` parsed.

    Args:
        location: the evaluation's folder.
        scores: whether each has its scores, too, under the names of its figures.
    """
    with storage.open_binary(posixpath.join(location, PREDICTIONS_FILE)) as file:
        table = pq.ParquetFile(file)
        known = table.schema_arrow.names
        columns = known if scores else [name for name in PREDICTIONS.names if name in known]
        for batch in table.iter_batches(_BLOCK, columns=columns):
            for row in batch.to_pylist():
                yield {**row, "details": json.loads(row.get("details") or "{}")}


def _scores(
    own: EvaluationSet,
    metrics: tuple[str, ...],
    rows: list[Row],
    decoder: "model.MaskDecoder | None",
) -> dict[str, Score]:
    """The scores of a set by its figures; none of a split whose answers a server has."""
    if own.benchmark:
        known = benchmark(own.benchmark)
        answered = known.scorer or all(row["references"] for row in rows)
        return _measured(benchmark_scores(known, rows, decoder) if answered else {})
    prefixes, references, texts = (
        [row[name] for row in rows] for name in ("prefix", "references", "text")
    )
    flags = list(map(flags_of, rows))
    scores = score(
        metrics, prefixes, references, texts, decoder, flags=flags, **of_model(metrics, rows)
    )
    return _measured(scores)


def _measured(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Without those of attributes that the scorer does not have, and of right answers whose
    likelihood nobody knows."""
    return {
        name: own
        for name, own in scores.items()
        if own[1].any() or not (_by_scorer(name) or _by_likelihood(name))
    }


def _by_scorer(figure: str) -> bool:
    """A benchmark calls such a figure by its metric's name."""
    return figure in METRICS and METRICS[figure].by_scorer


def _by_likelihood(figure: str) -> bool:
    """As `_by_scorer`."""
    return figure in METRICS and METRICS[figure].by_likelihood


def _interval(figure: str, own: Score, clusters: list[str]) -> tuple[float, float]:
    if _by_scorer(figure):  # of events so rare that a bootstrap may draw none
        return clopper_pearson(int(own.numerators.sum()), int(own.denominators.sum()))
    return bootstrap_interval(*own, clusters)


def _summary(
    own: EvaluationSet, source: PlannedSource, rows: list[Row], scores: Mapping[str, Score]
) -> SetSummary:
    known = benchmark(own.benchmark) if own.benchmark else None
    clusters = [cluster_of(row) for row in rows]
    return SetSummary(
        benchmark=own.benchmark,
        split=(own.split or known.split) if known else None,
        rows=len(rows),
        of=(source.found or source.examples) + source.errors,
        broken=source.errors,
        answered=sum(row["status"] != "error" for row in rows),
        scored=_counted(known, scores, len(rows)),
        intervals={
            name: _interval(name, own_score, clusters) for name, own_score in scores.items()
        },
    )


def _counted(known: Benchmark | None, scores: Mapping[str, Score], rows: int) -> int:
    """How many rows a published figure is of."""
    if known is None:
        return rows
    published = {name for figures in known.published.values() for name in figures}
    counted = [own.denominators != 0 for name, own in scores.items() if name in published]
    return sum(any(column) for column in zip(*counted, strict=True)) if counted else 0


def _without_figures(summary: SetSummary, least: float) -> SetSummary:
    note = (
        f"{summary.coverage:.1%} of the rows could be asked, min_coverage={least:g} wants more: "
        "no figures"
    )
    return summary.model_copy(update={"note": note, "intervals": {}})


def _add(rows: list[Row], figure: str, of_each: Score) -> None:
    parts = zip(of_each.numerators.tolist(), of_each.denominators.tolist(), strict=True)
    for row, (numerator, denominator) in zip(rows, parts, strict=True):
        row[figure] = {"numerator": numerator, "denominator": denominator}
