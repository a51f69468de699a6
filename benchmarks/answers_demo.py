"""`make answers-demo`: a DAG that classifies, accepts at 0.95, and is held back in the dark.

Airflow runs `annotate_accepted` twice: on scenes of digits like those that were labelled, some
sharp and some blurred, and on the same scenes gone dark. The first run has to keep its promise; the
second has to be quarantined.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from PIL import Image
from rich.console import Console
from rich.table import Table

from paliflow.benchmarks.confidence import COUNT, write_scenes
from paliflow.benchmarks.demo import HOME, run_dag
from paliflow.benchmarks.digits.scenes import answer
from paliflow.configs import RunSummary
from paliflow.jobs.runs.outputs import list_runs

ROOT = HOME / "answers"
FOLDER = ROOT / "paliflow"
"""Where the DAG looks for labels and photos, and keeps what it makes."""
LABELLED, PHOTOS = 600, 240
PRECISION = 0.95


def main() -> None:
    """Runs the demo; exits with 1 where the promise is broken, or the dark run counts."""
    started = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    write_labelled("held_out", LABELLED, 1)
    truth = write_labelled("photos", PHOTOS, 2)
    run_dag("annotate_accepted", ROOT)
    for path in (FOLDER / "photos").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) * 0.04).astype(np.uint8)).save(path)
    said = run_dag("annotate_accepted", ROOT, fails=True)

    runs = list_runs(str(FOLDER / "annotations"))
    summaries = [run.summary for run in runs if run.summary]
    if len(summaries) != 2:
        raise SystemExit(f"two runs were to finish, and {len(summaries)} did")
    good, dark = sorted(summaries, key=lambda summary: summary.started)
    show(good, dark)
    rows = ds.dataset(f"{good.location}", exclude_invalid_files=True).to_table().to_pylist()
    accepted = [row for row in rows if row["accepted"]]
    right = sum(row["text"] == truth[Path(row["source_uri"]).name] for row in accepted)
    share = right / max(1, len(accepted))
    print(f"{len(accepted)} of {len(rows)} answers are accepted, {share:.1%} of them right")
    print(f"calibration: {FOLDER / 'calibration' / 'calibration.html'}")
    for summary in (good, dark):
        print(f"To look at: {summary.location}/_report.html")
    print(f"{time.monotonic() - started:.0f} s; all of it is in {ROOT}")
    if not accepted or share < PRECISION - 0.03:  # of so few, by chance
        raise SystemExit(f"less than {PRECISION:.0%} of what was accepted is right")
    if good.quarantined or not dark.quarantined or not any("quarantined" in s for s in said):
        raise SystemExit("the dark run was to be quarantined, and no other")


def write_labelled(name: str, count: int, seed: int) -> dict[str, str]:
    """Writes scenes to a folder of that name, and JSONL of what is right; the same by image."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).mkdir()
    right = {}
    with (FOLDER / f"{name}.jsonl").open("w") as lines:
        for _, image, scene in write_scenes(FOLDER / name, count, seed):
            right[image] = answer(scene, COUNT)
            row = {"image": f"{name}/{image}", "prefix": COUNT, "suffix": right[image]}
            lines.write(json.dumps(row) + "\n")
    return right


def show(good: RunSummary, dark: RunSummary) -> None:
    """Prints what the gate found of both runs."""
    table = Table("check", "good", "dark", "at most", title="The gate")
    before = {check.name: check for check in good.checks}
    for check in dark.checks:
        known = before.get(check.name)
        first = f"{known.value:.4f}" if known else "the first run"
        table.add_row(check.name, first, f"{check.value:.4f}", f"{check.limit:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
