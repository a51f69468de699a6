"""A Google Cloud Storage server for tests: gcp-storage-emulator, threaded, with preconditions.

Faults can be injected, and `python -m paliflow.tests.gcs --help` runs it as a process.
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from urllib.request import Request, urlopen

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from paliflow.storage import gs
from paliflow.tests.servers import running

FAULTS = ("429", "503", "403", "reset", "cut", "lost", "slow", "hang")
"""What can befall a request about objects.

- a status: the answer has it, nothing is done
- `reset`: the connection is reset, nothing is done
- `cut`: it is done, and the connection closed in the middle of the answer's body
- `lost`: it is done, and the connection reset instead of an answer
- `slow`: the answer comes in ten pieces, within 0.3 s
- `hang`: nothing is done and nothing comes for ten seconds, then a reset
"""


class Faults:
    """What befalls the requests to come, in the order of their arrival."""

    def __init__(self, kinds: Iterable[str | None] = ()) -> None:
        self._lock = threading.Lock()
        self.inject(kinds)

    def inject(self, kinds: Iterable[str | None]) -> None:
        """Sets what is next: one of FAULTS or None for each request; None after the last."""
        with self._lock:
            self._kinds = iter(kinds)

    def next(self) -> str | None:
        """What befalls this request."""
        with self._lock:
            return next(self._kinds, None)


def at_random(shares: dict[str, float], seed: int) -> Iterator[str | None]:
    """An endless sequence in which each kind has its share; the same for the same seed."""
    dice = random.Random(seed)
    kinds, weights = [*shares, None], [*shares.values(), 1 - sum(shares.values())]
    while True:
        yield dice.choices(kinds, weights)[0]


@contextlib.contextmanager
def serve(faults: Faults | None = None, port: int = 0) -> Iterator[str]:
    """Runs an empty server in memory; yields its URL, for STORAGE_EMULATOR_HOST."""
    handler = partial(_Handler, _Storage(use_memory_fs=True), faults or Faults())
    with running(ThreadingHTTPServer(("127.0.0.1", port), handler)) as bound:
        gs._client.cache_clear()  # of another server
        yield f"http://127.0.0.1:{bound}"
        gs._client.cache_clear()


class _PreconditionError(Exception):
    pass


class _Storage(Storage):  # type: ignore[misc]
    """Objects under one lock, and what each open upload session demands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lock = threading.RLock()
        self.demands: dict[str, int | None] = {}
        self.finished: dict[str, Any] = {}

    def check(self, bucket: str, name: str, demand: int | None) -> None:
        """Raises unless the object's generation is the demanded one; 0 demands its absence."""
        try:
            generation = int(self.get_file_obj(bucket, name)["generation"])
        except NotFound:
            generation = 0
        if demand is not None and demand != generation:
            raise _PreconditionError(f"{bucket}/{name} is at {generation}, not {demand}")


class _Conditional:
    """The storage as one request sees it: all happens under its ifGenerationMatch."""

    def __init__(self, storage: _Storage, demand: int | None, unzips: bool = False) -> None:
        self._storage, self._demand, self._unzips = storage, demand, unzips

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def create_file(
        self, bucket: str, name: str, content: bytes, meta: Any, session: str | None = None
    ) -> None:
        storage = self._storage
        with storage.lock:
            demand = storage.demands.pop(session) if session else self._demand
            storage.check(bucket, name, demand)
            storage.create_file(bucket, name, content, meta, session)
            if session:
                storage.finished[session] = meta

    def get_file(self, bucket: str, name: str) -> bytes:
        if self._demand:  # 0 is about the target of a copy, and this is its source
            self._storage.check(bucket, name, self._demand)
        content: bytes = self._storage.get_file(bucket, name)
        return gzip.decompress(content) if self._unzips else content

    def create_resumable_upload(self, bucket: str, name: str, meta: Any) -> str:
        with self._storage.lock:
            session: str = self._storage.create_resumable_upload(bucket, name, meta)
            self._storage.demands[session] = self._demand
            return session

    def delete_file(self, bucket: str, name: str) -> None:
        with self._storage.lock:
            self._storage.check(bucket, name, self._demand)
            self._storage.delete_file(bucket, name)


class _Handler(RequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"
    wfile: Any
    _gzipped = False

    def __init__(self, storage: _Storage, faults: Faults, *connection: Any) -> None:
        self._objects, self._faults = storage, faults
        super().__init__(storage, *connection)

    def do_GET(self) -> None:  # noqa: N802
        self._suffer(super().do_GET)

    def do_POST(self) -> None:  # noqa: N802
        self._suffer(super().do_POST)

    def do_PUT(self) -> None:  # noqa: N802
        self._suffer(super().do_PUT)

    def do_DELETE(self) -> None:  # noqa: N802
        self._suffer(super().do_DELETE)

    def _suffer(self, handle: Any) -> None:
        # The client looks up buckets in a thread of its own, which would make chance of order.
        about_objects = "/o" in urlparse(self.path).path.partition("/b/")[2]
        fault = self._faults.next() if about_objects else None
        if fault is None:
            self._conditionally(handle)
        elif fault.isdigit():
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._say(HTTPStatus(int(fault)), {"error": {"message": "injected"}})
        elif fault in ("reset", "hang"):
            time.sleep(10 * (fault == "hang"))
            self._reset()
        else:
            connection = self.wfile
            self.wfile = answer = io.BytesIO()
            self._conditionally(handle)
            self.wfile = connection
            self._spoil(fault, answer.getvalue())

    def _spoil(self, fault: str, answer: bytes) -> None:
        if fault == "slow":
            for number in range(10):
                time.sleep(0.03)
                piece = slice(number * len(answer) // 10, (number + 1) * len(answer) // 10)
                self.wfile.write(answer[piece])
        elif fault == "cut":
            body = answer.index(b"\r\n\r\n") + 4
            self.wfile.write(answer[: (body + len(answer)) // 2])
            self.close_connection = True
        else:
            self._reset()

    def _reset(self) -> None:
        # To close with a linger time of nothing is to reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _say(self, status: HTTPStatus, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        if self._gzipped:
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

    def _is_gzipped(self, query: dict[str, list[str]]) -> bool:
        """Whether the content is asked for of an object with that content encoding."""
        bucket, _, name = urlparse(self.path).path.partition("/b/")[2].partition("/o/")
        if query.get("alt") != ["media"] or not name:
            return False
        try:
            meta = self._objects.get_file_obj(unquote(bucket), unquote(name))
        except NotFound:
            return False
        return bool(meta.get("contentEncoding") == "gzip")

    def _conditionally(self, handle: Any) -> None:
        query = parse_qs(urlparse(self.path).query)
        if finished := self._objects.finished.get(query.get("upload_id", [""])[0]):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._say(HTTPStatus.OK, finished)
            return
        demand = query.get("ifGenerationMatch")
        self._gzipped = self.command == "GET" and self._is_gzipped(query)
        unzips = self._gzipped and "gzip" not in self.headers.get("Accept-Encoding", "")
        if unzips:
            del self.headers["Range"]  # decompressive transcoding answers with the whole
            self._gzipped = False
        self.storage = _Conditional(self._objects, int(demand[0]) if demand else None, unzips)
        try:
            handle()
        except _PreconditionError as failure:
            error = {"code": HTTPStatus.PRECONDITION_FAILED, "message": str(failure)}
            self._say(HTTPStatus.PRECONDITION_FAILED, {"error": error})
        finally:
            self.storage = self._objects


def _shares(text: str) -> dict[str, float]:
    shares = {kind: float(share) for kind, _, share in (p.partition("=") for p in text.split(","))}
    if unknown := shares.keys() - set(FAULTS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(FAULTS)}")
    return shares


def main() -> None:
    """Runs the server until it is terminated; its URL is the first line of output."""
    parser = argparse.ArgumentParser(prog="python -m paliflow.tests.gcs")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", action="append", default=[])
    parser.add_argument("--faults", type=_shares, default={}, metavar="KIND=SHARE,...")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faults = Faults()
    with serve(faults, options.port) as url:
        for bucket in options.bucket:
            body = json.dumps({"name": bucket}).encode()
            headers = {"Content-Type": "application/json"}
            request = Request(f"{url}/storage/v1/b", body, headers)
            urlopen(request).close()
        faults.inject(at_random(options.faults, options.seed))
        print(url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
