"""`RunSummary`: what `_manifest.json` holds and what a job reports when it ends."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from paliflow.configs.base import Spec

SPEC_VARIABLE = "PALIFLOW_SPEC"
"""The environment variable that carries a spec, as JSON, to `python -m paliflow.jobs`."""
SUMMARY_PREFIX = "paliflow-summary: "
"""What precedes the summary's JSON on the last line that `python -m paliflow.jobs` prints."""


class RunSummary(Spec):
    """A finished run. Written last: a run without it is unfinished.

    Fields that a newer version has written are passed over.
    """

    model_config = ConfigDict(extra="ignore")

    run_id: str
    location: str
    """The folder of this run: `<output>/run_id=<run_id>`."""
    spec: dict[str, Any]
    """The `AnnotateSpec` as JSON."""
    inputs: int
    rows: int
    ok: int
    errors: int
    error_reasons: dict[str, int] = Field(default_factory=dict)
    """The most common errors and how many rows have them."""
    shards: int
    files: tuple[str, ...] = ()
    """The files in `location` that hold the rows, if the run was compacted; else they are its
    parts, `part-00000.parquet` to the last shard's."""
    checkpoint: str
    """Where the weights came from."""
    checkpoint_sha256: str
    started: datetime
    finished: datetime
    seconds: float
    """Wall time of the job that finished the run."""
    images_per_second: float
    """Inputs done by that job over its wall time, start-up included."""
    versions: dict[str, str]
