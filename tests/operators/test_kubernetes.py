"""The three ways in which a connection leads to a Kubernetes API."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from paliflow.operators import kubernetes
from paliflow.operators.kubernetes import _access
from paliflow.tests.servers import running, write_certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "ca.pem")


def connection(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(conn_id="k", conn_type="kubernetes", extra=extra, **fields)


def test_host_and_password_are_the_api_server_and_a_token(certificate: Path) -> None:
    url, token, public = _access(connection(host="api.example", port=6443, password="t"))
    assert (url, token) == ("https://api.example:6443/", "t")
    assert public is _access(connection(host="api.example", password="t"))[2]
    given = connection(host="https://api.example/", password="t", extra={"ca": str(certificate)})
    url, _, verify = _access(given)
    assert url == "https://api.example/"
    assert [each["subject"] for each in verify.get_ca_certs()] != []
    assert verify is not public


def test_a_pod_has_the_token_of_its_service_account(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate.rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("pods-token\n")
    monkeypatch.setattr(kubernetes, "_MOUNTED", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    url, token, _ = _access(connection(extra={"in_cluster": "True"}))
    assert (url, token) == ("https://10.0.0.1:6443/", "pods-token")


@pytest.fixture
def google(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Google's tokens and its Kubernetes Engine, and credentials for them."""

    class Google(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"access_token": "googles-token", "expires_in": 3600})

        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer googles-token"
            if self.path != "/v1/projects/p/locations/l/clusters/c":
                self.send_error(404)
                return
            authorities = base64.b64encode(certificate.read_bytes()).decode()
            cluster = {"clusterCaCertificate": authorities}
            self._answer({"endpoint": "34.1.2.3", "masterAuth": cluster})

        def _answer(self, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Google)) as port:
        key = {
            "type": "service_account",
            "client_email": "vision@p.iam.gserviceaccount.com",
            "private_key": pem.decode(),
            "token_uri": f"http://127.0.0.1:{port}/token",
        }
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        monkeypatch.setattr(kubernetes, "_GKE_API", f"http://127.0.0.1:{port}/v1")
        yield


def test_gke_says_where_a_cluster_is_and_whom_to_trust(google: None) -> None:
    found = connection(extra={"gke_cluster": "projects/p/locations/l/clusters/c"})
    url, token, _ = _access(found)
    assert (url, token) == ("https://34.1.2.3/", "googles-token")
    other = connection(extra={"gke_cluster": "projects/p/locations/l/clusters/gone"})
    with pytest.raises(OSError, match=r"gke_cluster='projects/p/locations/l/clusters/gone': .*404"):
        _access(other)
