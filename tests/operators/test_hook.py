"""How a connection becomes an address, headers and trust."""

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from airflow import models
from airflow.cli.cli_parser import get_parser
from airflow.sdk import Connection
from airflow.utils.session import create_session

from paliflow.operators import RayJobHook
from paliflow.operators.hook import RayJobError, base_url
from paliflow.tests.operators import dag_run
from paliflow.tests.servers import running, tls_server, write_certificate


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("ray://", "http://localhost:8265"),
        ("ray://head", "http://head:8265"),
        ("ray://:token@head:80/https", "https://head:80"),
    ],
)
def test_a_connection_uri_is_a_dashboards_address(uri: str, url: str) -> None:
    assert base_url(Connection.from_uri(uri, conn_id="ray")) == url


def test_the_host_may_be_a_url_with_a_path() -> None:
    connection = Connection(conn_id="ray", host="https://proxy.example/ray/", port=8443)
    assert base_url(connection) == "https://proxy.example:8443/ray/"


def test_a_jobs_page_shows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray", "host": "https://me:secret@ray.example/p/", "password": "t"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps(connection))
    assert RayJobHook("ray").page("job-1") == "https://ray.example/p/#/jobs/job-1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "ray.pem")


class Dashboard(BaseHTTPRequestHandler):
    """Answers those who send the header that a proxy would want."""

    def do_GET(self) -> None:
        body = json.dumps({"ray_version": "2.60.0"}).encode()
        self.send_response(200 if self.headers["X-Proxy"] == "open" else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    with running(tls_server(Dashboard, certificate)) as port:
        yield port


HEADERS = {"X-Proxy": "open"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"verify": False, "headers": HEADERS}, "Ray 2.60.0 answers"),
        ({"verify": "false", "headers": json.dumps(HEADERS)}, "Ray 2.60.0 answers"),
        ({"verify": "{certificate}", "headers": HEADERS}, "Ray 2.60.0 answers"),
        ({"verify": False, "headers": ""}, "HTTP 403"),
        ({"headers": HEADERS}, "CERTIFICATE_VERIFY_FAILED"),
        ({"verify": True, "headers": HEADERS}, "CERTIFICATE_VERIFY_FAILED"),
        ({"verify": "true", "headers": HEADERS}, "CERTIFICATE_VERIFY_FAILED"),
        ({"verify": "/no/such.pem"}, "'tls': verify='/no/such.pem': true, false or the path"),
        ({"headers": ["X-Proxy"]}, "'tls': headers: a JSON object"),
        ({"headers": "{"}, "'tls': headers: a JSON object"),
    ],
)
def test_headers_and_verify_mean_what_the_form_says(
    extra: dict[str, Any],
    message: str,
    certificate: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if extra.get("verify") == "{certificate}":
        extra = {**extra, "verify": str(certificate)}
    connection = {
        "conn_type": "ray", "host": "127.0.0.1", "port": port, "schema": "https", "extra": extra
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_TLS", json.dumps(connection))
    works, said = RayJobHook("tls").test_connection()
    assert message in said
    assert works == ("answers" in message)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"host": "head", "password": "t"}, False),
        ({"host": "http://10.1.2.3/ray", "password": "t"}, False),
        ({"host": "http://me:secret@head"}, False),
        ({"host": "head", "extra": {"headers": HEADERS}}, False),
        ({"host": "localhost.example", "password": "t"}, False),
        ({"host": "head", "password": "t", "extra": {"allow_insecure": "false"}}, False),
        ({"host": "head", "password": "t", "extra": {"allow_insecure": True}}, True),
        ({"host": "head", "password": "t", "extra": {"allow_insecure": "true"}}, True),
        ({"host": "head", "password": "t", "schema": "https"}, True),
        ({"host": "127.0.0.9", "password": "t"}, True),
        ({"host": "http://[::1]", "password": "t"}, True),
        ({"password": "t"}, True),
        ({"host": "head"}, True),
    ],
)
def test_a_token_crosses_the_network_in_the_clear_only_where_that_is_allowed(
    fields: dict[str, Any], sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps({"conn_type": "ray", **fields}))

    async def opened() -> None:
        async with RayJobHook("ray"):
            pass

    if sent:
        asyncio.run(opened())
        return
    with pytest.raises(RayJobError, match=r"'ray': its token .* allow_insecure to true") as refused:
        asyncio.run(opened())
    assert "secret" not in str(refused.value)


def test_a_proxys_authorization_is_kept_beside_rays_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sent(extra: dict[str, Any]) -> tuple[str, str]:
        connection = {"conn_type": "ray", "password": "t", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps(connection))
        async with RayJobHook("ray") as ray:
            headers = ray._client.headers
            return headers["Authorization"], headers["X-Ray-Authorization"]

    proxy = {"headers": {"authorization": "Basic cHJveHk="}}
    assert asyncio.run(sent({})) == ("Bearer t", "Bearer t")
    assert asyncio.run(sent(proxy)) == ("Basic cHJveHk=", "Bearer t")


def test_an_unclear_permission_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray", "host": "h", "password": "t"}
    connection["extra"] = json.dumps({"allow_insecure": "maybe"})
    monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps(connection))
    assert "allow_insecure='maybe': true or false" in RayJobHook("ray").test_connection()[1]


def test_airflows_command_line_tests_a_stored_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it for good
    dag_run.initialize()
    extra = json.dumps({"verify": False, "headers": HEADERS})
    stored = models.Connection(
        conn_id="stored", conn_type="ray", host="127.0.0.1", schema="https", port=port, extra=extra
    )
    with create_session() as session:
        session.add(stored)
    arguments = get_parser().parse_args(["connections", "test", "stored"])
    arguments.func(arguments)
    assert "Connection success" in capsys.readouterr().out
