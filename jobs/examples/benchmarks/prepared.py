"""Folders that TensorFlow Datasets has prepared, read without TensorFlow: records of a split."""

import posixpath
from collections.abc import Iterator
from typing import Any, Literal

import google_crc32c
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from paliflow import storage
from paliflow.configs.base import causes, explain
from paliflow.jobs.media.pixels import MAX_BYTES
from paliflow.jobs.media.places import (
    bytes_place,
    count_records,
    naming_what_is_broken,
    read_records,
    row_place,
)
from paliflow.jobs.media.tf_example import Value, features

_SPLIT, _IMAGE = "#split=", "#image="
_INFO = "dataset_info.json"
_LIMIT = 2**26
"""Bytes of the file that describes a folder."""
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_BLOCK = 64
_DATA = "data"
"""The only column of a Parquet file of TFDS."""


def find_prepared(folders: tuple[str, ...], name: str, split: str, image: str) -> str | None:
    """The URI of a split's records, which `prepared_records` reads.

    Args:
        folders: where the data set's own folder may be.
        name: of that; of several versions below it the newest counts.
        split: as TFDS calls it.
        image: the feature that is the image.

    Returns:
        None if there is no such folder, or it has no such split.
    """
    for folder in folders:
        found = [entry.uri for entry in storage.match(f"{folder}/{name}/*/{_INFO}")]
        for info in sorted(found, key=_version, reverse=True):
            if any(own.name == split for own in _described(info).splits):
                return f"{posixpath.dirname(info)}{_SPLIT}{split}{_IMAGE}{image}"
    return None


def is_prepared(uri: str) -> bool:
    """Whether a URI is one that `find_prepared` has found."""
    return _SPLIT in uri


def prepared_records(uri: str) -> Iterator[dict[str, list[Any]]]:
    """The records of a split in order: each feature's values by its name, texts as text, and of the
    image where it lies.

    Args:
        uri: from `find_prepared`.

    Raises:
        ValueError: a file is broken, or has fewer or more records than the folder says.
        OSError: it cannot be read.
    """
    folder, _, rest = uri.partition(_SPLIT)
    split, _, image = rest.partition(_IMAGE)
    info = _described(f"{folder}/{_INFO}")
    own = next(own for own in info.splits if own.name == split)
    for shard, length in enumerate(own.shards):
        name = own.template or _TEMPLATE
        for field, value in {
            "{DATASET}": info.name,
            "{SPLIT}": split,
            "{FILEFORMAT}": info.kind,
            "{SHARD_X_OF_Y}": f"{shard:05d}-of-{len(own.shards):05d}",
        }.items():
            name = name.replace(field, value)
        count = 0
        for record in _READERS[info.kind](f"{folder}/{posixpath.basename(name)}", image):
            count += 1
            yield record
        if count != length:
            raise ValueError(f"{posixpath.basename(name)} has {count} records, and not {length}")


class _Split(BaseModel):
    name: str
    shards: tuple[NonNegativeInt, ...] = Field((), alias="shardLengths")
    """Records of each."""
    template: str = Field(_TEMPLATE, alias="filepathTemplate")


class _Info(BaseModel):
    """What is read of the file that describes a folder."""

    name: str = ""
    kind: Literal["tfrecord", "array_record", "parquet"] = Field("tfrecord", alias="fileFormat")
    splits: tuple[_Split, ...] = ()


def _described(info: str) -> _Info:
    """
    Raises:
        ValueError: the file is not in the form that TFDS writes.
        OSError: it cannot be read.
    """
    try:
        return _Info.model_validate_json(storage.read_bytes(info, limit=_LIMIT))
    except ValidationError as error:
        said = "; ".join(explain(_Info, detail) for detail in causes(error))
        folder = "/".join(info.split("/")[-3:])
        raise ValueError(f"{folder} is broken: {said}") from None


def _version(info: str) -> list[int]:
    parts = info.split("/")[-2].split(".")
    return [int(part) if part.isdecimal() else 0 for part in parts]


def _tfrecords(file: str, image: str) -> Iterator[dict[str, list[Any]]]:
    """Lengths and records with their checksums, which are compared.

    Source: https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """
    at = 0
    with storage.open_binary(file) as content:
        while head := content.read(12):
            size = int.from_bytes(head[:8], "little")
            _compare(file, head[:8], head[8:])
            if size > MAX_BYTES:
                raise ValueError(f"{posixpath.basename(file)} has a record of {size} bytes")
            record = content.read(size)
            _compare(file, record, content.read(4), size)
            own = features(record)
            place = _spans(own, image)
            yield _told(record, own, image) | {
                image: [bytes_place(file, at + 12 + start, stop - start) for start, stop in place]
            }
            at += 16 + size


def _compare(file: str, data: bytes, checksum: bytes, size: int | None = None) -> None:
    """
    Raises:
        ValueError: some bytes are not those that were written.
    """
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    whole = size is None or len(data) == size
    if not whole or len(checksum) != 4 or int.from_bytes(checksum, "little") != masked:
        raise ValueError(f"{posixpath.basename(file)} breaks off or is broken")


def _array_records(file: str, image: str) -> Iterator[dict[str, list[Any]]]:
    count = count_records(file)
    for start in range(0, count, _BLOCK):
        rows = range(start, min(start + _BLOCK, count))
        for row, record in zip(rows, read_records(file, rows), strict=True):
            yield _with_row(file, row, record, image)


def _parquet_rows(file: str, image: str) -> Iterator[dict[str, list[Any]]]:
    row = 0
    with storage.open_binary(file) as content, naming_what_is_broken(file):
        known = pq.ParquetFile(content)
        if _DATA not in known.schema_arrow.names:
            raise ValueError(f"{posixpath.basename(file)} has no column {_DATA!r}")
        for batch in known.iter_batches(_BLOCK, columns=[_DATA]):
            for record in batch.column(0).to_pylist():
                yield _with_row(file, row, record, image)
                row += 1


def _with_row(file: str, row: int, record: bytes, image: str) -> dict[str, list[Any]]:
    own = features(record)
    places = [row_place(file, row, f"{_DATA}/{image}")] if _spans(own, image) else []
    return _told(record, own, image) | {image: places}


def _spans(own: dict[str, list[Value]], image: str) -> list[tuple[int, int]]:
    return [value for value in own.get(image, ()) if isinstance(value, tuple)]


def _told(record: bytes, own: dict[str, list[Value]], image: str) -> dict[str, list[Any]]:
    """The features but the image; bytes that are no text are left out."""
    told: dict[str, list[Any]] = {}
    for name, values in own.items():
        if name == image:
            continue
        try:
            told[name] = [
                record[slice(*value)].decode() if isinstance(value, tuple) else value
                for value in values
            ]
        except UnicodeDecodeError:
            continue
    return told


_READERS = {"tfrecord": _tfrecords, "array_record": _array_records, "parquet": _parquet_rows}
