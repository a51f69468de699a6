"""`make demo`: Airflow runs the shipped DAG on the bundled images, checked against the truth."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

import paliflow.dags
from paliflow.benchmarks.digits.measure import agrees

DAGS = Path(str(paliflow.dags.__file__)).parent
TRUTH = DAGS / "sample" / "ground_truth.json"
HOME = Path(".demo").absolute()
LEAST_AGREEMENT = 0.75
"""Of each prompt's answers; a few dozen images scatter by several per cent around the figures."""
_TOLD = re.compile(
    r"\S+T(?P<time>\S+?)\.\S+ \[\w+ *\] (?P<text>.*?) +\[airflow\.task\.operators\.paliflow\."
    r"operators\.(?P<operator>\w+)"
)
"""A line of Airflow's that a task of ours has logged."""


def run_dag(dag: str, home: Path = HOME, *, fails: bool = False, **params: Any) -> list[str]:
    """Runs `airflow dags test` of a shipped DAG in a private Airflow home.

    `home` is the user's, below which the DAGs find and leave their files. Shows and returns what
    its tasks said; all that Airflow said only if it failed. With `fails`, it has to, and what its
    errors said is returned, too.

    Raises:
        SystemExit: with Airflow's exit code, if it is not 0.
    """
    environment = {
        **os.environ,
        "HOME": str(home),
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    }
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    command = [*airflow, "dags", "test", dag, "--conf", json.dumps(params)]
    print("$ airflow", shlex.join(command[3:]), flush=True)
    lines, told = [], []
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if said := _TOLD.match(line):
                told.append(said["text"])
                print(f"{said['time']} {said['operator']}: {said['text']}", flush=True)
    if fails:
        return [*told, *(line for line in lines if "AirflowFailException" in line)]
    if process.returncode:
        print(*lines, sep="")
        raise SystemExit(process.returncode)
    return told


def compare(rows: list[dict[str, Any]], truth: dict[str, dict[str, str]]) -> dict[str, float]:
    """The share of each prompt's answers that agree with the ground truth."""
    shares: dict[str, list[bool]] = {}
    for row in rows:
        wanted = truth.get(Path(row["source_uri"]).name)
        if wanted is not None:
            right = row["status"] == "ok" and agrees(
                row["prompt"], row["text"], wanted[row["prompt"]], row["width"], row["height"]
            )
            shares.setdefault(row["prompt"], []).append(right)
    return {prompt: sum(right) / len(right) for prompt, right in shares.items()}


def main() -> None:
    """Runs the demo; exits with 1 where rows are lost or answers are wrong."""
    console = Console()
    output = HOME / "paliflow-output"
    shutil.rmtree(output, ignore_errors=True)
    run_dag("annotate_images")

    truth = json.loads(TRUTH.read_text())
    rows = ds.dataset(output, partitioning="hive").to_table().to_pylist()
    shares = compare(rows, truth)
    answers = Table("image", "prompt", "answer", "ground truth", title="Annotations")
    for row in [row for row in rows if row["status"] == "ok"][:8]:
        name = Path(row["source_uri"]).name
        answers.add_row(*map(Text, (name, row["prompt"], row["text"], truth[name][row["prompt"]])))
    console.print(answers)
    errors = Table(
        "image", "error", title="Error rows (one for each prompt; here, one for each file)"
    )
    broken = {Path(row["source_uri"]).name: row["error"] for row in rows if row["error"]}
    for name, error in broken.items():
        errors.add_row(Text(name), Text(error))
    console.print(errors)
    agreement = Table("prompt", "agrees with the ground truth", title=f"{len(truth)} test images")
    for prompt, share in shares.items():
        agreement.add_row(Text(prompt), f"{100 * share:.0f} %")
    console.print(agreement)
    images = [path for path in TRUTH.parent.iterdir() if path.suffix in (".jpg", ".png")]
    expected = len(images) * len(shares)
    print(f"{len(rows)} rows for {len(images)} files and {len(shares)} prompts, in {output}")
    for report in output.glob("run_id=*/_report.html"):
        print(f"To look at: {report}")
    if len(rows) != expected or set(broken) != {p.name for p in images} - set(truth):
        raise SystemExit(f"{expected} rows were expected, and errors for the broken files alone")
    if min(shares.values()) < LEAST_AGREEMENT:
        raise SystemExit(f"a prompt agrees with less than {LEAST_AGREEMENT:.0%} of the truth")


if __name__ == "__main__":
    main()
