"""`make demo-video`: Airflow runs the shipped DAG on bundled films, checked against the truth."""

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow.benchmarks.demo import DAGS, HOME, run_dag

FILMS = DAGS / "sample_videos"
BROKEN = "film_3.mp4"
"""It breaks off after seven tenths of its bytes."""
LEAST_AGREEMENT = 0.75


def main() -> None:
    """Runs the demo; exits with 1 where rows are lost or answers are wrong."""
    output = HOME / "paliflow-output" / "videos"
    shutil.rmtree(output, ignore_errors=True)
    run_dag("annotate_videos")

    truth = json.loads((FILMS / "ground_truth.json").read_text())
    rows = ds.dataset(output, partitioning="hive").to_table().to_pylist()
    read = [row for row in rows if row["prompt"] == "ocr" and row["status"] == "ok"]
    table = Table("film", "seconds", "read", "to be read", title="What was read when")
    right = 0
    for (name, text, wanted), same in groupby(read, lambda row: _said(row, truth)):
        own = list(same)
        right += len(own) * (text == wanted)
        span = f"{own[0]['timestamp_s']:.2f} - {own[-1]['timestamp_s']:.2f}"
        style = "" if text == wanted else "red"
        table.add_row(*(Text(each, style) for each in (name, span, text, wanted)))
    console = Console()
    console.print(table)
    errors = {Path(row["source_uri"]).name: row["error"] for row in rows if row["error"]}
    for name, error in errors.items():
        print(f"{name}: {error}")
    tracks = {
        (row["source_uri"], found["track_id"]) for row in rows for found in row["detections"] or ()
    }
    print(f"{right} of {len(read)} sampled frames are read rightly; {len(tracks)} tracks of boxes")
    for report in output.glob("run_id=*/_report.html"):
        print(f"To look at: {report}")
    if set(errors) != {BROKEN}:
        raise SystemExit(f"an error was expected of {BROKEN} alone")
    if right < LEAST_AGREEMENT * len(read):
        raise SystemExit(f"less than {LEAST_AGREEMENT:.0%} of the frames are read rightly")


def _said(row: dict[str, Any], truth: dict[str, list[list[Any]]]) -> tuple[str, str, str]:
    """The film, what was read in a frame of it, and what was to be read."""
    name = Path(row["source_uri"]).name
    wanted = next(text for first, last, text in truth[name] if first <= row["frame_index"] < last)
    return name, row["text"], wanted


if __name__ == "__main__":
    main()
