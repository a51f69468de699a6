"""The files of a benchmark on storage: where they lie, and their records."""

import bz2
import csv
import gzip
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

from paliflow import storage
from paliflow.configs.benchmark import Prepared
from paliflow.jobs.examples.benchmarks.archives import Archives, open_file
from paliflow.jobs.examples.benchmarks.prepared import (
    find_prepared,
    is_prepared,
    prepared_records,
)
from paliflow.jobs.examples.benchmarks.templates import fill, static_folder

Record = dict[str, Any]
_OPENED: Mapping[str, Callable[[BinaryIO], Any]] = {
    ".bz2": bz2.BZ2File,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
}


class Data:
    """The folder of a user's benchmarks, in which each may have a folder of its own name."""

    def __init__(self, folder: str, benchmark: str) -> None:
        self.folder = storage.absolute(folder)
        self._roots = (f"{self.folder}/{benchmark}", self.folder)
        self._listed: dict[str, dict[str, str]] = {}
        self._archives = Archives(self._roots)

    @property
    def broken(self) -> Sequence[str]:
        """The archives there that are broken: see `Archives`."""
        return self._archives.broken

    def find(self, paths: Iterable[str]) -> str | None:
        """The URI of the first of these paths at which there is a file, or of which a zip or tar in
        the folder has one; `open_file` opens it."""
        paths = list(paths)
        for path in paths:
            for root in self._roots:
                if storage.is_file(uri := f"{root}/{path}"):
                    return uri
        return next(filter(None, map(self._archives.find_file, paths)), None)

    def find_folder(self, path: str) -> str | None:
        """The URI of the folder at this path in which there are files."""
        uris = (f"{root}/{path}" for root in self._roots)
        return next((uri for uri in uris if _has_files(uri)), None)

    def find_prepared(self, how: Prepared, values: Mapping[str, str]) -> str | None:
        """The URI of the records that TFDS has prepared of what templates mean; None without."""
        split = fill(how.splits.get(values["split"], how.split), values)
        names = [how.name] if isinstance(how.name, str) else how.name
        found = (find_prepared(self._roots, fill(each, values), split, how.image) for each in names)
        return next(filter(None, found), None)

    def images(self, template: str) -> str:
        """A template of paths as one of URIs: below the root that has its first folders."""
        folder = static_folder(template)
        root = next((root for root in self._roots if _has_files(f"{root}/{folder}")), self.folder)
        return f"{root.replace('{', '{{').replace('}', '}}')}/{template}"

    def image(self, uri: str) -> str:
        """Where the image or video of a filled template lies: in a zip or tar if it is in one; of
        one that ends in `.*` with the suffix of the file that is there."""
        for root in self._roots:
            if uri.startswith(f"{root}/"):
                path = uri.removeprefix(f"{root}/")
                archives = self._archives
                if place := (
                    archives.find_any(path[:-2]) if path.endswith(".*") else archives.find(path)
                ):
                    return place
        if not uri.endswith(".*"):
            return uri
        folder, stem = posixpath.split(uri[:-2])
        if folder not in self._listed:
            names = (entry.uri.removeprefix(f"{folder}/") for entry in _files_in(folder))
            self._listed[folder] = {posixpath.splitext(name)[0]: name for name in sorted(names)}
        return f"{folder}/{self._listed[folder].get(stem, stem)}"


def records(
    uri: str, at: str = "", *, lines: bool = False, containing: str = ""
) -> Iterator[Record]:
    """The records of a file, by its suffix: JSON, lines of JSON, CSV or TSV, .gz and .bz2 of them.

    Args:
        uri: the file.
        at: where in JSON the list of records is. An object of records gives each its key as `key`.
        lines: whether a file of JSON is one of lines.
        containing: of lines of JSON, only those with this text in them are parsed.

    Raises:
        ValueError: the file is not of the form that its suffix says, or holds no such list.
        OSError: it cannot be read.
    """
    if is_prepared(uri):
        yield from prepared_records(uri)
        return
    stem, suffix = posixpath.splitext(uri.lower())
    opened = _OPENED.get(suffix)
    kind = posixpath.splitext(stem)[1] if opened else suffix
    kind = ".jsonl" if lines else kind
    read = _READERS.get(kind)
    if not read:
        raise ValueError(f"records are read from {', '.join(_READERS)}, not from {kind or uri!r}")
    with open_file(uri) as file:
        try:
            content = opened(file) if opened else file
            yield from read(content, containing if kind in _LINES else at)
        except (EOFError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
            raise ValueError(f"{posixpath.basename(uri)} is broken: {error}") from None
        except RecursionError:
            raise ValueError(f"{posixpath.basename(uri)} is nested too deep") from None


def text_lines(uri: str) -> Iterator[str]:
    """The lines of a text that are not blank, without the space around them."""
    with open_file(uri) as file:
        yield from filter(None, map(str.strip, io.TextIOWrapper(file, "utf-8-sig")))


def _json(file: BinaryIO, at: str) -> Iterator[Record]:
    found = json.load(io.TextIOWrapper(file, "utf-8-sig"))
    for field in filter(None, at.split(".")):
        found = found.get(field) if isinstance(found, dict) else None
    if isinstance(found, dict):
        for key, record in found.items():
            if isinstance(record, dict):
                yield {"key": key, **record}
            else:
                yield {"key": key, "value": record}
    elif isinstance(found, list):
        for record in found:
            yield record if isinstance(record, dict) else {"value": record}
    else:
        raise ValueError(f"no list of records at {at!r}" if at else "it is no list of records")


def _json_lines(file: BinaryIO, containing: str) -> Iterator[Record]:
    for line in io.TextIOWrapper(file, "utf-8-sig", newline="\n"):
        if line.strip() and containing in line:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("a line is not a JSON object")
            yield record


def _table(file: BinaryIO, at: str, delimiter: str = ",") -> Iterator[Record]:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    yield from csv.DictReader(text, delimiter=delimiter)


_LINES = (".jsonl", ".jsonlines")
_READERS: Mapping[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".jsonlines": _json_lines,
    ".csv": _table,
    ".tsv": partial(_table, delimiter="\t"),
}


def _has_files(folder: str) -> bool:
    return next(_files_in(folder), None) is not None


def _files_in(folder: str) -> Iterator[storage.Entry]:
    try:
        yield from storage.list_files(folder)
    except OSError:
        return
