"""A private AIRFLOW_HOME."""

from paliflow.tests.operators import airflow_home  # noqa: F401
