"""A benchmark's figures: its metrics over all rows, over groups, and the means of groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paliflow import model
from paliflow.configs.benchmark import Benchmark, Figure
from paliflow.configs.summary import GroupFigure
from paliflow.jobs.evaluate.ranking import of_model
from paliflow.jobs.evaluate.scoring import score
from paliflow.jobs.evaluate.toxicity import flags_of
from paliflow.metrics import Score

Row = Mapping[str, Any]
"""Of the predictions: `prefix`, `references`, `text`, and `details`."""


def benchmark_scores(
    known: Benchmark, rows: Sequence[Row], mask_decoder: "model.MaskDecoder | None" = None
) -> dict[str, Score]:
    """The score of each figure of a benchmark, by its name; rows that do not count have 0 and 0.

    A mean over groups is a ratio of sums, too: each row weighs as much less as its group is
    larger. A metric of captions weighs words by the group's captions alone, as published figures
    do.

    Args:
        known: the benchmark.
        rows: all that was asked, in order.
        mask_decoder: as in `score`.
    """
    return {figure.name: _score(figure, rows, mask_decoder) for figure in known.figures}


def group_figures(
    known: Benchmark, rows: Sequence[Row], mask_decoder: "model.MaskDecoder | None" = None
) -> dict[str, dict[str, dict[str, GroupFigure]]]:
    """The tables of a benchmark: by metric, by group, by the group's value."""
    tables: dict[str, dict[str, dict[str, GroupFigure]]] = {}
    for metric, groups in known.groups.items():
        for group in groups:
            if table := dict(_table(metric, group, rows, mask_decoder)):
                tables.setdefault(metric, {})[group] = table
    return tables


def cluster_of(row: Row) -> str:
    """What makes rows dependent on each other: their image, or what the benchmark says."""
    return str(row["details"].get("cluster") or row["image_sha256"] or row["image"])


def _table(
    metric: str, group: str, rows: Sequence[Row], mask_decoder: "model.MaskDecoder | None"
) -> Iterator[tuple[str, GroupFigure]]:
    for value, places in _by_value(group, rows, range(len(rows))).items():
        own = _of(metric, [rows[place] for place in places], mask_decoder)
        yield value, GroupFigure(figure=own.figure, rows=len(places))


def _score(figure: Figure, rows: Sequence[Row], mask_decoder: "model.MaskDecoder | None") -> Score:
    places = [
        place
        for place, row in enumerate(rows)
        if all(value in _values(row, group) for group, value in figure.where.items())
    ]
    whole = Score(np.zeros(len(rows)), np.zeros(len(rows)))
    groups = [places]
    if figure.mean_over:
        by_value = _by_value(figure.mean_over, rows, places)
        groups = [own for value, own in by_value.items() if value not in figure.without]
    for own in filter(None, groups):
        part = _of(figure.metric, [rows[place] for place in own], mask_decoder)
        weight = 1.0
        if figure.mean_over and (total := part.denominators.sum()):
            weight = len(places) / (len(groups) * total)
        whole.numerators[own] = part.numerators * weight
        whole.denominators[own] = part.denominators * weight
    return whole


def _of(metric: str, rows: Sequence[Row], mask_decoder: "model.MaskDecoder | None") -> Score:
    prefixes, references, texts, details = (
        [row[name] for row in rows] for name in ("prefix", "references", "text", "details")
    )
    seen = (prefixes, references, texts, mask_decoder, details, list(map(flags_of, rows)))
    return score([metric], *seen, **of_model([metric], rows))[metric]


def _by_value(group: str, rows: Sequence[Row], places: Sequence[int]) -> dict[str, list[int]]:
    """The places of rows by their values of a group, in the order of first appearance."""
    found: dict[str, list[int]] = {}
    for place in places:
        for value in _values(rows[place], group):
            found.setdefault(value, []).append(place)
    return found


def _values(row: Row, group: str) -> list[str]:
    values: list[str] = row["details"].get("groups", {}).get(group, [])
    return values
