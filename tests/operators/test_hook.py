"""How a connection becomes an address."""

import pytest
from airflow.sdk import Connection

from paliflow.operators.hook import base_url


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
