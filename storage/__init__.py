"""Files and objects under one handful of verbs: local paths, `gs://`, other schemes to read."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from paliflow.configs.base import redacted
from paliflow.storage import gs, local, remote
from paliflow.storage.entry import Entry
from paliflow.storage.roots import OutsideError, lies_below, within

__all__ = [
    "Entry",
    "OutsideError",
    "absolute",
    "check_host",
    "commit_if_absent",
    "copy_if_absent",
    "delete",
    "is_file",
    "is_transient",
    "lies_below",
    "list_files",
    "match",
    "open_binary",
    "overwrite",
    "read_bytes",
    "replace",
    "version",
    "within",
]

# Every failure leaves this package as an OSError (FileNotFoundError, PermissionError or plain)
# whose `strerror` names no file, so that equal troubles read alike, and holds no credentials; but
# a URI of an unknown kind is a ValueError.

check_host = remote.check_host


def is_transient(error: Exception) -> bool:
    """Whether it is a storage's trouble that another try may not have."""
    return isinstance(error, OSError) and error.errno in (errno.EIO, errno.ETIMEDOUT)


def absolute(uri: str) -> str:
    """An absolute path or a URI without a trailing slash.

    Raises:
        ValueError: a URI of an unknown kind.
    """
    if "://" not in uri:
        return os.path.abspath(uri)  # noqa: PTH100 -- Path.absolute() keeps `..`
    if not uri.startswith("gs://"):
        remote.check_scheme(uri)
    return uri.rstrip("/")


def read_bytes(
    uri: str, offset: int = 0, size: int | None = None, *, limit: int | None = None
) -> bytes:
    """The content from `offset`, whole or `size` bytes of it, fewer at the end of the file.

    Args:
        uri: what to read; locally only a regular file, so that a pipe holds up nobody.
        offset: in bytes.
        size: in bytes.
        limit: a whole file of more bytes than this is an error.

    Raises:
        OSError: with errno EFBIG if the limit is passed.
    """
    if size is not None and limit is not None and size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", uri)
    return _of(uri).read_bytes(uri, offset, size, limit)


def open_binary(uri: str) -> AbstractContextManager[BinaryIO]:
    """Opens for reading; seekable, and read in ranges where it is remote.

    On `gs://` all is read of the generation that was there when it was opened.
    """
    return _of(uri).open_binary(uri)


def download(entry: Entry, target: Path) -> None:
    """Copies an object of `gs://` to a local file, in that version, its checksum compared.

    Raises:
        FileNotFoundError: the object is not there any more, or has another version.
    """
    gs.download(entry.uri, entry.version, target)


def is_file(uri: str) -> bool:
    """Whether a file or an object has exactly this name; `https://` is taken at its word."""
    return _of(uri).is_file(uri)


def version(uri: str) -> str | None:
    """What changes when the content does: `<size>-<mtime_ns>` locally, the generation on `gs://`.

    Returns:
        None if there is no such file, or if it is at `https://`, which tells nothing reliable.
    """
    return _of(uri).version(uri)


def list_files(folder: str) -> Iterator[Entry]:
    """Every file below a folder, in the order of their names, streamed.

    Holds one folder's names at a time; links to folders are followed, except into a circle.
    Names that are not UTF-8 come with their odd bytes written as backslash escapes.
    """
    return _of(folder).list_files(folder)


def match(pattern: str) -> Iterator[Entry]:
    """Every file that matches a glob, where `**` crosses folders, in the order of their names."""
    return _of(pattern).match(pattern)


def commit_if_absent(uri: str, content: BinaryIO) -> bool:
    """Writes a file whole and durably, unless it is there already.

    Nobody ever sees a part of it, and of two writers one wins: on `gs://` by the precondition
    ifGenerationMatch=0, locally by a hard link to a synced temporary file beside it, or by a
    rename that replaces nothing.

    Args:
        uri: what to create, local or `gs://`; local parent folders are made.
        content: read from its start.

    Returns:
        False if it was there first; then nothing has changed. Exact even where the storage did
        what a request asked and the answer was lost: the retry knows its own object.
    """
    return _writable(uri).commit_if_absent(uri, content)


def copy_if_absent(uri: str, target: str) -> None:
    """Copies a file within its storage, at once whatever its size, unless `target` is there.

    Args:
        uri: local or `gs://`.
        target: likewise, on the same disk or in a bucket of the same kind, in a folder that is
            there.
    """
    _writable(uri).copy_if_absent(uri, target)


def overwrite(uri: str, content: BinaryIO) -> None:
    """Writes a file whole and durably in the place of whatever is there.

    Nobody ever sees a part of it.

    Args:
        uri: what to write, local or `gs://`; local parent folders are made.
        content: read from its start.
    """
    _writable(uri).overwrite(uri, content)


def replace(uri: str, content: BinaryIO, seen: str | None) -> bool:
    """Writes a file whole and durably, if what is there is still of a version.

    Of those who replace the same version one wins: on `gs://` by the precondition
    ifGenerationMatch, locally by a lock on a file beside it, which the other verbs pass by.

    Args:
        uri: what to write, local or `gs://`; local parent folders are made.
        content: read from its start.
        seen: what `version` said before the content that this one is made from was read; None
            if there was no file.

    Returns:
        False if another has been there meanwhile; then nothing has changed. One exception: where
        the storage did what was asked, the answer was lost, and before the retry somebody replaced
        that in turn, it is False too. So read again, and see whether it is done.
    """
    return _writable(uri).replace(uri, content, seen)


def delete(uri: str) -> None:
    """Deletes a local file or an object; one that is absent is fine."""
    with contextlib.suppress(FileNotFoundError):
        _writable(uri).delete(uri)


class _Readable(Protocol):
    """What `remote` can do."""

    def read_bytes(self, uri: str, offset: int, size: int | None, limit: int | None) -> bytes: ...
    def open_binary(self, uri: str) -> AbstractContextManager[BinaryIO]: ...
    def is_file(self, uri: str) -> bool: ...
    def version(self, uri: str) -> str | None: ...
    def list_files(self, folder: str) -> Iterator[Entry]: ...
    def match(self, pattern: str) -> Iterator[Entry]: ...


class _Writable(_Readable, Protocol):
    """What `local` and `gs` can do."""

    def commit_if_absent(self, uri: str, content: BinaryIO) -> bool: ...
    def copy_if_absent(self, uri: str, target: str) -> None: ...
    def overwrite(self, uri: str, content: BinaryIO) -> None: ...
    def replace(self, uri: str, content: BinaryIO, seen: str | None) -> bool: ...
    def delete(self, uri: str) -> None: ...


def _of(uri: str) -> _Readable:
    if "://" in uri and not uri.startswith("gs://"):
        remote.check_scheme(uri)
        return remote
    return _writable(uri)


def _writable(uri: str) -> _Writable:
    if uri.startswith("gs://"):
        return gs
    if "://" in uri:
        raise OSError(errno.EROFS, "outputs are local or gs://", redacted(uri))
    return local
