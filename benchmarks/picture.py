"""Pictures of the demo: its report and its task in Airflow, by Chromium: `make picture`.

The DAG is run by Airflow's own scheduler, so that its page has the task's log, and below a folder
whose name is the same everywhere, so that no picture shows where it was made.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import httpx
import typer
from PIL import Image

from paliflow.benchmarks.demo import DAGS

HOME = Path("/tmp/paliflow")
"""The user's, below which the DAG leaves its files."""
SAMPLE = HOME / "sample"
DAG, RUN = "annotate_images", "demo"
PORT = 18_080
URL = f"http://localhost:{PORT}"
COLOURS = 128
"""Of a picture's palette, which makes a third of its size."""


@contextmanager
def airflow() -> Iterator[httpx.Client]:
    """Runs all of Airflow in a new home; the client is allowed everything."""
    settings = {
        "CORE__DAGS_FOLDER": str(DAGS),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{URL}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "API__PORT": str(PORT),
        "API__WORKERS": "1",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "WORKERS__EXECUTION_API_TIMEOUT": "60",  # a small machine is busy with all of this
    }
    environment = {
        **os.environ,
        "HOME": str(HOME),
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "airflow", "standalone"]
    with (HOME / "airflow.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client(base_url=URL, timeout=30) as client:
            token = _when_up(client, "/auth/token")["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _when_up(client: httpx.Client, path: str, seconds: float = 300) -> dict[str, str]:
    """What is at a path, once it is there.

    Raises:
        SystemExit: it is not there in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            answer = client.get(path)
            if answer.is_success:
                return dict(answer.json())
        time.sleep(2)
    raise SystemExit(f"{URL}{path}: not there; see {HOME / 'airflow.log'}")


def run_dag(client: httpx.Client) -> None:
    """Runs the DAG on the images beside it.

    Raises:
        SystemExit: it fails.
    """
    _when_up(client, f"/api/v2/dags/{DAG}")
    body = {"dag_run_id": RUN, "logical_date": None, "conf": {"input": str(SAMPLE)}}
    client.post(f"/api/v2/dags/{DAG}/dagRuns", json=body).raise_for_status()
    state = "queued"
    while state in ("queued", "running"):
        time.sleep(2)
        state = _when_up(client, f"/api/v2/dags/{DAG}/dagRuns/{RUN}")["state"]
    if state != "success":
        raise SystemExit(f"the DAG run: {state}; see {HOME / 'airflow'}")


def take(url: str, picture: Path, width: int, height: int) -> None:
    """Writes what a browser shows, a picture of few colours.

    Raises:
        SystemExit: there is no Chromium.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        raise SystemExit("pictures are taken by Chromium; install it, e.g. apt install chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--virtual-time-budget=30000", f"--window-size={width},{height}"]
    environment = {**os.environ, "HOME": str(HOME)}
    subprocess.run(
        [*command, f"--screenshot={picture}", url], env=environment, check=True, capture_output=True
    )
    with Image.open(picture) as taken:
        small = taken.convert("RGB").quantize(COLOURS)
    small.save(picture, optimize=True)
    print(f"{picture}: {small.width} x {small.height}, {picture.stat().st_size // 1000} KB")


def main(
    folder: Annotated[Path, typer.Argument(help="Where report.png and airflow.png go.")],
) -> None:
    """Runs the demo's DAG in Airflow and takes its pictures."""
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(DAGS / "sample", SAMPLE)
    with airflow() as client:
        run_dag(client)
        take(f"{URL}/dags/{DAG}/runs/{RUN}/tasks/annotate", folder / "airflow.png", 1400, 640)
    (report,) = (HOME / "paliflow-output").glob("run_id=*/_report.html")
    take(report.as_uri(), folder / "report.png", 1400, 1480)


if __name__ == "__main__":
    typer.run(main)
