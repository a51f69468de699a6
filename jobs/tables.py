"""Tables (.parquet, .csv, .tsv, .jsonl, .ndjson; texts gzipped, too) to rows, streamed."""

import csv
import gzip
import io
import posixpath
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.jobs import storage
from paliflow.jobs.columns import Record, json_record, require
from paliflow.jobs.disguises import HEAD_BYTES, require_itself

_ROWS_AT_ONCE = 8192


class Columns(NamedTuple):
    """What is wanted of a table."""

    required: Mapping[str, str]
    """The columns that have to be there, each with the field that names it."""
    image: str
    """The one of them that holds paths."""
    lists: bool = False
    """Whether it may hold lists of them, too."""
    optional: Collection[str] = ()
    """Columns that may be there."""


def table_rows(uri: str, columns: Columns) -> Iterator[Record | ValueError]:
    """The rows in their order; a line of JSONL that is no row is a ValueError that says why.

    The columns are those of the header, or of the first line of JSONL; what a later line lacks
    is null. A CSV's row has all of its columns, a JSONL's all of its keys.

    Raises:
        SpecError: a column that is required is not there.
        ValueError: the table cannot be read.
    """
    with storage.open_binary(uri) as file:
        yield from _READERS[suffix(uri)](file, columns)


def _parquet_rows(file: BinaryIO, columns: Columns) -> Iterator[Record]:
    require_itself(_head(file))
    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    require(columns.required, schema.names)
    kind = schema.field(columns.image).type
    if not _holds_paths(kind, columns.lists):
        raise ValueError(f"image_column={columns.image!r} holds {kind}, not paths")
    wanted = {*columns.required, *columns.optional}
    present = [name for name in schema.names if name in wanted]
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=present):
        yield from batch.to_pylist()


def _holds_paths(kind: Any, lists: bool) -> bool:
    if pa.types.is_dictionary(kind) or (
        lists and (pa.types.is_list(kind) or pa.types.is_large_list(kind))
    ):
        return _holds_paths(kind.value_type, False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _csv_rows(file: BinaryIO, columns: Columns, delimiter: str = ",") -> Iterator[Record]:
    rows = csv.DictReader(_text(file), delimiter=delimiter)
    try:
        if rows.fieldnames is None:
            raise ValueError("it is empty: not even a header is there")
        require(columns.required, rows.fieldnames)
        yield from rows
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8: save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1} is not CSV: {error}") from None


def _jsonl_rows(file: BinaryIO, columns: Columns) -> Iterator[Record | ValueError]:
    required = columns.required
    for number, line in enumerate(_text(file, "surrogateescape"), start=1):
        if line.isspace():
            continue
        try:
            row = json_record(line.encode(errors="surrogateescape"), f"line {number}")
        except ValueError as error:
            yield error
            continue
        require(required, row)
        required = {}
        yield row


def _text(file: BinaryIO, errors: str = "strict") -> TextIO:
    require_itself(head := _head(file))
    if b"\0" in head:
        raise ValueError("it holds zero bytes, as UTF-16 does: save it as UTF-8")
    return io.TextIOWrapper(file, "utf-8-sig", errors, newline="")


def _head(file: BinaryIO) -> bytes:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


_Reader = Callable[[BinaryIO, Columns], Iterator[Record | ValueError]]


def _unzipped(read: _Reader, file: BinaryIO, columns: Columns) -> Iterator[Record | ValueError]:
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield from read(unzipped, columns)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"it is not gzip, or breaks off: {error}") from None


_TEXTS: dict[str, _Reader] = {
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
}
_READERS: dict[str, _Reader] = {
    ".parquet": _parquet_rows,
    **_TEXTS,
    **{f"{name}.gz": partial(_unzipped, read) for name, read in _TEXTS.items()},
}
TABLE_SUFFIXES = tuple(_READERS)


def suffix(uri: str) -> str:
    """What a name ends in, in lower case, with what it was compressed from: `.jsonl.gz`."""
    stem, last = posixpath.splitext(uri.lower())
    return posixpath.splitext(stem)[1] + last if last == ".gz" else last


def resolve(path: str, folder: str) -> str:
    """A path that is relative to a folder; an empty one, or one of another scheme, as it is."""
    if not path or "://" in path:
        return path
    scheme, slashes, root = folder.rpartition("://")
    if path.startswith("/"):
        scheme = slashes = ""
    return scheme + slashes + posixpath.normpath(posixpath.join(root, path))
