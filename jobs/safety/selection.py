"""What remains of a filter run: duplicates found among all parts, then two tables written.

`kept.parquet` is a manifest of what remains; `_safety.parquet` lists what was removed, changed or
flagged. Both follow from the parts alone, so that whoever writes them again writes the same.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.configs import DuplicatesFilter, FilterSpec, FilterSummary
from paliflow.configs.base import SpecError
from paliflow.configs.safety import Verdict
from paliflow.configs.schema import AUDIT, SAFETY
from paliflow.jobs.runs.outputs import read_summary
from paliflow.jobs.runs.parts import part_uri
from paliflow.jobs.safety.hashing import HASH_BYTES, VERSION, as_words
from paliflow.jobs.safety.near import Near, NearIndex, duplicates

KEPT = "kept.parquet"
AUDIT_TABLE = "_safety.parquet"
_ROWS = 8192


@dataclass
class Selection:
    """How many rows of which kind there are."""

    kept: int = 0
    removed: int = 0
    changed: int = 0
    unscored: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    versions: dict[str, str] = field(default_factory=dict)


class _Known(NamedTuple):
    """Images of other runs."""

    near: NearIndex
    images: list[str]
    flat: dict[bytes, str]
    """Of images without a hash, the digest of what they look like."""


def select(spec: FilterSpec, shards: int) -> Selection:
    """Decides what remains of a run whose parts are all there, and writes both tables.

    Memory holds 32 bytes of each image twice, and the rows of one batch.

    Raises:
        SpecError: as of `excluded_runs`.
    """
    run = spec.location
    hashes, digests, candidates = _fingerprints(run, shards, keep_unscored=spec.unscored == "keep")
    verdicts: dict[int, Verdict] = {}
    if spec.exclude_near:
        verdicts |= _excluded(hashes, digests, candidates, _known(spec))
    settings = next((f for f in spec.filters if isinstance(f, DuplicatesFilter)), None)
    if settings:
        rest = np.array([place for place in candidates if place not in verdicts], np.int64)
        verdicts |= _repeated(run, shards, hashes, digests, rest, settings)
    return _write(run, shards, spec, verdicts, settings is not None)


def _fingerprints(
    run: str, shards: int, *, keep_unscored: bool
) -> tuple[np.ndarray[Any, Any], list[bytes | None], np.ndarray[Any, Any]]:
    """Hashes of all rows, uint64 [rows, 4]; digests of those without a hash and None of others;
    and the places of the rows that are not removed yet."""
    words, digests, candidates = [np.zeros((0, 4), np.uint64)], list[bytes | None](), list[int]()
    none = bytes(HASH_BYTES)
    staying = ("ok", "unscored") if keep_unscored else ("ok",)
    for batch in _batches(run, shards, ["image_hash", "pixels_sha256", "status"]):
        columns = batch.to_pydict()
        own = columns["image_hash"]
        words.append(as_words([each or none for each in own]))
        begin = len(digests)
        pairs = zip(own, columns["pixels_sha256"], strict=True)
        digests += [None if hashed else digest for hashed, digest in pairs]
        candidates += [
            begin + number for number, each in enumerate(columns["status"]) if each in staying
        ]
    return np.concatenate(words), digests, np.array(candidates, np.int64)


def excluded_runs(spec: FilterSpec) -> list[FilterSummary]:
    """The finished filter runs that a spec's `exclude_near` names.

    Raises:
        SpecError: one is none, or saw its images another way up, so that an image which EXIF turns
            would not be found.
    """
    found = []
    for run in spec.exclude_near:
        summary = read_summary(run, FilterSummary)
        if summary is None:
            raise SpecError(
                f"exclude_near={run!r}: no finished filter run there; give the folder that "
                "`paliflow filter` has printed, <output>/run_id=<run_id>"
            )
        if (theirs := exif_of(summary)) != spec.exif:
            raise SpecError(
                f"exclude_near={run!r} is a filter run with exif: {theirs}, and exif={spec.exif!r} "
                f"is wanted here: filter those images again with exif: {spec.exif}"
            )
        found.append(summary)
    return found


def exif_of(summary: FilterSummary) -> str:
    """What a filter run did of the turns that EXIF wants: its spec's `exif`."""
    return str(summary.spec.get("exif", FilterSpec.model_fields["exif"].default))


def _known(spec: FilterSpec) -> _Known:
    """The images of other filter runs, each hash once."""
    words, images, flat = [np.zeros((0, 4), np.uint64)], list[str](), dict[bytes, str]()
    for run, summary in zip(spec.exclude_near, excluded_runs(spec), strict=True):
        columns = ["image", "image_hash", "pixels_sha256"]
        for batch in _batches(run, summary.shards, columns):
            rows = batch.to_pylist()
            hashed = [row for row in rows if row["image_hash"]]
            words.append(as_words([row["image_hash"] for row in hashed]))
            images += [row["image"] for row in hashed]
            others = (row for row in rows if row["pixels_sha256"] and not row["image_hash"])
            flat |= {row["pixels_sha256"]: row["image"] for row in others}
    every = np.concatenate(words)
    # Many equal hashes would be compared with each query.
    _, first = np.unique(every.view("V32").ravel(), return_index=True) if len(every) else ((), ())
    chosen = np.sort(np.asarray(first, np.int64))
    index = NearIndex()
    index.add(every[chosen])
    return _Known(index, [images[place] for place in chosen], flat)


def _excluded(
    hashes: np.ndarray[Any, Any],
    digests: Sequence[bytes | None],
    candidates: np.ndarray[Any, Any],
    known: _Known,
) -> dict[int, Verdict]:
    near = known.near.nearest(hashes[candidates])
    found = {}
    for number, place in enumerate(candidates.tolist()):
        digest = digests[place]
        if digest is not None:
            image, distance = known.flat.get(digest), 0
        else:
            same, distance = int(near.place[number]), int(near.distance[number])
            image = known.images[same] if same >= 0 else None
        if image is not None:
            found[place] = _near("exclude_near", "drop", image, distance)
    return found


def _repeated(
    run: str,
    shards: int,
    hashes: np.ndarray[Any, Any],
    digests: Sequence[bytes | None],
    rest: np.ndarray[Any, Any],
    settings: DuplicatesFilter,
) -> dict[int, Verdict]:
    hashed = np.array([place for place in rest.tolist() if digests[place] is None], np.int64)
    near: Near = duplicates(hashes[hashed], settings.max_distance)
    repeats = {
        int(hashed[number]): (int(hashed[same]), int(distance))
        for number, (same, distance) in enumerate(zip(*near, strict=True))
        if same >= 0
    }
    first: dict[bytes, int] = {}
    for place in rest.tolist():  # flat images are compared by their pixels alone
        digest = digests[place]
        if digest is not None and (same := first.setdefault(digest, place)) != place:
            repeats[place] = (same, 0)
    images = _images(run, shards, {same for same, _ in repeats.values()})
    return {
        place: _near("duplicates", settings.action, images[same], distance)
        for place, (same, distance) in repeats.items()
    }


def _near(by: str, action: str, image: str, distance: int) -> Verdict:
    reason = f"{distance} of 256 bits differ from {image}"
    return Verdict(by, VERSION, "image", "duplicate", 1.0, action, reason)


def _images(run: str, shards: int, places: set[int]) -> dict[int, str]:
    """The images of some rows."""
    found, begin = dict[int, str](), 0
    for batch in _batches(run, shards, ["image"]) if places else ():
        for number, image in enumerate(batch.column(0).to_pylist(), begin):
            if number in places:
                found[number] = image
        begin += batch.num_rows
    return found


def _batches(run: str, shards: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a run in the order of its inputs."""
    for shard in range(shards):
        with storage.open_binary(part_uri(run, shard)) as file:
            yield from pq.ParquetFile(file).iter_batches(_ROWS, columns=columns)


def _write(
    run: str, shards: int, spec: FilterSpec, near: Mapping[int, Verdict], compared: bool
) -> Selection:
    kept_columns = pa.schema(
        [
            *(("image", pa.string()), ("id", pa.string()), ("metadata", pa.string())),
            *((name, pa.string()) for name in spec.text_columns),
            *(("width", pa.int32()), ("height", pa.int32()), ("source_sha256", pa.string())),
            *(("image_hash", pa.binary(HASH_BYTES)), ("safety", SAFETY)),
        ]
    )
    done, place = Selection(), 0
    with tempfile.TemporaryFile() as kept_file, tempfile.TemporaryFile() as audit_file:
        with (
            pq.ParquetWriter(pa.PythonFile(kept_file, mode="w"), kept_columns) as kept,
            pq.ParquetWriter(pa.PythonFile(audit_file, mode="w"), AUDIT) as audit,
        ):
            for batch in _batches(run, shards):
                remaining, told = [], []
                for row in batch.to_pylist():
                    own = near.get(place)
                    if own or (compared and row["status"] in ("ok", "unscored")):
                        passed = Verdict(
                            "duplicates", VERSION, "image", "duplicate", 0.0, "pass", None
                        )
                        row["safety"].append((own or passed)._asdict())
                    place += 1
                    stays = _count(row, own, spec.unscored == "keep", done)
                    told += _told(row, stays)
                    copy = row.get("copy") and f"{run}/{row['copy']}"
                    if copy and not stays:
                        storage.delete(copy)
                    if stays:
                        row["image"] = copy or row["image"]
                        texts = {each["column"]: each["text"] for each in row["texts"]}
                        remaining.append(row | texts)
                kept.write_table(pa.Table.from_pylist(remaining, kept_columns))
                audit.write_table(pa.Table.from_pylist(told, AUDIT))
        # The audit first: who finds what was kept finds why the rest was not.
        storage.overwrite(f"{run}/{AUDIT_TABLE}", audit_file)
        storage.overwrite(f"{run}/{KEPT}", kept_file)
    return done


def _count(
    row: Mapping[str, Any], near: Verdict | None, keep_unscored: bool, done: Selection
) -> bool:
    """Counts a row; returns whether it stays."""
    status = row["status"]
    for each in row["safety"]:
        done.versions[each["filter"]] = each["version"]
        if each["action"] != "pass":
            done.flagged[f"{each['filter']}/{each['label']}/{each['action']}"] += 1
    if status == "error":
        return False
    filtered = status == "filtered" or (near is not None and near.action == "drop")
    done.unscored += status == "unscored"
    done.removed += filtered
    stays = not filtered and (status == "ok" or keep_unscored)
    done.kept += stays
    done.changed += stays and any(each["action"] == "redact" for each in row["safety"])
    return stays


def _told(row: Mapping[str, Any], stays: bool) -> list[dict[str, Any]]:
    """The audit's rows of an input: none of one that nothing was found in."""
    about = {name: row[name] for name in ("image", "id", "source_sha256")} | {"kept": stays}
    if row["status"] == "error":
        return [about | {"action": "error", "reason": row["error"]}]
    return [about | each for each in row["safety"] if each["action"] != "pass"]
