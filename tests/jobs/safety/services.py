"""Google's services for tests: one server that speaks their APIs, faults included."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from paliflow.tests.servers import running

TOKEN = "ya29.a-secret-token"
Json = dict[str, Any]


class Fault(NamedTuple):
    """An answer that is none of the service's usual ones."""

    status: int
    body: Any = None
    """JSON, or bytes."""
    headers: Mapping[str, str] = MappingProxyType({})
    hang_s: float = 0.0


class Services:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Json, dict[str, str]]] = []
        self.answer: Callable[[str, Json], Any] = lambda path, body: {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        """By the path's end, what is answered first."""
        self.endpoint = ""

    def bodies(self, end: str) -> list[Json]:
        """What was asked at paths that end so."""
        return [body for path, body, _ in self.asked if path.partition("?")[0].endswith(end)]


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Runs the server, and writes a service account whose tokens it gives to `account.json`."""
    state = Services()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/token":
                token = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
                self._send(200, token, {})
                return
            body = json.loads(content)
            state.asked.append((self.path, body, dict(self.headers)))
            path = self.path.partition("?")[0]
            for end, faults in state.faults.items():
                if path.endswith(end) and faults:
                    fault = faults.popleft()
                    time.sleep(fault.hang_s)
                    self._send(fault.status, fault.body, fault.headers)
                    return
            self._send(200, state.answer(path, body), {})

        def _send(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError):  # who does not wait any more
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        state.endpoint = f"http://127.0.0.1:{port}"
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        account = {
            "type": "service_account", "project_id": "shop", "private_key": key.decode(),
            "client_email": "a@shop.iam.gserviceaccount.com",
            "token_uri": f"{state.endpoint}/token",
        }  # fmt: skip
        (folder / "account.json").write_text(json.dumps(account))
        yield state


def rejected(message: str, **detail: Any) -> Fault:
    """The answer to a request that the service calls wrong."""
    details = [detail] if detail else []
    return Fault(400, {"error": {"code": 400, "message": message, "details": details}})
