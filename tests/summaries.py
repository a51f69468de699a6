"""Summaries of runs that never were, for manifests that are only read."""

from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from paliflow.configs import RunSummary
from paliflow.configs.summary import Summary

Kind = TypeVar("Kind", bound=Summary)


@overload
def made_up(location: str, **fields: Any) -> RunSummary: ...
@overload
def made_up(location: str, kind: type[Kind], **fields: Any) -> Kind: ...
def made_up(location: str, kind: type[Summary] = RunSummary, **fields: Any) -> Summary:
    """The summary of a finished run, of one input unless it is of another kind; any field may be
    given."""
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "run_id": location.rpartition("/run_id=")[2],
        "location": location,
        "spec": {},
        "inputs": 1,
        "rows": 1,
        "ok": 1,
        "errors": 0,
        "shards": 1,
        "checkpoint": "somewhere",
        "checkpoint_sha256": "c" * 64,
        "started": now,
        "finished": now,
        "seconds": 1.0,
        "images_per_second": 1.0,
        "versions": {},
    }
    return kind.parse(defaults | fields)
