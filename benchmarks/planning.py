"""Time and memory of planning and resuming runs of many inputs.

    python -m paliflow.benchmarks.planning --rows 100000 --rows 1000000 --rows 10000000

Each figure comes from a process of its own, over a Parquet manifest with a question for each row.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from paliflow.configs import AnnotateSpec
from paliflow.jobs.runs.parts import part_uri, present_parts
from paliflow.jobs.runs.plan import read_plan, read_shard, write_plan
from paliflow.jobs.sources.items import items

_BATCH = 100_000
_SCHEMA = pa.schema([("image", pa.string()), ("question", pa.string())])


def write_manifest(path: Path, rows: int) -> None:
    """A manifest of `rows` objects, each with a question."""
    with pq.ParquetWriter(path, _SCHEMA) as out:
        for start in range(0, rows, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, rows)).astype(str)
            images = np.char.add(np.char.add("gs://bucket/images/", numbers), ".jpg")
            questions = np.char.add("what stands on shelf ", numbers)
            out.write_table(pa.table([images, questions], schema=_SCHEMA))


def plan(folder: Path) -> None:
    """Lists the inputs and writes the plan."""
    spec = AnnotateSpec(
        input=str(folder / "manifest.parquet"),
        output=str(folder),
        prompts=("answer en {question}",),
        allowed_roots=("gs://bucket/images",),
        run_id="scale",
    )
    write_plan(str(folder / "run"), items(spec), spec.model_dump(mode="json"))


def resume(folder: Path) -> None:
    """Finds what is missing of a run that has every other part, and reads the last shard."""
    run = str(folder / "run")
    known = read_plan(run)
    assert known
    done = present_parts(run)
    missing = [shard for shard in range(known.shards) if shard not in done]
    assert len(missing) == known.shards // 2
    assert len(read_shard(run, known, known.shards - 1)) == known.size_of(known.shards - 1)


def leave_half(folder: Path) -> None:
    """Every other part, empty: only names are looked at."""
    known = read_plan(str(folder / "run"))
    assert known
    for shard in range(0, known.shards, 2):
        Path(part_uri(str(folder / "run"), shard)).touch()


def measured(stage: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of a stage in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (stage, folder))


def _measured(stage: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    started = time.perf_counter()
    stage(folder)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _figures(rows: int) -> Iterator[tuple[str, float, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder / "manifest.parquet", rows)
        yield "plan", *measured(plan, folder)
        leave_half(folder)
        yield "resume", *measured(resume, folder)


def main(rows: Annotated[list[int], typer.Option(help="Repeat for several sizes.")]) -> None:
    """Prints a table, a line for each size and stage."""
    table = Table("rows", "stage", "seconds", "us a row", "peak MB")
    for count in rows:
        for stage, seconds, peak in _figures(count):
            each = seconds / count * 1e6
            table.add_row(f"{count:,}", stage, f"{seconds:.1f}", f"{each:.2f}", f"{peak:.0f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
