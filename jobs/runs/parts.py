"""Rows to Parquet parts: one part a shard, created only if absent, telling what it holds."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.run import RunSpec
from paliflow.configs.schema import ANNOTATIONS

REASONS = 20
"""As many different errors are counted; most messages name no file, so that they repeat."""
_BLOCK = 1024
"""Footers that are asked for at once."""
_PART = re.compile(r"part-(\d{5,})\.parquet")


class Part(NamedTuple):
    """What a part's footer says."""

    rows: int
    inputs: int
    failed: int
    """Inputs with a row of status `error`."""
    errors: int
    """Rows with status `error`."""
    reasons: dict[str, int]
    """How many rows have each error."""
    cut: int
    """Rows whose answer ended at `max_new_tokens`."""
    checkpoint_sha256: str
    committed: datetime
    flagged: dict[str, int]
    """How many rows filters have flagged or not scored, by `<filter>/<label>/<action>`; and under
    `filtered` and `unscored`, how many rows have that status."""
    tokens: int = 0
    """Tokens generated for its rows."""
    chip_seconds: float = 0.0
    """How long its actor held chips for it, times their number."""
    device: str = ""
    """JAX's name of the chips; empty where no device was used."""
    accepted: int = 0
    """Answers and boxes with `accepted` true."""
    not_accepted: int = 0
    """Those with `accepted` false."""
    empty: int = 0
    """Rows whose answer has no text."""


def about_without_model(spec: RunSpec, inputs: int, failed: int) -> dict[str, str]:
    """What a part says of itself whose rows no model has looked at, for `commit_part`."""
    return {
        "spec": spec.model_dump_json(),
        "version": version("paliflow"),
        "checkpoint_sha256": "",
        "inputs": str(inputs),
        "failed": str(failed),
    }


def commit_part(
    run: str,
    shard: int,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, str],
    columns: pa.Schema = ANNOTATIONS,
    *,
    row_group_size: int = 16_384,
    compression_level: int = 3,
) -> bool:
    """Writes the rows of one shard as its part.

    Args:
        run: the run's folder.
        shard: the part's number.
        rows: by `columns`; those left out are null.
        about: what else the file shall say of itself; keys get the prefix `paliflow.`. It needs
            `inputs`, `failed` and `checkpoint_sha256`, and may have `chip_seconds` and `device`.
        columns: of the part, with what else it says of itself.
        row_group_size: rows a row group.
        compression_level: of zstd.

    Returns:
        False if the part was there already; the rows are dropped then.
    """
    texts = (row.get("text") for row in rows)
    reasons = Counter(row["error"] for row in rows if row["status"] == "error")
    metadata = {
        **about,
        "shard": str(shard),
        "errors": str(reasons.total()),
        "reasons": json.dumps(dict(reasons.most_common(REASONS))),
        "cut": str(sum(row.get("finished") is False for row in rows)),
        "flagged": json.dumps(_flagged(rows)),
        "tokens": str(sum(row.get("token_count") or 0 for row in rows)),
        **_accepted(rows),
        "empty": str(sum(not text.strip() for text in texts if text is not None)),
        "committed": datetime.now(UTC).isoformat(),
    }
    named = {f"paliflow.{key}": text for key, text in metadata.items()}
    schema = columns.with_metadata({**columns.metadata, **named})
    file = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema),
        file,
        row_group_size=row_group_size,
        compression="zstd",
        compression_level=compression_level,
    )
    return storage.commit_if_absent(part_uri(run, shard), file)


def _flagged(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """See `Part.flagged`."""
    flagged = Counter(
        f"{verdict['filter']}/{verdict['label']}/{verdict['action']}"
        for row in rows
        for verdict in row.get("safety") or ()
        if verdict["action"] != "pass"
    )
    flagged.update(row["status"] for row in rows if row["status"] in ("filtered", "unscored"))
    return dict(flagged)


def _accepted(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """See `Part.accepted` and `Part.not_accepted`."""
    said = Counter(
        answer.get("accepted") for row in rows for answer in (row, *(row.get("detections") or ()))
    )
    return {"accepted": str(said[True]), "not_accepted": str(said[False])}


def read_part(run: str, shard: int) -> Part:
    """Reads a part's footer.

    Raises:
        FileNotFoundError: the part is not there.
        SpecError: it is no part of a run, or broken.
    """
    uri = part_uri(run, shard)
    try:
        with storage.open_binary(uri) as file:
            footer = pq.read_metadata(file)
        said = footer.metadata
        return Part(
            footer.num_rows,
            int(said[b"paliflow.inputs"]),
            int(said[b"paliflow.failed"]),
            int(said[b"paliflow.errors"]),
            json.loads(said[b"paliflow.reasons"]),
            int(said.get(b"paliflow.cut", 0)),  # older versions did not count them
            said[b"paliflow.checkpoint_sha256"].decode(),
            datetime.fromisoformat(said[b"paliflow.committed"].decode()),
            json.loads(said.get(b"paliflow.flagged", b"{}")),
            int(said.get(b"paliflow.tokens", 0)),
            float(said.get(b"paliflow.chip_seconds", 0)),
            said.get(b"paliflow.device", b"").decode(),
            int(said.get(b"paliflow.accepted", 0)),
            int(said.get(b"paliflow.not_accepted", 0)),
            int(said.get(b"paliflow.empty", 0)),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(f"{uri} is no part of a run, or broken: {error}") from None


def read_parts(run: str, shards: Sequence[int]) -> Iterator[Part]:
    """Reads the footers of several parts at once; in order, streamed."""
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, len(shards), _BLOCK):
            yield from pool.map(partial(read_part, run), shards[start : start + _BLOCK])


def present_parts(run: str) -> set[int]:
    """The shards whose parts are there."""
    names = (entry.uri.removeprefix(f"{run}/") for entry in storage.list_files(run))
    return {int(found[1]) for name in names if (found := _PART.fullmatch(name))}


def part_uri(run: str, shard: int) -> str:
    """Where a shard's part lies."""
    return f"{run}/part-{shard:05d}.parquet"
