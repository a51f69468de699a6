"""A Google Cloud Storage server for tests: gcp-storage-emulator, threaded, with preconditions."""

import contextlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Runs an empty server in memory; yields its URL, for STORAGE_EMULATOR_HOST."""
    handler = partial(_Handler, _Storage(use_memory_fs=True))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _PreconditionError(Exception):
    pass


class _Storage(Storage):  # type: ignore[misc]
    """Objects under one lock, and what each open upload session demands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lock = threading.RLock()
        self.demands: dict[str, int | None] = {}

    def check(self, bucket: str, name: str, demand: int | None) -> None:
        """Raises unless the object's generation is the demanded one; 0 demands its absence."""
        try:
            generation = int(self.get_file_obj(bucket, name)["generation"])
        except NotFound:
            generation = 0
        if demand is not None and demand != generation:
            raise _PreconditionError(f"{bucket}/{name} is at {generation}, not {demand}")


class _Conditional:
    """The storage as one request sees it: its writes happen under its ifGenerationMatch."""

    def __init__(self, storage: _Storage, demand: int | None) -> None:
        self._storage, self._demand = storage, demand

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

    def __init__(self, storage: _Storage, *connection: Any) -> None:
        self._objects = storage
        super().__init__(storage, *connection)

    def do_POST(self) -> None:  # noqa: N802
        self._conditionally(super().do_POST)

    def do_PUT(self) -> None:  # noqa: N802
        self._conditionally(super().do_PUT)

    def do_DELETE(self) -> None:  # noqa: N802
        self._conditionally(super().do_DELETE)

    def _conditionally(self, handle: Any) -> None:
        query = parse_qs(urlparse(self.path).query)
        demand = query.get("ifGenerationMatch")
        self.storage = _Conditional(self._objects, int(demand[0]) if demand else None)
        try:
            handle()
        except _PreconditionError as failure:
            error = {"code": HTTPStatus.PRECONDITION_FAILED, "message": str(failure)}
            body = json.dumps({"error": error}).encode()
            self.send_response(HTTPStatus.PRECONDITION_FAILED)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        finally:
            self.storage = self._objects
