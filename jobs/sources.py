"""What a spec's `input` stands for: the URIs of its images, streamed in a fixed order."""

import csv
import glob
import io
import itertools
import json
import posixpath
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.configs.base import SpecError
from paliflow.jobs import storage

# fmt: off
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)
# fmt: on
"""Of the files that are inputs when a folder is given; a glob or a manifest names its own."""


def image_uris(source: str, image_column: str) -> Iterator[str]:
    """The absolute paths or `gs://` URIs of the images that `source` stands for.

    - a manifest (.parquet, .csv, .jsonl): one path a row, in the order of the rows; relative
      paths are relative to the manifest, and a row without a path gives "".
    - any other file: itself.
    - a folder: the files below it whose names end like an image's, in the order of their names.
    - a glob: the files it matches, whatever they are called, in the order of their names.

    Raises:
        SpecError: there is no such input, or the manifest lacks the column or cannot be read.
    """
    try:
        uri = storage.absolute(source)
        if storage.is_file(uri):
            is_manifest = _suffix(uri) in _COLUMN_READERS
            yield from _manifest_uris(uri, image_column) if is_manifest else [uri]
            return
        inside = (path for path in storage.list_files(uri) if _suffix(path) in IMAGE_SUFFIXES)
        found = storage.match(uri) if _is_glob(uri) else inside
        first = next(found, None)
    except (OSError, ValueError) as error:
        raise SpecError(f"input={source!r}: {error}") from error
    if first is None:
        raise SpecError(
            f"input={source!r}: no images there; a folder's images are its files that end in "
            f"{' '.join(IMAGE_SUFFIXES)}, a glob or a manifest may name any file"
        )
    yield from itertools.chain([first], found)


def _is_glob(uri: str) -> bool:
    # A folder may well be called "photos [2019]".
    return glob.has_magic(uri) and not Path(uri).is_dir()


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower()


def _manifest_uris(uri: str, column: str) -> Iterator[str]:
    folder = posixpath.dirname(uri)
    try:
        with storage.open_binary(uri) as file:
            for value in _COLUMN_READERS[_suffix(uri)](file, column):
                yield _resolve(str(value or ""), folder)
    except (OSError, ValueError, csv.Error) as error:
        raise SpecError(f"input={uri!r}, image_column={column!r}: {error}") from error


def _parquet_column(file: BinaryIO, column: str) -> Iterator[Any]:
    table = pq.ParquetFile(file)
    _require(column, table.schema_arrow.names)
    kind = table.schema_arrow.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"the column holds {kind}, not paths")
    for batch in table.iter_batches(columns=[column]):
        yield from batch.column(0).to_pylist()


def _csv_column(file: BinaryIO, column: str) -> Iterator[Any]:
    rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
    _require(column, rows.fieldnames or [])
    return (row[column] for row in rows)


def _jsonl_column(file: BinaryIO, column: str) -> Iterator[Any]:
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            _require(column, row)
            yield row[column]


_COLUMN_READERS = {".parquet": _parquet_column, ".csv": _csv_column, ".jsonl": _jsonl_column}


def _require(column: str, columns: Collection[str]) -> None:
    if column not in columns:
        raise ValueError(f"no such column; there are {', '.join(columns) or 'none'}")


def _resolve(path: str, folder: str) -> str:
    """An empty path and one of another scheme stay as they are, to become error rows."""
    if not path or "://" in path:
        return path
    scheme, slashes, root = folder.rpartition("://")
    if path.startswith("/"):
        scheme = slashes = ""
    return scheme + slashes + posixpath.normpath(posixpath.join(root, path))
