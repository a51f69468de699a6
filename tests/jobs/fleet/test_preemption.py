"""A node that is drained while a run goes on: no input is lost, none is blamed; and its metrics."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.jobs.fleet.test_metrics import names_on_the_board

pytestmark = pytest.mark.slow  # a Ray cluster of its own


class Ended(NamedTuple):
    """What the run has left."""

    summary: dict[str, Any]
    metrics: list[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("preempted")
    write_mixed(folder / "images", 100)
    run = subprocess.run(
        [sys.executable, "-m", "paliflow.tests.jobs.fleet.preempted", str(folder)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "drained " in run.stdout
    *_, metrics, summary = run.stdout.splitlines()
    return Ended(json.loads(summary), json.loads(metrics))


def test_a_preempted_node_costs_no_input_and_is_counted(ended: Ended) -> None:
    assert ended.summary["preemptions"] == 1
    parts = Path(ended.summary["location"]).glob("part-*")
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert len(rows) == len({(row["source_uri"], row["prompt"]) for row in rows}) == 200
    assert not [row for row in rows if "kills the worker" in (row["error"] or "")]


def test_every_metric_on_the_board_is_scraped_with_its_labels(ended: Ended) -> None:
    for name in names_on_the_board():
        lines = [line for line in ended.metrics if line.startswith(name + "{")]
        assert lines, name
        for label in ('run="test"', 'dag="weekly"', 'task="annotate"'):
            assert all(label in line for line in lines), (name, label)
    (inputs,) = [line for line in ended.metrics if line.startswith("ray_paliflow_inputs_total{")]
    assert float(inputs.split()[-1]) == 100
