"""Reading from https:// hosts, which may be slow, endless, elsewhere or lying."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from paliflow.jobs.media.reading import read_input
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.files import encode
from paliflow.tests.servers import running, tls_server, write_certificate

PICTURE = encode("RGB", "JPEG")


class Host(BaseHTTPRequestHandler):
    """Answers by path; counts what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self) -> None:
        self._answer(200, len(PICTURE))

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        self.asked[f"{self.headers['Host'].partition(':')[0]}/{name}"] += 1
        port = self.connection.getsockname()[1]
        again = self.asked[f"localhost/{name}"] > 1
        match name:
            case "missing" | "forbidden":
                self._answer({"missing": 404, "forbidden": 403}[name])
            case "flaky" if not again:
                self._answer(503)
            case "cut" if not again:
                self._answer(200, len(PICTURE))
                self.wfile.write(PICTURE[:500])
                self.close_connection = True
            case "near":
                self._answer(302, Location="/picture")
            case "away":
                self._answer(302, Location=f"https://127.0.0.1:{port}/picture")
            case "plain":
                self._answer(302, Location=f"http://localhost:{port}/picture")
            case "endless" | "slow":
                self._answer(200, None, Connection="close")
                while True:
                    self.wfile.write(bytes(2**20 if name == "endless" else 1))
                    time.sleep(0.1 * (name == "slow"))
            case "packed":
                self._answer(200, len(PICTURE), **{"Content-Encoding": "gzip"})
                self.wfile.write(PICTURE)
            case _:
                start, end = 0, len(PICTURE)
                if wanted := self.headers.get("Range"):
                    start, end = map(int, wanted.removeprefix("bytes=").split("-"))
                    end = min(end + 1, len(PICTURE))
                self._answer(206 if wanted else 200, end - start)
                self.wfile.write(PICTURE[start:end])

    def _answer(self, status: int, length: int | None = 0, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Whose clients may hang up."""

    def handle_error(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.fixture(scope="module")
def host(certificate: Path) -> Iterator[str]:
    """The host and port of a server with that certificate."""
    with running(tls_server(Host, certificate, Server)) as port:
        yield f"localhost:{port}"


READ = """
import json, sys
from paliflow import storage
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.media.reading import read_input
from paliflow.storage import remote
remote._TIMEOUT_S = 4.0
host, *names = sys.argv[1:]
for name in names:
    item = Item(f"https://{host}/{name}?X-Goog-Signature=secret")
    read = read_input(item, size=28, max_pixels=10**8, thumbnail=None, https_hosts=(host,))
    print(json.dumps([name, read.error, read.sha256]), flush=True)
uri = f"https://{host}/picture"
with storage.open_binary(uri) as file:
    file.seek(-9, 2)
    end = file.read().hex()
part = storage.read_bytes(uri, 100, 50).hex()
print(json.dumps(["parts", part, end]))
"""
WANTED = {
    "picture": None,
    "near": None,
    "flaky": None,
    "cut": None,
    "packed": None,
    "missing": "not found",
    "forbidden": "no access: the host answers 403",
    "away": "no access: it redirects to another host",
    "plain": "no access: it redirects to another host",
    "endless": "cannot be read: larger than 268435456 bytes",
    "slow": "cannot be read: no whole answer within 4 s",
}


@pytest.fixture(scope="module")
def read(host: str, certificate: Path) -> dict[str, tuple[str | None, str | None]]:
    """What became of each, in a process that trusts the certificate from its start."""
    run = subprocess.run(
        [sys.executable, "-c", READ, host, *WANTED],
        env=os.environ | {"SSL_CERT_FILE": str(certificate)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "secret" not in run.stdout + run.stderr
    return {name: (one, two) for name, one, two in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", WANTED)
def test_whatever_a_host_does_ends_in_a_picture_or_a_reason(
    read: dict[str, tuple[str | None, str | None]], name: str
) -> None:
    error, sha256 = read[name]
    assert error == WANTED[name]
    assert (sha256 is None) == (error is not None)


def test_no_other_host_is_asked(read: object) -> None:
    assert Host.asked["localhost/away"] >= 1
    assert not [name for name in Host.asked if not name.startswith("localhost/")]


def test_ranges_are_read(read: dict[str, tuple[str | None, str | None]]) -> None:
    assert read["parts"] == (PICTURE[100:150].hex(), PICTURE[-9:].hex())


def test_a_certificate_that_nobody_signed_is_refused(host: str) -> None:
    item = Item(f"https://{host}/picture")
    read = read_input(item, size=28, max_pixels=10**8, thumbnail=None, https_hosts=(host,))
    assert read.error is not None
    assert "certificate" in read.error.lower()


def test_a_host_that_is_not_listed_is_not_asked(host: str) -> None:
    before = Host.asked.copy()
    item = Item(f"https://{host}/picture?token=secret")
    read = read_input(item, size=28, max_pixels=10**8, thumbnail=None, https_hosts=("other",))
    assert read.error == "no access: its host is not among https_hosts, which are: other"
    assert Host.asked == before
