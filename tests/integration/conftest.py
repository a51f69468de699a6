"""Airflow's parts, a Ray head and a GCS server as processes: started once, for all the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

import paliflow.dags
from paliflow.tests.integration import on_clusters, weekly
from paliflow.tests.operators.fake_kubernetes import FakeKubernetes, kubernetes
from paliflow.tests.operators.ray_head import TOKEN, end_session, free_port, ray_head
from paliflow.tests.waiting import until

SAMPLE = Path(str(paliflow.dags.__file__)).parent / "sample"
IMAGES = sorted([*SAMPLE.glob("*.png"), *SAMPLE.glob("*.jpg")])
PROMPTS = ("ocr", "detect digit")
DAGS = """
from airflow.sdk import DAG
from paliflow.operators import AnnotateOperator

for name, deferrable in {dags!r}.items():
    with DAG(name, schedule=None):
        AnnotateOperator(
            task_id="annotate",
            input="gs://images/sample",
            output="gs://annotations/" + name,
            prompts={prompts!r},
            max_error_fraction=0.2,
            retries=1,
            retry_delay=1,
            ray_conn_id="cluster",
            runtime_env={{"env_vars": {{"STORAGE_EMULATOR_HOST": {gcs!r}}}}},
            deferrable=deferrable,
            poll_interval=1,
        )
"""


class Services:
    """What runs beside the tests: clients of it, and its processes."""

    def __init__(
        self, folder: Path, deferrable: dict[str, bool], kubernetes: FakeKubernetes
    ) -> None:
        """Starts everything else; `deferrable` has the id of each DAG."""
        self.kubernetes = kubernetes
        self._folder, self._processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.weekly, self.clusters = folder / "weekly", folder / "clusters"
        self.gcs = f"http://127.0.0.1:{free_port()}"
        url = f"http://127.0.0.1:{free_port()}"
        ray = ray_head()
        self.ray = httpx.Client(
            base_url=f"http://127.0.0.1:{ray}/api/jobs/",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        self.airflow = httpx.Client(base_url=f"{url}/api/v2/", timeout=120)
        settings = {
            "API__BASE_URL": url,
            "API__PORT": url.rpartition(":")[2],
            "API__WORKERS": "1",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__DAGS_FOLDER": str(folder / "dags"),
            "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__PARALLELISM": "2",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # Soon, but not so soon that a slow machine counts as a dead one.
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"],
            "AIRFLOW_CONN_CLUSTER": f"ray://:{TOKEN}@127.0.0.1:{ray}",
            "WEEKLY_FOLDER": str(self.weekly),
            "CLUSTERS_FOLDER": str(self.clusters),
        }
        (self.clusters / "images").mkdir(parents=True)
        for image in sorted(SAMPLE.glob("scene_*.jpg"))[:3]:
            shutil.copy(image, self.clusters / "images")
        (folder / "dags").mkdir()
        shutil.copy(weekly.__file__, folder / "dags")
        shutil.copy(on_clusters.__file__, folder / "dags")
        (folder / "dags" / "dags.py").write_text(
            DAGS.format(dags=deferrable, prompts=PROMPTS, gcs=self.gcs)
        )
        port = self.gcs.rpartition(":")[2]
        self.start("gcs", "paliflow.tests.gcs", "--port", port, *BUCKETS)
        self.start("migration", "airflow", "db", "migrate")
        assert self._processes.pop("migration").wait(120) == 0, self.logs()
        for part in ("api-server", "scheduler", "dag-processor", "triggerer"):
            self.start(part, "airflow", part)
        self.until(lambda: _answers(self.airflow), 240)
        token = self.airflow.get(f"{url}/auth/token").raise_for_status().json()["access_token"]
        self.airflow.headers["Authorization"] = f"Bearer {token}"

    def start(self, name: str, *command: str) -> None:
        """Starts `python -m` with this command, in a session of its own, with ports of its own."""
        ports = {
            f"AIRFLOW__LOGGING__{part}_LOG_SERVER_PORT": str(free_port())
            for part in ("WORKER", "TRIGGER")
        }
        with (self._folder / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self._environment, **ports},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kills a part and all that it has started, at once."""
        leader = psutil.Process(self._processes.pop(name).pid)
        family = [leader, *leader.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            end_session(process)
        self.ray.close()
        self.airflow.close()

    def until(self, done: Callable[[], Any], seconds: float) -> Any:
        """Waits for something true, which it returns."""
        return until(done, seconds, said=self.logs, every_s=0.5)

    def logs(self) -> str:
        """The ends of all parts' logs."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)


BUCKETS = ("--bucket", "images", "--bucket", "annotations")


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("version").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    dags = {"succeeds": True, "cleared": True, "ended": True, "moved": True, "lost": False}
    with pytest.MonkeyPatch.context() as patch, kubernetes() as fake:
        folder = tmp_path_factory.mktemp("services")
        patch.setenv("AIRFLOW_HOME", str(folder))  # where the fake writes what its jobs print
        running = Services(folder, dags, fake)
        try:
            patch.setenv("STORAGE_EMULATOR_HOST", running.gcs)
            from google.cloud import storage

            bucket = storage.Client().bucket("images")
            for image in IMAGES:
                bucket.blob(f"sample/{image.name}").upload_from_filename(image)
            yield running
        finally:
            running.stop()
