"""The runs of an output: which there are, how far each is, which files hold its rows."""

import contextlib
import glob
import io
import json
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import RunSummary
from paliflow.configs.base import SpecError, brief
from paliflow.configs.summary import Summary
from paliflow.jobs.runs.parts import Part, part_uri, present_parts, read_part
from paliflow.jobs.runs.plan import Plan, plan_uri
from paliflow.jobs.runs.records import parse_record, read_record, read_spec

MANIFEST = "_manifest.json"
SUPERSEDED_BY = "superseded_by"
"""The key of a manifest that names the run which was started over in the place of this one."""
_TRACES = (MANIFEST, "_plan/plan.json", "_plan/*/00000.parquet")
"""What a run has left, at the latest, when it is finished, planned and being planned."""
_SHOWN = ["source_uri", "prompt", "text", "status", "error"]
_T = TypeVar("_T")
S = TypeVar("S", bound=Summary)


class Run(NamedTuple):
    """How far a run is."""

    location: str
    summary: RunSummary | None
    """None while it is unfinished; then the others say how far it is."""
    plan: Plan | None = None
    """None while its inputs are being listed."""
    parts: int = 0
    """As many of the plan's shards are done."""
    latest: Part | None = None
    """The part with the highest number."""
    superseded_by: str | None = None
    """The id of the run that was started over in its place; then it has no rows any more."""
    broken: str | None = None
    """What is wrong with its manifest, its plan or its parts."""

    @property
    def run_id(self) -> str:
        """What the spec called it."""
        return self.location.rpartition("/run_id=")[2]


def list_runs(output: str) -> list[Run]:
    """The annotation runs of an output, in the order of their ids; others' are passed over.

    One whose files are broken is among them, `broken`, so that it hides no other.

    Raises:
        SpecError: `output` is a URI of a storage that holds no outputs.
    """
    found = set()
    folder = _absolute(output)
    for trace in _TRACES:
        for entry in storage.match(f"{glob.escape(folder)}/run_id=*/{trace}"):
            found.add(posixpath.join(folder, entry.uri.removeprefix(f"{folder}/").split("/")[0]))
    with ThreadPoolExecutor(16) as pool:
        return [run for run in pool.map(_look_among_others, sorted(found)) if run]


def finished_runs(output: str) -> list[RunSummary]:
    """The finished annotation runs of an output that count, in the order of their ids, where they
    are now: those that are quarantined do not.

    Raises:
        SpecError: one of them is broken, so that nobody knows what it has answered.
    """
    runs = list_runs(output)
    for run in runs:
        if run.broken:
            raise SpecError(f"{run.broken}; move {run.location} away, or delete it")
    return [run.summary for run in runs if run.summary and not run.summary.quarantined]


def find_run(output: str, run_id: str | None = None) -> RunSummary:
    """A finished run.

    Args:
        output: the folder of a run, or of many: then `run_id`'s, or else the newest.
        run_id: which.

    Raises:
        SpecError: there is no such run, or it is not finished.
    """
    folder = _absolute(output)
    location = f"{folder}/run_id={run_id}" if run_id else folder
    while successor := superseded_by(location):
        location = f"{location.rpartition('/run_id=')[0]}/run_id={successor}"
    if summary := read_summary(location):
        return summary
    if run_id or "/run_id=" in location:
        run = _look_at(location)
        how = f"{state(run)}; annotate with its run_id goes on" if run else "no annotation"
        raise SpecError(f"{location}: the run is {how}")
    if finished := finished_runs(folder):
        return max(finished, key=lambda summary: summary.finished)
    raise SpecError(f"{folder}: no finished run there; `paliflow runs` lists those begun")


def state(run: Run) -> str:
    """How far a run is, in words."""
    if run.broken:
        return f"broken: {brief(run.broken)}"
    if run.summary and run.summary.quarantined:
        return "quarantined"
    if run.summary:
        return "finished, released" if run.summary.released else "finished"
    if run.superseded_by:
        return f"superseded by {run.superseded_by}"
    if run.plan:
        return f"unfinished, {run.parts} of {run.plan.shards} parts done"
    return "planning or not there"


@overload
def read_summary(location: str) -> RunSummary | None: ...
@overload
def read_summary(location: str, kind: type[S]) -> S | None: ...
def read_summary(location: str, kind: type[Summary] = RunSummary) -> Summary | None:
    """The manifest in a run's folder, wherever that was moved; None if it is not finished, or
    was superseded.

    Args:
        location: the run's folder.
        kind: what the run was.
    """
    try:
        return _moved(read_spec(f"{location}/{MANIFEST}", kind), location)
    except FileNotFoundError:
        return None
    except SpecError:
        if superseded_by(location):
            return None
        raise


def superseded_by(location: str) -> str | None:
    """The id of the run that was started over in the place of this one; None if there is none.

    Args:
        location: the run's folder.
    """
    try:
        manifest = json.loads(storage.read_bytes(f"{location}/{MANIFEST}"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return None  # whoever parses it says what is wrong
    return manifest.get(SUPERSEDED_BY) if isinstance(manifest, dict) else None


def write_manifest(summary: Summary, *, again: bool = False) -> None:
    """Writes the manifest that makes a run finished; the first to write it decides.

    Args:
        summary: what to write.
        again: in place of the manifest that is there.
    """
    write = storage.overwrite if again else storage.commit_if_absent
    content = io.BytesIO(summary.model_dump_json(indent=2).encode())
    write(f"{summary.location}/{MANIFEST}", content)


def row_files(summary: RunSummary) -> list[str]:
    """The URIs of the files that hold a finished run's rows, in the order of its inputs."""
    if summary.files:
        return [f"{summary.location}/{name}" for name in summary.files]
    return [part_uri(summary.location, shard) for shard in range(summary.shards)]


def sample_rows(summary: RunSummary, count: int) -> list[dict[str, Any]]:
    """At most `count` rows, evenly spaced in the beginnings of a finished run's files."""
    rows: list[dict[str, Any]] = []
    chosen = evenly_spaced(row_files(summary), count)
    for uri in chosen:
        with storage.open_binary(uri) as file:
            batches = pq.ParquetFile(file).iter_batches(4096, columns=_SHOWN)
            for beginning in islice(batches, 1):  # a part may have no rows, and then no batch
                rows += evenly_spaced(beginning.to_pylist(), -(-count // len(chosen)))
    return evenly_spaced(rows, count)


def evenly_spaced(items: Sequence[_T], count: int) -> list[_T]:
    """At most `count` of them, evenly spaced."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _look_among_others(location: str) -> Run | None:
    try:
        return _look_at(location)
    except SpecError as error:
        return Run(location, None, broken=str(error))


def _look_at(location: str) -> Run | None:
    """How far an annotation run is; None if the run is of another kind."""
    uri = f"{location}/{MANIFEST}"
    with contextlib.suppress(FileNotFoundError):
        manifest = read_record(uri)
        if manifest["kind"] != "annotate":
            return None
        if SUPERSEDED_BY in manifest:
            return Run(location, None, superseded_by=manifest[SUPERSEDED_BY])
        return Run(location, _moved(parse_record(manifest, uri, RunSummary), location))
    uri = plan_uri(location)
    try:
        record = read_record(uri)
    except FileNotFoundError:
        return Run(location, None)
    if record["kind"] != "annotate":
        return None
    plan, present = parse_record(record, uri, Plan), present_parts(location)
    latest = read_part(location, max(present)) if present else None
    return Run(location, None, plan, len(present), latest)


def _moved(summary: S, location: str) -> S:
    """The summary of a run whose folder may lie elsewhere by now."""
    return summary.model_copy(update={"location": location})


def _absolute(output: str) -> str:
    if "://" in output and not output.startswith("gs://"):
        raise SpecError(f"output={output!r}: outputs are local folders or gs:// prefixes")
    if "://" not in output and Path(output).is_file():
        raise SpecError(f"output={output!r}: a file; give the folder of runs, or of one run")
    return storage.absolute(output)
