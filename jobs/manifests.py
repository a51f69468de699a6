"""Manifests (.parquet, .csv, .jsonl) to items, one a row, streamed."""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.configs import AnnotateSpec
from paliflow.jobs import storage
from paliflow.jobs.columns import Record, describe, json_record, named_columns, require, text
from paliflow.jobs.plan import Item


def manifest_items(manifest: storage.Entry, spec: AnnotateSpec) -> Iterator[Item]:
    """The rows in their order; one whose image is null or empty has the uri "".

    The columns are those of the header, or of the first line of JSONL; what a later line lacks
    is null.

    Raises:
        SpecError: a column that the spec names is not there.
        ValueError: the manifest cannot be read.
    """
    image = spec.image_column
    named = named_columns(spec) | {image: f"image_column={image!r}"}
    rows = _ROWS[posixpath.splitext(manifest.uri)[1].lower()]
    folder = posixpath.dirname(manifest.uri)
    with storage.open_binary(manifest.uri) as file:
        for row in rows(file, named, image):
            yield describe(Item(_resolve(text(row, image), folder)), row, spec)


def _parquet_rows(file: BinaryIO, named: Mapping[str, str], image: str) -> Iterator[Record]:
    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    require(named, schema.names)
    kind = schema.field(image).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"image_column={image!r} holds {kind}, not paths")
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=list(named)):
        yield from batch.to_pylist()


_ROWS_AT_ONCE = 8192


def _csv_rows(file: BinaryIO, named: Mapping[str, str], image: str) -> Iterator[Record]:
    rows = csv.DictReader(_text(file))
    try:
        require(named, rows.fieldnames or [])
        yield from rows
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1} is not CSV: {error}") from None


def _jsonl_rows(file: BinaryIO, named: Mapping[str, str], image: str) -> Iterator[Record]:
    required: Mapping[str, str] = named
    for number, line in enumerate(_text(file), start=1):
        if not line.isspace():
            row = json_record(line, f"line {number}")
            require(required, row)
            required = {}
            yield row


def _text(file: BinaryIO) -> TextIO:
    return io.TextIOWrapper(file, "utf-8-sig", newline="")


_ROWS = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows}
MANIFEST_SUFFIXES = tuple(_ROWS)


def _resolve(path: str, folder: str) -> str:
    """An empty path and one of another scheme stay as they are, to become error rows."""
    if not path or "://" in path:
        return path
    scheme, slashes, root = folder.rpartition("://")
    if path.startswith("/"):
        scheme = slashes = ""
    return scheme + slashes + posixpath.normpath(posixpath.join(root, path))
