"""The report: one page that shows a run, with sampled answers drawn over their images."""

import base64
import hashlib
import io
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import cycle, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.report.answers import COLORS, IMAGE_PIXELS, answer, data_uri, redacted
from paliflow.jobs.report.videos import clock, films_of
from paliflow.jobs.runs.compact import Piece, pieces
from paliflow.jobs.runs.outputs import evenly_spaced, row_files
from paliflow.jobs.runs.plan import Item, read_plan, read_shard

_FILES = 64
_ROWS = 4096
"""Read are at most so many stretches of rows, of at most so many rows each."""
_IMAGES = 48
_ERRORS = 12
_ROWS_AN_IMAGE = 24
_CLIP = 600
"""Characters of a text that are shown."""
_MAX_BYTES = 8_000_000
"""Of the gallery, which leaves off there."""
_TIMEOUT_S = 20.0
"""For an image, whatever the run allowed."""
_NOT_SHOWN = ("error", "filtered")
"""Statuses of rows whose images are not shown."""
_COLUMNS = [
    *("source_uri", "source_sha256", "id", "frame_index", "timestamp_s", "width", "height", "task"),
    *("prompt", "text", "detections", "logprob", "token_count", "finished", "status", "error"),
    *("clip_frames", "choices", "choices_mass", "confidence", "accepted"),
]


class Stretch(NamedTuple):
    """Some consecutive rows of a run, without thumbnails."""

    rows: pa.Table
    shards: list[int]
    """Which shard each comes from."""


REPORT = "_report.html"
"""Its name: readers of Parquet folders pass over what begins so."""


def write_report(summary: RunSummary, redact: Callable[[bytes], bytes] | None = None) -> str:
    """Writes `_report.html` beside a finished run's manifest, in place of an earlier one.

    The page needs no network and stays under 10 MB. What it says of all rows comes from the
    manifest; the rest from a sample, the same every time, spread over the run's files.

    Args:
        summary: the run's.
        redact: changes JPEGs before they are shown.

    Returns:
        Its URI.
    """
    stretches, committed = _sample(row_files(summary))
    # Parts that an older version wrote lack columns.
    tables = [stretch.rows for stretch in stretches]
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else None
    labels = _labels(rows)
    colors = {label: color for (label, _), color in zip(labels, cycle(COLORS), strict=False)}
    video = bool(summary.spec.get("video"))
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template.filters["sha256"] = _sha256
    template.filters["name"] = lambda uri: posixpath.basename(uri) or uri
    template.filters["clock"] = clock
    template.filters["clip"] = lambda text: text if len(text) <= _CLIP else text[:_CLIP] + "…"
    page = template.from_string(Path(__file__).with_name("report.html.j2").read_text()).render(
        summary=summary,
        spec=json.dumps(summary.spec, indent=2, ensure_ascii=False),
        cards=[] if video else _gallery(summary, stretches, colors, redact),
        films=films_of(summary, stretches, colors, redact) if video else None,
        labels=labels,
        words=_words(rows),
        speed=_speed(summary, committed),
        sampled=rows.num_rows if rows else 0,
    )
    uri = f"{summary.location}/{REPORT}"
    storage.overwrite(uri, io.BytesIO(page.encode(errors="replace")))
    return uri


def _sha256(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sample(uris: list[str]) -> tuple[list[Stretch], list[Piece]]:
    """Stretches of rows from all over the files, and when the rows of those files were done."""
    chosen = evenly_spaced(uris, _FILES)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(partial(_read, stretches=_FILES // max(1, len(chosen))), chosen))
    stretches = [stretch for found, _ in read for stretch in found]
    return stretches, [piece for _, held in read for piece in held]


def _read(uri: str, stretches: int) -> tuple[list[Stretch], list[Piece]]:
    with storage.open_binary(uri) as file:
        parquet = pq.ParquetFile(file)
        held = pieces(parquet.metadata)
        sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        shard_of = np.repeat([piece.shard for piece in held], [piece.rows for piece in held])
        found = []
        for group in evenly_spaced(range(len(sizes)), stretches):
            columns = [name for name in _COLUMNS if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_ROWS, row_groups=[group], columns=columns):
                first = sum(sizes[:group])
                shards = shard_of[first : first + batch.num_rows].tolist()
                found.append(Stretch(pa.table(batch), shards))
                break
        return found, held


def _gallery(
    summary: RunSummary,
    stretches: list[Stretch],
    colors: Mapping[str, str],
    redact: Callable[[bytes], bytes] | None,
) -> list[dict[str, Any]]:
    """Sampled inputs, each with its rows and, if it can be read now as it was then, its image."""
    good: list[tuple[int, list[dict[str, Any]]]] = []
    bad: list[tuple[int, list[dict[str, Any]]]] = []
    for stretch in stretches:
        # The last input of a stretch may be cut.
        columns = (stretch.rows[name].to_pylist() for name in ("source_uri", "id"))
        keys = list(zip(*columns, stretch.shards, strict=True))
        status = stretch.rows["status"].to_pylist()
        inputs = []
        for _, run in groupby(range(len(keys)), keys.__getitem__):
            numbers = list(run)[:_ROWS_AN_IMAGE]
            inputs.append((numbers, any(status[number] in _NOT_SHOWN for number in numbers)))
        for failed, into, wanted in ((False, good, _IMAGES), (True, bad, _ERRORS)):
            of_kind = [numbers for numbers, is_bad in inputs if is_bad == failed]
            for numbers in evenly_spaced(of_kind, -(-wanted // len(stretches))):
                into.append((stretch.shards[numbers[0]], stretch.rows.take(numbers).to_pylist()))
    bad = evenly_spaced(bad, _ERRORS if good else _IMAGES)
    good = evenly_spaced(good, _IMAGES - len(bad))
    images = [redacted(image, redact) for image in _read_images(summary, good)]
    cards = [_card(rows, image, colors) for (_, rows), image in zip(good, images, strict=True)]
    cards += [_card(rows, None, colors) for _, rows in bad]
    size = 0
    for number, card in enumerate(cards):
        size += len(repr(card))
        if size > _MAX_BYTES:
            return cards[:number]
    return cards


def _read_images(
    summary: RunSummary, inputs: list[tuple[int, list[dict[str, Any]]]]
) -> list[Input]:
    spec = AnnotateSpec.parse(summary.spec | {"read_timeout": _TIMEOUT_S})
    read = reader(spec, 1, IMAGE_PIXELS)
    with closing(ReadAhead(read, _items(summary, inputs), 16, _TIMEOUT_S)) as images:
        return list(images)


def _items(summary: RunSummary, inputs: list[tuple[int, list[dict[str, Any]]]]) -> Iterator[Item]:
    """What to read; of a tar's members the plan knows where in the tar they are."""
    items: dict[str, Item] = {}
    shards = {shard for shard, rows in inputs if "#" in rows[0]["source_uri"]}
    if shards and (plan := read_plan(summary.location)):
        with ThreadPoolExecutor(8) as pool:
            for planned in pool.map(partial(read_shard, summary.location, plan), shards):
                items |= {item.uri: item for item in planned}
    for _, rows in inputs:
        yield items.get(rows[0]["source_uri"], Item(rows[0]["source_uri"]))


def _card(
    rows: list[dict[str, Any]], image: Input | None, colors: Mapping[str, str]
) -> dict[str, Any]:
    """What the template shows of one input."""
    first = rows[0]
    missing = None
    if image is None or image.error or not image.thumbnail:
        missing = (image and image.error) or "not read"
    elif image.sha256 != first["source_sha256"]:
        missing = "has changed since the run"
    return {
        "uri": first["source_uri"],
        "id": first["id"],
        "width": first["width"],
        "height": first["height"],
        "missing": missing,
        "image": "" if missing or not image else data_uri("jpeg", image.thumbnail or b""),
        "answers": [answer(row, colors) for row in rows],
    }


def _labels(rows: pa.Table | None) -> list[tuple[str, int]]:
    """How many detections have each label, the most common first."""
    if rows is None:
        return []
    found = pc.list_flatten(rows["detections"])
    counts = pc.value_counts(pc.struct_field(found, "label")).to_pylist()
    counts.sort(key=lambda each: (-each["counts"], each["values"] or ""))
    return [(each["values"] or "", each["counts"]) for each in counts]


def _words(rows: pa.Table | None) -> list[tuple[str, int]]:
    """How many captions have how many words."""
    if rows is None:
        return []
    texts = rows.filter(pc.equal(rows["task"], "caption"))["text"].drop_null()
    counts = pc.count_substring_regex(texts, r"\S+").to_numpy()
    if not len(counts):
        return []
    width = max(1, -(-int(counts.max() + 1) // 24))
    bars = np.bincount(counts // width)
    names = (
        f"{n * width}-{(n + 1) * width - 1}" if width > 1 else str(n) for n in range(len(bars))
    )
    return list(zip(names, bars.tolist(), strict=True))


def _speed(summary: RunSummary, committed: list[Piece]) -> dict[str, Any] | None:
    """Images a second over the time in which the run's parts were done."""
    if not (rows := sum(piece.rows for piece in committed)):
        return None
    times = np.array([piece.committed.timestamp() for piece in committed])
    first = min(summary.started.timestamp(), times.min())
    seconds = times.max() - first
    if seconds <= 0:
        return None
    bins = max(1, min(48, len(committed) // 2))
    images = np.array([piece.rows for piece in committed]) * summary.inputs / rows
    done, _ = np.histogram(times, bins, (first, times.max()), weights=images)
    return {"rates": (done / (seconds / bins)).tolist(), "seconds": seconds}
