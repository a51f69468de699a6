"""WebDataset tars to items: their images, with the columns of the JSON beside each."""

import io
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, BinaryIO

from paliflow import storage
from paliflow.configs.annotate import SourceSpec
from paliflow.configs.base import brief
from paliflow.jobs.media.disguises import require_itself
from paliflow.jobs.runs.json_records import json_record
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.columns import CELL, describe, named_columns, require
from paliflow.jobs.sources.listing import Choice
from paliflow.jobs.sources.tables import RECORD
from paliflow.model.images import HEAD_BYTES

_READ_AHEAD = 2**23
"""Bytes a request: members of 100 kB are read over faster than they are jumped over."""


def tar_items(tar: storage.Entry, spec: SourceSpec, choice: Choice) -> Iterator[Item]:
    """The images of a tar in its order, each to be read from its place there.

    Members that are neighbours and share a key (the path up to the first dot of the name) are a
    sample: the keys of `<key>.json` are the columns of its images, and null where that does not
    say them. The id is the sample's key unless the spec has an `id_column`.

    Where the tar breaks off or its headers make no sense any more, what follows is one last item,
    `<tar>#`, that no one can read.

    Args:
        tar: uncompressed.
        spec: what is asked.
        choice: which members are images.

    Raises:
        SpecError: a column that the spec names is not in the first image's sample.
        ValueError: it is no tar, or a sample's JSON cannot be read.
    """
    named = required = named_columns(spec)
    with _opened(tar.uri) as file:
        # Without columns nothing need wait for the other members of its sample.
        sample = _key if named else str
        for _, members in groupby(tar_members(file), lambda member: sample(member.name)):
            images, record = [], {}
            for member in members:
                if named and member.name == f"{_key(member.name)}.json":
                    record = _record(file, member)
                elif not member.name or choice.takes(member.name, partial(_head, file, member)):
                    images.append(member)
            for member in images:
                place = (tar.uri, member.offset_data, member.size, tar.version)
                item = Item(f"{tar.uri}#{member.name}", *place, id=_key(member.name) or None)
                if member.name:
                    require(required, record)
                    required = {}
                yield describe(item, record, spec)


@contextmanager
def _opened(uri: str) -> Iterator[BinaryIO]:
    with storage.open_binary(uri) as file:
        require_itself(file.read(HEAD_BYTES))
        file.seek(0)
        yield io.BufferedReader(file, _READ_AHEAD) if "://" in uri else file  # type: ignore[type-var]


def tar_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The headers but those of folders; one without a name stands for where they break off."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar:
            while member := tar.next():
                if tar.offset <= end or member.size < 0 or len(member.name) > CELL:
                    raise tarfile.ReadError("the headers do not go forward")
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined] # would hold every header
                if member.name and not member.isdir():
                    yield member
            file.seek(end)
            if not any(file.read(tarfile.BLOCKSIZE) or b"\1"):
                return
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        pass
    broken = tarfile.TarInfo("")
    broken.offset_data, broken.size = file.seek(0, io.SEEK_END), tarfile.BLOCKSIZE
    yield broken


def _head(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(min(member.size, HEAD_BYTES))


def _key(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _record(file: BinaryIO, member: tarfile.TarInfo) -> dict[str, Any]:
    """A member's JSON object; empty if the tar breaks off within it."""
    if member.size > RECORD:
        raise ValueError(f"{brief(member.name)!r} has more than {RECORD} bytes")
    file.seek(member.offset_data)
    content = file.read(member.size)
    return json_record(content, repr(brief(member.name))) if len(content) == member.size else {}
