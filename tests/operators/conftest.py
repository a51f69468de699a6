"""A private AIRFLOW_HOME, and the connection to a real Ray head."""

import os

import pytest

from paliflow.tests.operators import airflow_home  # noqa: F401
from paliflow.tests.operators.ray_head import TOKEN, ray_head


@pytest.fixture(scope="session")
def ray() -> str:
    """The connection's id."""
    os.environ["AIRFLOW_CONN_RAY_HEAD"] = f"ray://:{TOKEN}@127.0.0.1:{ray_head()}"
    return "ray_head"
