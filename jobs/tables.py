"""Tables (.parquet, .csv, .jsonl) to rows, streamed."""

import csv
import io
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow.jobs import storage
from paliflow.jobs.columns import Record, json_record, require

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
        yield from _READERS[posixpath.splitext(uri)[1].lower()](file, columns)


def _parquet_rows(file: BinaryIO, columns: Columns) -> Iterator[Record]:
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


def _csv_rows(file: BinaryIO, columns: Columns) -> Iterator[Record]:
    rows = csv.DictReader(_text(file))
    try:
        require(columns.required, rows.fieldnames or [])
        yield from rows
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
    return io.TextIOWrapper(file, "utf-8-sig", errors, newline="")


_READERS: dict[str, Callable[[BinaryIO, Columns], Iterator[Record | ValueError]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
}
TABLE_SUFFIXES = tuple(_READERS)


def resolve(path: str, folder: str) -> str:
    """A path that is relative to a folder; an empty one, or one of another scheme, as it is."""
    if not path or "://" in path:
        return path
    scheme, slashes, root = folder.rpartition("://")
    if path.startswith("/"):
        scheme = slashes = ""
    return scheme + slashes + posixpath.normpath(posixpath.join(root, path))
