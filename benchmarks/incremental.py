"""What `only_new` costs: memory and time at 10^5 to 10^7 rows of history and candidates.

Run `python -m paliflow.benchmarks.incremental 100000 1000000`. Nine of ten candidates were
answered in two earlier runs, one of many parts and one compacted; all on the local disk.
Two cores took 18 µs each and 796 MiB at 10^7, of which the imports alone are 276.
"""

import io
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.incremental import filter_unanswered

PROMPT = "caption en"
CHECKPOINT = "c" * 64
URI = "gs://some-bucket/images/of/2026-01-01/{:09d}.jpg"
PART, COMPACTED = 10_000, 1_000_000
"""Rows of a file."""


def write_history(output: str, run_id: str, numbers: range, rows_a_file: int) -> None:
    """A finished run that answered the images of these numbers."""
    location = f"{output}/run_id={run_id}"
    starts = range(numbers.start, numbers.stop, rows_a_file)
    names = tuple(f"part-{k:05d}.parquet" for k in range(len(starts)))
    for name, start in zip(names, starts, strict=True):
        file = io.BytesIO()
        rows = _rows(range(start, min(start + rows_a_file, numbers.stop)))
        pq.write_table(rows, file, row_group_size=16_384, compression="zstd")
        storage.commit_if_absent(f"{location}/{name}", file)
    count, now = len(numbers), datetime.now(UTC)
    write_manifest(
        RunSummary(
            run_id=run_id,
            location=location,
            spec={},
            inputs=count,
            rows=count,
            ok=count,
            errors=0,
            shards=len(names),
            files=names if rows_a_file == COMPACTED else (),
            checkpoint="somewhere",
            checkpoint_sha256=CHECKPOINT,
            started=now,
            finished=now,
            seconds=1.0,
            images_per_second=1.0,
            versions={},
        )
    )


def _rows(numbers: range) -> pa.Table:
    count = len(numbers)
    given = {
        "source_uri": pa.array([URI.format(number) for number in numbers]),
        "source_sha256": pa.array([f"{number:064x}" for number in numbers]),
        "source_version": pa.array([str(10**15 + number) for number in numbers]),
        "prompt": pa.repeat(PROMPT, count),
        "text": pc.binary_join_element_wise("a caption of", pa.repeat("something", count), " "),
        "status": pa.repeat("ok", count),
    }
    empty = (pa.nulls(count, field.type) for field in ANNOTATIONS)
    columns = dict(zip(ANNOTATIONS.names, empty, strict=True)) | given
    return pa.table(columns, schema=ANNOTATIONS)


def measure(output: str, candidates: int) -> None:
    """Counts what is new among the candidates and prints what that took."""
    spec = AnnotateSpec(input="x", output=output, run_id="now", prompts=(PROMPT,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter()
    left = sum(1 for _ in filter_unanswered(_candidates(candidates), spec, [CHECKPOINT]))
    seconds = time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{candidates:>10,} candidates, {left:,} new: {seconds:.1f} s, "
        f"{seconds / candidates * 1e6:.1f} µs each; peak {peak / 2**10:.0f} MiB, "
        f"of which {before / 2**10:.0f} MiB before",
        flush=True,
    )


def _candidates(count: int) -> Iterator[Item]:
    for number in range(count):
        yield Item(URI.format(number), version=str(10**15 + number))


if __name__ == "__main__":
    processes = multiprocessing.get_context("spawn")
    for size in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            old, middle = int(size * 0.9), int(size * 0.45)
            for run_id, numbers, rows in (
                ("1", range(middle), COMPACTED),
                ("2", range(middle, old), PART),
            ):
                writing = processes.Process(
                    target=write_history, args=(folder, run_id, numbers, rows)
                )
                writing.start()
                writing.join()
            measuring = processes.Process(target=measure, args=(folder, size))
            measuring.start()
            measuring.join()
