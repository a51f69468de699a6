"""Zips and tars of a benchmark's data folder, read in place: which files they hold, and where."""

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import BinaryIO

from paliflow import storage
from paliflow.jobs.media.places import bytes_place, place_item
from paliflow.jobs.runs.item import Item
from paliflow.jobs.sources.tars import tar_members

_MEMBER = "#member="


class Archives:
    """The `.zip` and `.tar` files that lie in some folders; compressed tars are none of them.

    What an archive holds is found by its path there, and also by that below a folder of the
    archive's name, where it was packed without one. Of two with the same path the first counts.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(folders)
        self._broken: list[str] = []
        self._places: dict[str, str] | None = None
        self._stems: dict[str, str] | None = None

    def find(self, path: str) -> str | None:
        """Where the file of a path lies in an archive, as the URI of an image; None if in none."""
        return self._known().get(path)

    def find_any(self, path: str) -> str | None:
        """As `find`, of a path without the suffix that the file has."""
        if self._stems is None:
            self._stems = {posixpath.splitext(each)[0]: each for each in self._known()}
        known = self._stems.get(path)
        return known and self._known()[known]

    def find_file(self, path: str) -> str | None:
        """The URI that `open_file` opens of a file of lines or JSON in a zip or tar."""
        place = self.find(path)
        return place and f"{place}{_MEMBER}{path}"

    @property
    def broken(self) -> Sequence[str]:
        """Archives that cannot be read to their end, and why; what else they hold is not known."""
        self._known()
        return self._broken

    def _known(self) -> dict[str, str]:
        if self._places is None:
            places: dict[str, str] = {}
            packed_without: dict[str, str] = {}
            broken = []
            for archive in chain.from_iterable(map(_archives, self._folders)):
                stem = posixpath.splitext(posixpath.basename(archive))[0]
                try:
                    for path, place in _places(archive):
                        places.setdefault(path, place)
                        packed_without.setdefault(f"{stem}/{path}", place)
                except ValueError as error:
                    broken.append(str(error))
            self._places, self._broken = packed_without | places, broken
        return self._places


@contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Opens a file, or what `Archives.find_file` has found in an archive, for reading.

    Raises:
        OSError: it cannot be read.
        ValueError: the archive is broken.
    """
    place = place_item(uri.partition(_MEMBER)[0], None, None)
    if not place or place.archive is None:
        with storage.open_binary(uri) as file:
            yield file
        return
    with storage.open_binary(place.archive) as file:
        try:
            with _member(file, place) as member:
                yield member
        except (zipfile.BadZipFile, zlib.error) as error:  # reading an entry finds more of them
            raise _broken(place.archive, error) from None


def _member(file: BinaryIO, place: Item) -> BinaryIO:
    """Opens what lies at a place in an archive.

    Raises:
        BadZipFile: it is no zip, or breaks off.
        ValueError: nothing begins there, or it is packed as nobody here can unpack.
    """
    archive, offset = place.archive or "", place.offset or 0
    if archive.lower().endswith(".tar"):
        return io.BufferedReader(_Part(file, offset, place.size or 0))
    try:
        content = zipfile.ZipFile(file)
        for entry in content.infolist():
            if entry.header_offset == offset and not entry.is_dir():
                return content.open(entry)  # type: ignore[return-value]
    except RuntimeError as error:  # encrypted, or packed by a method that Python lacks
        raise _broken(archive, error) from None
    raise _broken(archive, "it has changed while it was read")


def _broken(archive: str, why: object) -> ValueError:
    return ValueError(f"{posixpath.basename(archive)} is broken: {why}")


class _Part(io.RawIOBase):
    """Some bytes of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._at, self._stop = file, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._stop - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _archives(folder: str) -> list[str]:
    found = [entry.uri for kind in ("zip", "tar") for entry in storage.match(f"{folder}/*.{kind}")]
    return sorted(found)


def _places(archive: str) -> Iterator[tuple[str, str]]:
    """The paths of an archive's files, and where they lie.

    Raises:
        ValueError: it is broken.
    """
    with storage.open_binary(archive) as file:
        if archive.lower().endswith(".tar"):
            for member in tar_members(file):
                if not member.name:
                    raise _broken(archive, "it is no tar, or breaks off")
                if member.isfile():
                    place = bytes_place(archive, member.offset_data, member.size)
                    yield posixpath.normpath(member.name), place
            return
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise _broken(archive, error) from None
        for entry in entries:
            if entry.header_offset < 0:
                raise _broken(archive, "an entry begins before it")
            if not entry.is_dir():
                place = bytes_place(archive, entry.header_offset, entry.compress_size)
                yield posixpath.normpath(entry.filename), place
