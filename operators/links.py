"""Links of a task in Airflow's UI: to its Ray job and to its output."""

from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink


class PushedLink(BaseOperatorLink):
    """A link that the task pushes as soon as it knows it: it is there while the job runs."""

    def push(self, ti: Any, url: str) -> None:
        """Shows `url`; `ti` is the task instance that runs here."""
        ti.xcom_push(key=self.xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """What was pushed. Airflow asks at each end of the task's code, also when it defers."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class RayJobLink(PushedLink):
    """The job's page on Ray's dashboard; none without a Ray connection."""

    name = "Ray job"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return super().get_link(operator, ti_key=ti_key) if operator.ray_conn_id else ""


class OutputLink(PushedLink):
    """The run's folder: a `gs://` one in Google Cloud's console, others as they are."""

    name = "Output"


def browsable(location: str) -> str:
    """The address under which a browser shows a folder; of a local one its absolute path, which is
    never taken for another scheme, as `javascript:` would be."""
    if location.startswith("gs://"):
        return f"https://console.cloud.google.com/storage/browser/{location.removeprefix('gs://')}"
    return str(Path(location).absolute())
