"""Images inside other files: entries of zips, cells of Parquet files, records of ArrayRecord."""

import errno
import posixpath
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.jobs.media.tf_example import features
from paliflow.jobs.runs.item import Item

_PLACE = re.compile(r"(.+)#place=([0-9]{1,18})(?:\+([0-9]{1,18})|/(.+))", re.DOTALL)
_LOCAL_HEADER = 30
_ENCRYPTED, _STORED, _DEFLATED = 1, 0, 8


def bytes_place(file: str, offset: int, size: int) -> str:
    """The URI of so many bytes of a file; of a zip, of the entry that begins there and has so many
    bytes as it is packed."""
    return f"{file}#place={offset}+{size}"


def row_place(file: str, row: int, column: str) -> str:
    """The URI of a cell of a Parquet file, or of a feature of a record of an ArrayRecord file.

    Args:
        file: its URI.
        row: from 0.
        column: by its path, e.g. `image.bytes`; of a `tf.train.Example` also which feature of it,
            e.g. `data/image`; `data` of a record.
    """
    return f"{file}#place={row}/{column}"


def is_place(uri: str) -> bool:
    """Whether a URI is of these kinds, which nobody but Paliflow's readers may say."""
    return "#place=" in uri


def place_item(uri: str, roots: tuple[str, ...] | None, edit: str | None) -> Item | None:
    """How to read what lies at such a URI; None if it is another."""
    found = _PLACE.fullmatch(uri)
    if not found:
        return None
    size = int(found[3]) if found[3] else None
    return Item(uri, archive=found[1], offset=int(found[2]), size=size, roots=roots, edit=edit)


def frame_item(item: Item, uri: str) -> Item:
    """How to read one of an item's `frames`.

    They may lie at places where the item has an `archive`, which no manifest can say.
    """
    place = place_item(uri, item.roots, None) if item.archive else None
    return place or Item(uri, roots=item.roots)


def read_place(item: Item, file: str, limit: int) -> bytes:
    """The bytes of an item in an archive.

    Args:
        item: with `archive` and `offset`.
        file: what to open in place of the archive.
        limit: of bytes.

    Raises:
        OSError: they cannot be read, or are too many.
        ValueError: the file is not of the kind that its name says, or has no such place.
    """
    offset = item.offset or 0
    if item.size is None:
        found = _PLACE.fullmatch(item.uri)
        if not found or not found[4]:
            raise ValueError("the place in its file is none")
        data = _cell(file, offset, found[4])
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes")
        return data
    if file.lower().endswith(".zip"):
        return _zip_entry(file, offset, item.size, limit)
    data = storage.read_bytes(file, offset, item.size, limit=limit)
    if len(data) != item.size:
        raise OSError(errno.EIO, "the archive ends before it")
    return data


def _zip_entry(file: str, offset: int, size: int, limit: int) -> bytes:
    """An entry of a zip, stored or deflated, its checksum compared where its header has one."""
    head = storage.read_bytes(file, offset, _LOCAL_HEADER)
    if len(head) < _LOCAL_HEADER or not head.startswith(b"PK\3\4"):
        raise ValueError("no entry of the zip begins there")
    flags, method, crc = (
        int.from_bytes(head[a:b], "little") for a, b in ((6, 8), (8, 10), (14, 18))
    )
    if flags & _ENCRYPTED:
        raise ValueError("the zip's entry is encrypted")
    start = sum(int.from_bytes(head[a : a + 2], "little") for a in (26, 28)) + _LOCAL_HEADER
    packed = storage.read_bytes(file, offset + start, size, limit=limit)
    if len(packed) != size:
        raise OSError(errno.EIO, "the archive ends before it")
    if method == _STORED:
        data = packed
    elif method == _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit + 1)
        except zlib.error:
            raise ValueError("the zip's entry is broken") from None
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes")
    else:
        raise ValueError(f"the zip's entry is packed by method {method}: unpack the zip")
    if crc and zlib.crc32(data) != crc:
        raise ValueError("the zip's entry is broken")
    return data


def _cell(file: str, row: int, column: str) -> bytes:
    value: Any
    feature = column.partition("/")[2]
    if ".parquet" in posixpath.basename(file):
        path = column.removesuffix(f"/{feature}")
        group, first = _row_group(file, row)
        with _LOADING:
            cells = _column(file, group, path)
        value = cells[row - first].as_py()
        for field in path.split(".")[1:]:
            value = value and value[field]
    else:
        (value,) = read_records(file, [row])
    if feature and isinstance(value, bytes):
        own = features(value).get(feature)
        value = value[slice(*own[0])] if own and isinstance(own[0], tuple) else None
    if not isinstance(value, bytes):
        raise ValueError("there is no image in the row")
    return value


@lru_cache(4)
def _edges(file: str) -> tuple[int, ...]:
    """Where each row group of a Parquet file begins, and where the last one ends."""
    with storage.open_binary(file) as content, naming_what_is_broken(file):
        known = pq.read_metadata(content)
    edges = [0]
    for group in range(known.num_row_groups):
        edges.append(edges[-1] + known.row_group(group).num_rows)
    return tuple(edges)


def _row_group(file: str, row: int) -> tuple[int, int]:
    edges = _edges(file)
    if row >= edges[-1]:
        raise ValueError("the file has fewer rows")
    group = next(n for n, edge in enumerate(edges[1:]) if row < edge)
    return group, edges[group]


_LOADING = threading.Lock()
"""Held to ask for a row group: a cache does not keep several threads from loading the same one."""


@lru_cache(2)  # images are asked one after the other, by threads that may be in neighbouring groups
def _column(file: str, group: int, column: str) -> pa.ChunkedArray:
    with storage.open_binary(file) as content, naming_what_is_broken(file):
        table = pq.ParquetFile(content).read_row_group(group, columns=[column])
    if not table.num_columns:
        raise ValueError(f"the file has no column {column!r}")
    return table.column(0)


@contextmanager
def naming_what_is_broken(file: str) -> Iterator[None]:
    """What Arrow or ArrayRecord raises of a broken file becomes an error that names the file.

    Raises:
        ValueError: the file is broken, or packed as nobody here can unpack.
    """
    name = posixpath.basename(file)
    try:
        yield
    except (pa.ArrowException, RuntimeError) as error:
        raise ValueError(f"{name} is broken: {error}") from None
    except OSError as error:
        if error.errno is not None:  # a storage's
            raise
        raise ValueError(f"{name} is broken: {error}") from None


def read_records(file: str, rows: Sequence[int]) -> list[bytes]:
    """Records of an ArrayRecord file, by their numbers from 0.

    Raises:
        ValueError: the file is remote or broken, or has no such records.
    """
    known = _array_record(file)
    with naming_what_is_broken(file):
        found: list[bytes] = known.read(list(rows))
    return found


def count_records(file: str) -> int:
    """How many records an ArrayRecord file has.

    Raises:
        ValueError: it is remote or broken.
    """
    count: int = _array_record(file).num_records()
    return count


@lru_cache(4)
def _array_record(file: str) -> Any:
    """The reader of an ArrayRecord file, which is open as long as it is remembered."""
    # It is installed with grain, and takes a while to import.
    from array_record.python.array_record_module import ArrayRecordReader

    if "://" in file:
        raise ValueError("ArrayRecord files are read from a local disk only: copy them there")
    with naming_what_is_broken(file):
        return ArrayRecordReader(file)
