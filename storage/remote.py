"""Other storage that fsspec knows, to read from: `s3://` and its like, `https://` within bounds."""

import contextlib
import errno
import sys
from collections.abc import Collection, Iterator
from functools import cache, partial
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec
from google.api_core.retry import Retry

from paliflow.configs.base import redacted
from paliflow.storage.entry import Entry

_EXTRAS = ("https", "s3")
SCHEMES = ("abfs", "az", "hf", "https", "oci", "oss", "s3")
"""Not all that fsspec has: some (`generic://http://...`) lead anywhere."""
_PASSING = (408, 429, 500, 502, 503, 504)
_TIMEOUT_S = 60.0
"""For one answer of an `https://` host, to its last byte; and until the last try begins."""
_CHUNK = 2**18


def check_scheme(uri: str) -> None:
    """Raises ValueError if this URI is of no kind that can be read."""
    if (scheme := _scheme(uri)) not in SCHEMES:
        known = ", ".join(f"{name}://" for name in ("gs", *SCHEMES))
        raise ValueError(f"{scheme}:// is not read; give a local path or one of {known}")


def check_host(uri: str, https_hosts: Collection[str]) -> None:
    """Refuses `https://` addresses of hosts that are not listed; other URIs pass.

    A host matches exactly, its port included where the address has one; so an address with a user
    or a password matches none.

    Raises:
        PermissionError: it is not listed.
    """
    if uri.startswith("https://") and urlsplit(uri).netloc.lower() not in https_hosts:
        known = ", ".join(https_hosts) or "none"
        said = f"its host is not among https_hosts, which are: {known}"
        raise PermissionError(errno.EACCES, said, redacted(uri))


def read_bytes(uri: str, offset: int, size: int | None, limit: int | None) -> bytes:
    """See `paliflow.storage`, here and below."""
    with _errors(uri, Exception):
        whole = uri.startswith("https://") and (offset, size) == (0, None)
        read = partial(_download, uri) if whole else partial(_read, uri, offset, size)
        content: bytes = _retrying(read)(limit)
        return content


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[BinaryIO]:
    with _errors(uri, Exception):
        file = _retrying(_filesystem(_scheme(uri)).open)(uri, "rb")
    with file, _errors(uri):
        yield file


def is_file(uri: str) -> bool:
    if uri.startswith("https://"):
        return True
    with _errors(uri, Exception):
        return bool(_filesystem(_scheme(uri)).isfile(uri))


def version(uri: str) -> str | None:
    if uri.startswith("https://"):
        return None
    try:
        with _errors(uri, Exception):
            return _version(_filesystem(_scheme(uri)).info(uri))
    except FileNotFoundError:
        return None


def list_files(folder: str) -> Iterator[Entry]:
    yield from _walk(folder, _scheme(folder))


def match(pattern: str) -> Iterator[Entry]:
    scheme = _scheme(pattern)
    with _errors(pattern, Exception):
        found = _filesystem(scheme).glob(pattern, detail=True)
    for name, info in sorted(found.items()):
        if info["type"] == "file":
            yield Entry(f"{scheme}://{name}", _version(info))


def _walk(folder: str, scheme: str) -> Iterator[Entry]:
    with _errors(folder, Exception):
        entries = _filesystem(scheme).ls(folder, detail=True)
    named = {info["name"] + "/" * (info["type"] == "directory"): info for info in entries}
    for name, info in sorted(named.items()):
        uri = f"{scheme}://{info['name']}"
        if not name.endswith("/"):
            yield Entry(uri, _version(info))
        elif uri.rstrip("/") != folder:  # what marks a folder is listed in it
            yield from _walk(uri.rstrip("/"), scheme)


def _version(info: dict[str, Any]) -> str | None:
    tag = info.get("ETag") or info.get("etag")
    return None if tag is None else str(tag).strip('"')


def _scheme(uri: str) -> str:
    return uri.partition("://")[0]


@cache
def _filesystem(scheme: str) -> Any:
    if scheme == "https":
        return fsspec.filesystem(scheme, get_client=_https_session)
    return fsspec.filesystem(scheme, use_listings_cache=False)


async def _https_session(**options: Any) -> Any:
    import aiohttp
    from yarl import URL

    async def stay(_session: Any, _context: Any, seen: aiohttp.TraceRequestRedirectParams) -> None:
        headers = seen.response.headers
        target = seen.url.join(URL(headers.get("Location") or headers.get("URI") or ""))
        if target.origin() != seen.url.origin():
            raise PermissionError(errno.EACCES, "it redirects to another host")

    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(stay)
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(_TIMEOUT_S, sock_connect=10.0),
        # What is stored: an answer that unpacks itself knows no bounds.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "paliflow"},
        trace_configs=[watch],
        **options,
    )


def _download(uri: str, limit: int | None) -> bytes:
    """Streams, since what a host says of a size before need not be what it sends."""
    content = bytearray()
    # Not zero, the size is not asked for; no blocks make it a stream.
    with _filesystem("https").open(uri, "rb", size=1, block_size=0) as file:
        while chunk := file.read(_CHUNK):
            content += chunk
            if limit is not None and len(content) > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes")
    return bytes(content)


def _read(uri: str, offset: int, size: int | None, limit: int | None) -> bytes:
    with _filesystem(_scheme(uri)).open(uri, "rb", cache_type="none") as file:
        if size is None and limit is not None and file.size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes")
        file.seek(offset)
        return bytes(file.read() if size is None else file.read(size))


def _may_pass(error: Exception) -> bool:
    # s3fs retries by itself. A host that cannot be reached or keeps silent is not asked again.
    import aiohttp

    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _PASSING
    broken = (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)
    final = (aiohttp.ClientConnectorError, TimeoutError)
    return isinstance(error, broken) and not isinstance(error, final)


_retrying: Any = Retry(predicate=_may_pass, initial=0.5, maximum=10.0, timeout=_TIMEOUT_S)


@contextlib.contextmanager
def _errors(uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """Translates these kinds; without any, those of the libraries below that are no OSError."""
    try:
        yield
    except kinds or _foreign() as error:  # noqa: B030 -- types, evaluated when needed
        raise _translated(error, redacted(uri)) from None


def _foreign() -> tuple[type[Exception], ...]:
    known = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError"}
    return tuple(getattr(sys.modules[m], name) for m, name in known.items() if m in sys.modules)


def _translated(error: Exception, uri: str) -> OSError:
    error = getattr(error, "cause", None) or error  # of the last try
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec's name for any trouble with looking for a size
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "no such object", uri)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"the host answers {status}", uri)
    if status is not None:
        return OSError(errno.EIO, f"the host answers {status}", uri)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, f"no whole answer within {_TIMEOUT_S:g} s", uri)
    if isinstance(error, ImportError):
        scheme = _scheme(uri)
        extra = f"pip install 'paliflow[{scheme}]'" if scheme in _EXTRAS else redacted(str(error))
        return OSError(errno.ENOSYS, f"{scheme}:// needs: {extra}", uri)
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, redacted(error.strerror or str(error)), uri)
    return OSError(errno.EIO, redacted(f"{type(error).__name__}: {error}"), uri)
