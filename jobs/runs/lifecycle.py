"""A run's lifecycle: settle, work, manifest. Whoever repeats a finished run gets its summary."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

import pyarrow as pa

from paliflow.configs.base import printable
from paliflow.configs.log_lines import say
from paliflow.jobs.runs.identity import check_same_spec
from paliflow.jobs.runs.outputs import S, read_summary, write_manifest
from paliflow.jobs.runs.paths import require_folder, with_absolute_paths
from paliflow.jobs.runs.restarting import R, settle

W = TypeVar("W")


def run_once(
    spec: R,
    kind: type[S],
    work: Callable[[R], W],
    sum_up: Callable[[R, W], Mapping[str, Any]],
    packages: Iterable[str],
    columns: pa.Schema | None = None,
) -> S:
    """Does what a run lacks and writes its manifest; returns the summary of a finished run at once.

    Args:
        spec: relative paths in it are relative to this process's folder.
        kind: the class of the run's summary.
        work: does what is missing, given the spec with absolute paths and the run id that counts.
        sum_up: the summary's fields, but for those that every summary has, from the same spec and
            what `work` returned.
        packages: whose versions the summary names.
        columns: as in `settle`.

    Returns:
        The run's summary; another driver's if that one wrote its manifest first.

    Raises:
        SpecError: another spec has taken the run id, or nothing can be written to the output.
        Exception: whatever `work` or `sum_up` raised, as it was raised.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    spec = settle(with_absolute_paths(spec), columns)
    run = spec.location
    if summary := read_summary(run, kind):
        check_same_spec(summary.spec, spec)
        say(f"run {spec.run_id} is finished already: {printable(run)}")
        return summary
    require_folder(spec)
    done = work(spec)
    if summary := read_summary(run, kind):  # another driver was here, and may have moved the rows
        return summary
    fields = sum_up(spec, done)
    summary = kind(
        run_id=spec.run_id,
        location=run,
        spec=spec.model_dump(mode="json"),
        started=started,
        finished=datetime.now(UTC),
        seconds=time.monotonic() - clock,
        versions={name: version(name) for name in packages},
        **fields,
    )
    write_manifest(summary)
    return read_summary(run, kind) or summary
