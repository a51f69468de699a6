"""Objects on `gs://` through google-cloud-storage, whose own policy retries what may pass."""

import contextlib
import errno
import gzip
import io
import os
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from paliflow.storage.entry import Entry

_TIMEOUT_S = (10.0, 30.0)
"""To connect, and to wait for any bytes; a request that passes it is retried. The client gives
up two minutes after the first try."""


_CONNECTIONS = 64
"""Kept open to a host."""
_UNZIPPED = 200
"""A gzipped object of more than some kB that unpacks to more times its size was made to fill the
disk."""


def read_bytes(uri: str, offset: int, size: int | None, limit: int | None) -> bytes:
    """See `paliflow.storage`, here and below."""
    from google.api_core.exceptions import RequestRangeNotSatisfiable

    if size == 0:
        return b""
    file = _Bounded(uri, limit)
    # Without a range the client compares the object's checksum.
    span = {} if (offset, size) == (0, None) else {"start": offset}
    if size is not None:
        span["end"] = offset + size - 1
    blob = _blob(uri)
    with _errors(uri), contextlib.suppress(RequestRangeNotSatisfiable):
        # raw_download: what is stored, so that ranges and checksums are of that.
        blob.download_to_file(file, raw_download=True, timeout=_TIMEOUT_S, **span)
    if blob.content_encoding != "gzip":
        return file.getvalue()
    with open_binary(uri) as unzipped:
        if size is None and limit is not None and unzipped.seek(0, io.SEEK_END) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", uri)
        unzipped.seek(offset)
        return unzipped.read() if size is None else unzipped.read(size)


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    with _errors(uri):
        blob = _blob(uri)
        blob.reload(timeout=_TIMEOUT_S)
        # Each seek of Parquet's reader costs a fetch of a chunk; the client's default is 40 MiB.
        with blob.open(
            "rb",
            chunk_size=2**20,
            raw_download=True,
            timeout=_TIMEOUT_S,
            if_generation_match=blob.generation,
        ) as file:
            if blob.content_encoding != "gzip":
                yield file
                return
            with tempfile.TemporaryFile() as unzipped:
                _unzip(file, unzipped, max(2**24, _UNZIPPED * (blob.size or 0)), uri)
                yield unzipped


def download(uri: str, version: str | None, target: Path) -> None:
    with _errors(uri):
        blob = _blob(uri, int(version) if version else None)
        blob.download_to_filename(str(target), timeout=_TIMEOUT_S)


def is_file(uri: str) -> bool:
    with _errors(uri):
        return "/" in uri.removeprefix("gs://") and bool(_blob(uri).exists(timeout=_TIMEOUT_S))


def version(uri: str) -> str | None:
    try:
        with _errors(uri):
            blob = _blob(uri)
            blob.reload(timeout=_TIMEOUT_S)
            return str(blob.generation)
    except FileNotFoundError:
        return None


def list_files(folder: str) -> Iterator[Entry]:
    bucket, _, name = folder.removeprefix("gs://").partition("/")
    yield from _list_objects(bucket, prefix=f"{name}/" if name else "")


def match(pattern: str) -> Iterator[Entry]:
    bucket, _, name = pattern.removeprefix("gs://").partition("/")
    yield from _list_objects(bucket, match_glob=name)


def commit_if_absent(uri: str, content: BinaryIO) -> bool:
    return _upload_over(uri, content, 0)


def copy_if_absent(uri: str, target: str) -> None:
    from google.api_core.exceptions import PreconditionFailed

    copy, token = _blob(target), None
    with _errors(uri), contextlib.suppress(PreconditionFailed):
        while True:
            token, _, _ = copy.rewrite(
                _blob(uri), token=token, if_generation_match=0, timeout=_TIMEOUT_S
            )
            if token is None:
                return


def overwrite(uri: str, content: BinaryIO) -> None:
    with _errors(uri):
        _upload(_blob(uri), content)


def replace(uri: str, content: BinaryIO, seen: str | None) -> bool:
    return _upload_over(uri, content, int(seen or 0))


def delete(uri: str) -> None:
    with _errors(uri):
        _blob(uri).delete(timeout=_TIMEOUT_S)


def _unzip(file: BinaryIO, target: BinaryIO, limit: int, uri: str) -> None:
    """What an object with the content encoding gzip stands for, as GCS itself hands it out."""
    try:
        with gzip.GzipFile(fileobj=file) as content:
            while piece := content.read(2**20):
                if target.tell() + len(piece) > limit:
                    raise OSError(errno.EFBIG, f"unpacks to more than {limit} bytes", uri)
                target.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(errno.EINVAL, f"its content encoding is gzip: {error}", uri) from None
    target.seek(0)


class _Bounded(io.BytesIO):
    """What was downloaded, up to a limit."""

    def __init__(self, uri: str, limit: int | None) -> None:
        super().__init__()
        self._uri, self._limit = uri, limit

    def write(self, data: Any, /) -> int:
        if self._limit is not None and self.tell() + memoryview(data).nbytes > self._limit:
            raise OSError(errno.EFBIG, f"larger than {self._limit} bytes", self._uri)
        return super().write(data)


def _upload_over(uri: str, content: BinaryIO, generation: int) -> bool:
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob = _blob(uri)
    # An upload may succeed and its answer be lost; its retry then meets its own object.
    blob.metadata = mark = {"paliflow-writer": uuid.uuid4().hex}
    with _errors(uri):
        try:
            _upload(blob, content, if_generation_match=generation)
        except PreconditionFailed:
            try:
                blob.reload(timeout=_TIMEOUT_S)
            except NotFound:  # deleted meanwhile
                return False
            return bool(blob.metadata == mark)
    return True


def _upload(blob: Any, content: BinaryIO, **conditions: int) -> None:
    size = content.seek(0, os.SEEK_END)
    blob.upload_from_file(content, rewind=True, size=size, timeout=_TIMEOUT_S, **conditions)


def _list_objects(bucket: str, **query: str) -> Iterator[Entry]:
    with _errors(f"gs://{bucket}"):
        fields = "items(name,generation),nextPageToken"
        for blob in _client().list_blobs(bucket, fields=fields, timeout=_TIMEOUT_S, **query):
            if not blob.name.endswith("/"):  # what folders created in the console leave
                yield Entry(f"gs://{bucket}/{blob.name}", str(blob.generation))


@cache
def _client() -> Any:
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    client = storage.Client()
    # By default ten connections are kept, fewer than an actor's threads.
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return client


def _blob(uri: str, generation: int | None = None) -> Any:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return _client().bucket(bucket).blob(name, generation=generation)


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such object or bucket", uri) from None
    except (Forbidden, Unauthorized) as error:
        raise PermissionError(errno.EACCES, _reason(error), uri) from None
    except GoogleAuthError as error:
        raise OSError(errno.EACCES, str(error), uri) from None
    except (GoogleAPIError, DataCorruption, InvalidResponse, RequestException, HTTPError) as error:
        raise OSError(errno.EIO, _reason(error), uri) from None


def _reason(error: Any) -> str:
    """What the server said; the client's own words name the request, its secrets included."""
    cause = getattr(error, "cause", None) or error  # of the last try
    response = getattr(cause, "response", None)
    if response is None:
        return type(cause).__name__
    try:
        said = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        said = " ".join(response.text.split())[:200]
    return f"{response.status_code} {said or response.reason}"
