"""The page of a filter run: what was removed, changed or not scored, with examples to look at."""

import io
from collections.abc import Container, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from paliflow import storage
from paliflow.configs import FilterSpec, FilterSummary
from paliflow.jobs.media.decoding import ImageTask
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, task_reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.report.answers import data_uri
from paliflow.jobs.report.page import REPORT
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.safety.audit import Pair, audit_rows, near_of
from paliflow.jobs.safety.checking import face_finder
from paliflow.jobs.safety.protocol import VIEW

_EXAMPLES = 8
"""Of each filter, label and action."""
_PAIRS = 24
_PIXELS = 240
_TIMEOUT_S = 20.0
_NOT_SHOWN = ("nsfw", "safe_search")
"""Filters whose finds nobody wants to see on a page."""


def write_page(summary: FilterSummary) -> str:
    """Writes `_report.html` beside a finished run's manifest; the page needs no other file.

    Images are read again, and those that have changed since the run are not shown. Nothing that a
    filter of unsafe images flags, or could not score, is shown, and no face where the run blurs
    faces.

    Returns:
        Its URI.
    """
    spec = FilterSpec.parse(summary.spec)
    examples, pairs = _chosen(summary.location)
    shown = [row for rows in examples.values() for row in rows]
    wanted = {row["image"]: row["source_sha256"] for row in shown}
    wanted |= {uri: None for pair in pairs for uri in (pair.image, pair.near)}
    unsafe = _unsafe(summary.location, wanted)
    # What is nearly the same as an unsafe image is one.
    unsafe |= {uri for pair in pairs if unsafe.intersection(pair[:2]) for uri in pair[:2]}
    wanted = {uri: sha256 for uri, sha256 in wanted.items() if uri not in unsafe}
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template.filters["name"] = lambda uri: uri.rpartition("/")[2] or uri
    page = template.from_string(Path(__file__).with_name("page.html.j2").read_text()).render(
        summary=summary,
        counts=[(*what.split("/"), count) for what, count in summary.flagged.items()],
        examples=examples,
        pairs=pairs,
        pictures=dict(_pictures(wanted, spec)),
    )
    uri = f"{summary.location}/{REPORT}"
    storage.overwrite(uri, io.BytesIO(page.encode(errors="replace")))
    return uri


def _chosen(location: str) -> tuple[dict[tuple[str, str, str], list[dict[str, Any]]], list[Pair]]:
    """The first rows of each kind, and the first pairs."""
    examples: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    pairs: list[Pair] = []
    for row in audit_rows(location):
        if pair := near_of(row):
            if len(pairs) < _PAIRS:
                pairs.append(pair)
            continue
        kind = (row["filter"] or "error", row["label"] or "not read", row["action"])
        own = examples.setdefault(kind, [])
        if len(own) < _EXAMPLES:
            own.append(row)
    return examples, pairs


def _unsafe(location: str, images: Container[str]) -> set[str]:
    """Those of some images that nobody wants to see, or of which that is not known."""
    return {
        row["image"]
        for row in audit_rows(location)
        if row["filter"] in _NOT_SHOWN and row["image"] in images
    }


def _pictures(wanted: dict[str, bytes | None], spec: FilterSpec) -> Iterable[tuple[str, str]]:
    """Thumbnails by the images' URIs, of those that can be read and are what they were."""
    task = ImageTask(
        size=VIEW,
        max_pixels=spec.max_pixels,
        thumbnail=_PIXELS,
        upright=spec.exif == "apply",
        way="fast",
    )
    limits = spec.model_copy(update={"read_timeout": _TIMEOUT_S})
    items = (Item(uri) for uri in wanted)
    ahead = ReadAhead(
        task_reader(task, limits, 1), items, 16, _TIMEOUT_S, max_concurrent_reads(None, 1)
    )
    faces = face_finder(spec.redact)
    with closing(ahead) as images:
        for image in images:
            if _is_as_before(image, wanted[image.item.uri]):
                assert image.thumbnail
                shown = faces.redact(image.thumbnail) if faces else image.thumbnail
                yield image.item.uri, data_uri("jpeg", shown)


def _is_as_before(image: Input, sha256: object) -> bool:
    return bool(image.thumbnail) and (sha256 is None or image.sha256 == sha256)
