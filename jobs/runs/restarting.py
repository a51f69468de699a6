"""Starting a run over: which folder a run id stands for once its Airflow task was cleared."""

import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec
from paliflow.jobs.runs.compact import stop_compaction
from paliflow.jobs.runs.identity import differences
from paliflow.jobs.runs.json_records import json_record
from paliflow.jobs.runs.outputs import MANIFEST, SUPERSEDED_BY, superseded_by
from paliflow.jobs.runs.parts import part_uri
from paliflow.jobs.runs.paths import require_folder
from paliflow.jobs.runs.records import with_kind

_GENERATION = "_plan/generation.json"
_SPEC_FILES = (MANIFEST, "_plan/plan.json", "_plan/start.json")
"""The files of a run that hold its spec, whatever its job."""
_WRITERS = 16
R = TypeVar("R", bound=RunSpec)


def settle(spec: R, columns: pa.Schema | None = None) -> R:
    """Returns the spec with the run id whose folder holds this generation of the run.

    A run of a higher generation than its folder has seen starts over in a folder of its own
    (`<output>/run_id=<run_id>+2`, then `+3`), unless what is there is unfinished and has the same
    spec: that is resumed; or was held back and released since, and has the same spec: that counts
    as this generation's. The run before is superseded: its manifest names the successor, and its
    parts are replaced by parts without rows. A job of it that still runs somewhere finds every
    part present and drops its own, so none of its rows can appear later.

    A try that dies in the middle of this is completed by the next one.

    Args:
        spec: with absolute paths.
        columns: the columns of the run's parts; None for a job that writes no parts.

    Raises:
        SpecError: nothing can be written to its output, or what the run has written is broken.
    """
    name, number, before = spec.run_id, 1, None
    while True:
        run = spec.location
        seen = storage.version(f"{run}/{MANIFEST}")
        if successor := superseded_by(run):
            before, number = run, number + 1
            spec = spec.model_copy(update={"run_id": successor})
            continue
        known = _read_json(f"{run}/{_GENERATION}").get("generation")
        if known is None and before and columns:
            _empty(before, columns)
        begun = _begun_spec(run)
        # A run that was released is taken up once by who clears its task, to be announced.
        released = (_read_json(f"{run}/{MANIFEST}").get("released") or {}) if seen else {}
        taken_up = released.get("generation") == (known or 0)
        repeated = (seen is None or taken_up) and begun is not None and not differences(begun, spec)
        if spec.generation <= (known or 0) or begun is None or repeated:
            break
        # Whoever writes first decides; the next round reads what was decided.
        successor = f"{name}+{number + 1}"
        tombstone = {"kind": begun["kind"], SUPERSEDED_BY: successor, "spec": begun}
        storage.replace(f"{run}/{MANIFEST}", _json_file(tombstone), seen)
    if spec.generation > (known or 0) or (before and known is None):
        require_folder(spec)
        storage.overwrite(f"{run}/{_GENERATION}", _json_file({"generation": spec.generation}))
    return spec


def generation_of(run: str) -> int:
    """The generation that a run's folder has seen."""
    return int(_read_json(f"{run}/{_GENERATION}").get("generation") or 0)


def _empty(run: str, columns: pa.Schema) -> None:
    """Replaces all rows of a superseded run, present and still to come, by parts without rows."""
    shards = _read_json(f"{run}/_plan/plan.json").get("shards", 0)
    names = [part_uri(run, shard) for shard in range(shards)]
    names += [f"{run}/{name}" for name in stop_compaction(run)]
    content = io.BytesIO()
    pq.write_table(columns.empty_table(), content)

    def write(uri: str) -> None:
        storage.overwrite(uri, io.BytesIO(content.getvalue()))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, names))


def _begun_spec(run: str) -> dict[str, Any] | None:
    """The spec of a run as JSON; None while it has not written that down."""
    found = (with_kind(_read_json(f"{run}/{name}")).get("spec") for name in _SPEC_FILES)
    return next((spec for spec in found if spec), None)


def _read_json(uri: str) -> dict[str, Any]:
    """A JSON object; empty if the file is not there.

    Raises:
        SpecError: it is broken.
    """
    try:
        return json_record(storage.read_bytes(uri), uri)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SpecError(f"{error}; remove the run's folder, or take another run_id") from None


def _json_file(content: Mapping[str, Any]) -> io.BytesIO:
    return io.BytesIO(json.dumps(content, indent=2).encode())
