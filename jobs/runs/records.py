"""What a run writes of itself as JSON, its plan and its manifest, in files of every version."""

import io
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from paliflow import storage
from paliflow.configs.base import Spec, SpecError
from paliflow.jobs.runs.json_records import json_record

_S = TypeVar("_S", bound=Spec)
_ALWAYS_THERE = {"sets": "evaluate", "train": "finetune", "longest_side": "extract"}
"""Fields that every spec of a kind has, and none of another kind."""
_OLDER_THAN_DECODE = ("annotate", "evaluate", "finetune")
"""Kinds of runs of a model that there were before specs had a `decode`."""


def with_kind(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plan's or a manifest's JSON with the `kind` of its run, which it has in its spec,
    too.

    Files that were written before there was a `kind` get the one that their spec's fields tell;
    what has no spec counts as an annotation's. Before there was a `decode`, images were read
    exactly.
    """
    spec = record.get("spec")
    if not isinstance(spec, Mapping):
        return {"kind": "annotate", **record}
    told = (kind for field, kind in _ALWAYS_THERE.items() if field in spec)
    kind = record.get("kind") or spec.get("kind") or next(told, "annotate")
    before = {"decode": "exact"} if kind in _OLDER_THAN_DECODE else {}
    return {**record, "kind": kind, "spec": {"kind": kind, **before, **spec}}


def read_record(uri: str) -> dict[str, Any]:
    """A plan's or a manifest's JSON, with its kind.

    Raises:
        SpecError: it is no JSON object; the message names the file.
        FileNotFoundError: it is not there.
    """
    try:
        return with_kind(json_record(storage.read_bytes(uri), "it"))
    except ValueError as error:
        raise _broken(uri, error) from None


def read_spec(uri: str, model: type[_S]) -> _S:
    """A plan or a manifest.

    Args:
        uri: of the file.
        model: what it is; the literals of its `kind` are the runs that it may be of.

    Raises:
        SpecError: it is broken, of a newer version, or of a run of another kind; the message names
            the file.
        FileNotFoundError: it is not there.
    """
    return parse_record(read_record(uri), uri, model)


def find_spec(uri: str, model: type[_S]) -> _S | None:
    """As `read_spec`; None if it is not there."""
    try:
        return read_spec(uri, model)
    except FileNotFoundError:
        return None


def commit_spec(uri: str, spec: _S) -> _S:
    """Writes what a run settles once, and returns it.

    Of two that settle the same, the first decides for both: the second gets what the first wrote.

    Raises:
        SpecError: as in `read_spec`.
    """
    content = io.BytesIO(spec.model_dump_json(indent=2).encode())
    return spec if storage.commit_if_absent(uri, content) else read_spec(uri, type(spec))


def parse_record(record: dict[str, Any], uri: str, model: type[_S]) -> _S:
    """As `read_spec`, of a file that was read already."""
    kinds = get_args(model.model_fields["kind"].annotation)
    if record["kind"] not in kinds:
        raise SpecError(
            f"{uri} is of a run of another kind, {record['kind']!r} instead of "
            f"{' or '.join(map(repr, kinds))}; take another run_id or output"
        )
    try:
        return model.parse(record)
    except SpecError as error:
        raise _broken(uri, error) from None


def _broken(uri: str, error: Exception) -> SpecError:
    return SpecError(f"{uri} is broken, or of a newer Paliflow: {error}")
