"""A node that is drained while a run goes on: no input is lost, and none is blamed."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from paliflow.tests.jobs.files import write_mixed


@pytest.mark.slow  # a Ray cluster of its own
def test_a_preempted_node_costs_no_input_and_is_counted(tmp_path: Path) -> None:
    write_mixed(tmp_path / "images", 100)
    run = subprocess.run(
        [sys.executable, "-m", "paliflow.tests.jobs.fleet.preempted", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "drained " in run.stdout
    summary = json.loads(run.stdout.splitlines()[-1])
    assert summary["preemptions"] == 1
    parts = Path(summary["location"]).glob("part-*")
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert len(rows) == len({(row["source_uri"], row["prompt"]) for row in rows}) == 200
    assert not [row for row in rows if "kills the worker" in (row["error"] or "")]
