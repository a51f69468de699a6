"""Zips and tars of a benchmark's data folder, read in place: which files they hold, and where."""

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from paliflow import storage
from paliflow.jobs.media.places import bytes_place
from paliflow.jobs.sources.tars import tar_members

_MEMBER = "#member="


class Archives:
    """The `.zip` and `.tar` files that lie in some folders; compressed tars are none of them.

    What an archive holds is found by its path there, and also by that below a folder of the
    archive's name, where it was packed without one. Of two with the same path the first counts.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(folders)
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

    def _known(self) -> dict[str, str]:
        if self._places is None:
            self._places = {}
            for folder in self._folders:
                for archive in _archives(folder):
                    stem = posixpath.splitext(posixpath.basename(archive))[0]
                    for path, place in _places(archive):
                        self._places.setdefault(path, place)
                        self._places.setdefault(f"{stem}/{path}", place)
        return self._places

    def find_file(self, path: str) -> str | None:
        """The URI that `open_file` opens of a file of lines or JSON in a zip or tar."""
        place = self.find(path)
        return place and f"{place.partition('#')[0]}{_MEMBER}{path}"


@contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Opens a file, or what `Archives.find_file` has found in an archive, for reading.

    Raises:
        OSError: it cannot be read.
        ValueError: the archive is broken.
    """
    archive, found, path = uri.partition(_MEMBER)
    with storage.open_binary(archive) as file:
        if not found:
            yield file
            return
        try:
            with _member(file, archive, (path, path.partition("/")[2])) as member:
                yield member
        except (zipfile.BadZipFile, zlib.error) as error:  # reading an entry finds more of them
            raise ValueError(f"{posixpath.basename(archive)} is broken: {error}") from None


def _member(file: BinaryIO, archive: str, names: tuple[str, ...]) -> BinaryIO:
    """Opens the file of an archive that has the first of some paths which is there.

    Raises:
        BadZipFile: it is no zip, or breaks off.
        ValueError: it has no such file, or packs it as nobody here can unpack.
    """
    name = posixpath.basename(archive)
    if archive.lower().endswith(".tar"):
        for part in tar_members(file):
            if posixpath.normpath(part.name) in names:
                return io.BufferedReader(_Part(file, part.offset_data, part.size))
        raise ValueError(f"{name} is broken: it has no {names[0]}")
    try:
        content = zipfile.ZipFile(file)
        own = {posixpath.normpath(each.filename): each for each in content.infolist()}
        for path in names:
            if path in own:
                return content.open(own[path])  # type: ignore[return-value]
    except RuntimeError as error:  # encrypted, or packed by a method that Python lacks
        raise ValueError(f"{name} is broken: {error}") from None
    raise ValueError(f"{name} is broken: it has no {names[0]}")


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
                    raise ValueError(f"{posixpath.basename(archive)} is no tar, or breaks off")
                if member.isfile():
                    place = bytes_place(archive, member.offset_data, member.size)
                    yield posixpath.normpath(member.name), place
            return
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(f"{posixpath.basename(archive)} is broken: {error}") from None
        for entry in entries:
            if not entry.is_dir():
                place = bytes_place(archive, entry.header_offset, entry.compress_size)
                yield posixpath.normpath(entry.filename), place
