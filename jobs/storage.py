"""Files and objects under one handful of verbs: local paths and `gs://` URIs."""

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

# Every failure leaves this module as an OSError: FileNotFoundError, PermissionError or plain.


def absolute(uri: str) -> str:
    """An absolute path or `gs://` URI without a trailing slash.

    Raises:
        ValueError: another kind of URI.
    """
    if uri.startswith("gs://"):
        return uri.rstrip("/")
    if "://" in uri:
        raise ValueError(f"{uri!r} is neither a local path nor a gs:// URI")
    return os.path.abspath(uri)  # noqa: PTH100 -- Path.absolute() keeps `..`


def read_bytes(uri: str) -> bytes:
    """The whole content."""
    if not absolute(uri).startswith("gs://"):
        return Path(uri).read_bytes()
    with _gs_errors(uri):
        # raw_download: what is stored, whatever content encoding the object claims.
        content: bytes = _blob(uri).download_as_bytes(raw_download=True)
        return content


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    """Opens for reading; seekable, and read in ranges where it is remote."""
    if not uri.startswith("gs://"):
        with Path(uri).open("rb") as file:
            yield file
    else:
        # Each seek of Parquet's reader costs a fetch of a chunk; the client's default is 40 MiB.
        with _gs_errors(uri), _blob(uri).open("rb", chunk_size=2**20, raw_download=True) as file:
            yield file


def is_file(uri: str) -> bool:
    """Whether a file or an object has exactly this name."""
    if not uri.startswith("gs://"):
        return Path(uri).is_file()
    with _gs_errors(uri):
        return "/" in uri.removeprefix("gs://") and bool(_blob(uri).exists())


def list_files(folder: str) -> Iterator[str]:
    """Every file below a folder, in the order of their names, streamed.

    Holds one folder's names at a time; links to folders are followed, except into a circle.
    Names that are not UTF-8 come with their odd bytes written as backslash escapes.
    """
    if folder.startswith("gs://"):
        bucket, _, name = folder.removeprefix("gs://").partition("/")
        yield from _list_objects(bucket, prefix=f"{name}/" if name else "")
    else:
        yield from _walk(folder, frozenset())


def match(pattern: str) -> Iterator[str]:
    """Every file that matches a glob, where `**` crosses folders, in the order of their names."""
    if pattern.startswith("gs://"):
        bucket, _, name = pattern.removeprefix("gs://").partition("/")
        yield from _list_objects(bucket, match_glob=name)
    else:
        found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 -- Path.glob refuses absolutes
        yield from (_text(path) for path in sorted(found) if not Path(path).is_dir())


def commit_if_absent(uri: str, content: BinaryIO) -> bool:
    """Writes a file whole and durably, unless it is there already.

    Nobody ever sees a part of it, and of two writers one wins: on `gs://` by the precondition
    ifGenerationMatch=0, locally by a hard link to a synced temporary file beside it.

    Args:
        uri: what to create; local parent folders are made.
        content: read from its start.

    Returns:
        False if it was there first; then nothing has changed.
    """
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    if uri.startswith("gs://"):
        from google.api_core.exceptions import PreconditionFailed

        with _gs_errors(uri):
            try:
                _blob(uri).upload_from_file(content, size=size, if_generation_match=0)
            except PreconditionFailed:
                return False
            return True
    target = Path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Readers of Parquet folders skip names that start with a dot.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        # A folder sorts as its objects would on gs://, by its name and a slash.
        named = sorted((entry.name + "/" * entry.is_dir(), entry.path) for entry in entries)
    for name, path in named:
        if name.endswith("/"):
            yield from _walk(path, above | {real})
        else:
            yield _text(path)


def _text(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _list_objects(bucket: str, **query: str) -> Iterator[str]:
    with _gs_errors(f"gs://{bucket}"):
        fields = "items(name),nextPageToken"
        for blob in _client().list_blobs(bucket, fields=fields, **query):
            if not blob.name.endswith("/"):  # what folders created in the console leave
                yield f"gs://{bucket}/{blob.name}"


@cache
def _client() -> Any:
    from google.cloud import storage

    return storage.Client()


def _blob(uri: str) -> Any:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return _client().bucket(bucket).blob(name)


@contextlib.contextmanager
def _gs_errors(uri: str) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except NotFound:
        raise FileNotFoundError(f"no such object or bucket: {uri}") from None
    except (Forbidden, Unauthorized) as error:
        raise PermissionError(f"{uri}: {error.message}") from None
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise OSError(f"{uri}: {error}") from error
