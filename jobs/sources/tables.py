"""Tables (.parquet, .csv, .tsv, .jsonl, .ndjson; texts gzipped, too) to rows, streamed."""

import csv
import gzip
import io
import posixpath
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.jobs.media.disguises import HEAD_BYTES, require_itself
from paliflow.jobs.runs.json_records import json_record
from paliflow.jobs.sources.columns import CELL, Record, require

RECORD = 2**22
"""Characters of a line of JSONL, of a row of CSV, of a sample's JSON; one is held at a time."""
_ROWS_AT_ONCE = 8192
_BYTES_AT_ONCE = 2**25


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
        ValueError: the table cannot be read, or a cell or a row of it is too large.
    """
    with storage.open_binary(uri) as file:
        try:
            yield from _READERS[suffix(uri)](file, columns)
        except (pa.ArrowException, RecursionError, OverflowError) as error:
            raise ValueError(str(error)) from None


def _parquet_rows(file: BinaryIO, columns: Columns) -> Iterator[Record]:
    require_itself(_head(file))
    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    require(columns.required, schema.names)
    present = _once(schema.names, columns)
    kind = schema.field(columns.image).type
    if not _holds_paths(kind, columns.lists):
        raise ValueError(f"image_column={columns.image!r} holds {kind}, not paths")
    for group in range(table.num_row_groups):
        rows = _rows_at_once(file, table, group, present)
        for batch in table.iter_batches(rows, row_groups=[group], columns=present):
            for name, column in zip(present, batch.columns, strict=True):
                if (size := _longest(column)) > CELL:
                    raise ValueError(f"column {name!r} {_too_long(size)}")
            yield from batch.to_pylist()


def _once(names: Sequence[str], columns: Columns) -> list[str]:
    """Those of a table's columns that are wanted.

    Raises:
        ValueError: two of them have one name.
    """
    wanted = {*columns.required, *columns.optional}
    present = [name for name in names if name in wanted]
    for name, count in Counter(present).items():
        if count > 1:
            raise ValueError(f"{count} columns are called {name!r}; which is meant?")
    return present


def _rows_at_once(file: BinaryIO, table: pq.ParquetFile, group: int, present: list[str]) -> int:
    """How many of a group's rows fit in memory, which need not be many in a small file.

    A text that is in a column's dictionary once may be in every row, so that its length counts in
    each.

    Raises:
        ValueError: a text in a dictionary is too long for a cell.
    """
    about = table.metadata.row_group(group)
    leaves = [about.column(number) for number in range(about.num_columns)]
    prefixes = tuple(f"{name}." for name in present)
    leaves = [leaf for leaf in leaves if f"{leaf.path_in_schema}.".startswith(prefixes)]
    texts = [leaf.path_in_schema for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    coded = pq.ParquetFile(file, metadata=table.metadata, read_dictionary=texts)
    total = 0
    for leaf in leaves:
        longest = 0
        if leaf.path_in_schema in texts and leaf.has_dictionary_page:
            longest = _longest_in_dictionary(coded, group, leaf.path_in_schema)
        if longest > CELL:
            raise ValueError(f"column {leaf.path_in_schema!r} {_too_long(longest)}")
        total += leaf.total_uncompressed_size + leaf.num_values * (8 + longest)
    fit: int = _BYTES_AT_ONCE * about.num_rows // max(1, total)
    return max(1, min(_ROWS_AT_ONCE, fit))


def _longest_in_dictionary(coded: pq.ParquetFile, group: int, column: str) -> int:
    """All of a dictionary comes with the first of its values that is read."""
    for batch in coded.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
        if longest := _longest(batch.column(0)):
            return longest
    return 0


def _too_long(size: int) -> str:
    return f"holds a text of {size} bytes; a cell holds {CELL} at most"


def _longest(column: Any) -> int:
    """The bytes of the longest text in a column, those of its dictionary included."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _longest(column.dictionary)
    if pa.types.is_nested(kind):
        inner = column.flatten()
        return max(map(_longest, inner if isinstance(inner, list) else [inner]), default=0)
    if pa.types.is_string_view(kind):
        column = column.cast(pa.large_string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return 0
    size: int | None = pc.max(pc.binary_length(column)).as_py()
    return size or 0


def _holds_paths(kind: Any, lists: bool) -> bool:
    if pa.types.is_dictionary(kind) or (
        lists
        and (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
    ):
        return _holds_paths(kind.value_type, False)
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(holds(kind) for holds in is_text)


def _csv_rows(file: BinaryIO, columns: Columns, delimiter: str = ",") -> Iterator[Record]:
    lines = _Lines(_text(file))
    rows = csv.DictReader(lines, delimiter=delimiter)
    try:
        if rows.fieldnames is None:
            raise ValueError("it is empty: not even a header is there")
        require(columns.required, rows.fieldnames)
        _once(rows.fieldnames, columns)
        for row in rows:
            yield row
            lines.left = RECORD
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8: save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num + 1} is not CSV: {error}") from None


def _jsonl_rows(file: BinaryIO, columns: Columns) -> Iterator[Record | ValueError]:
    required = columns.required
    lines = _Lines(_text(file, "surrogateescape"))
    for number, line in enumerate(lines, start=1):
        lines.left = RECORD
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


class _Lines:
    """The lines of a text, of which no more than `left` characters are taken."""

    def __init__(self, text: TextIO) -> None:
        self._text, self.left = text, RECORD

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(self.left + 1):
            self.left -= len(line)
            if self.left < 0:
                raise ValueError(f"a row has more than {RECORD} characters")
            yield line


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
