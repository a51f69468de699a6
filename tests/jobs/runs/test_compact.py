"""Compaction: the same rows in fewer files, whenever it is killed and whoever else compacts."""

import io
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paliflow import storage
from paliflow.configs import RunSummary
from paliflow.configs.schema import DETECTION
from paliflow.jobs.runs import compact as compaction
from paliflow.jobs.runs.compact import compact, pieces
from paliflow.jobs.runs.outputs import read_summary, row_files
from paliflow.jobs.runs.parts import part_uri
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.jobs.outputs import finish

IMAGES = 20


def rows_of(summary: RunSummary) -> list[dict[str, Any]]:
    """What a reader that trusts the manifest sees."""
    return [
        row
        for uri in row_files(summary)
        for row in pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_pylist()
    ]


def names(location: str) -> set[str]:
    found = (entry.uri.removeprefix(f"{location}/") for entry in storage.list_files(location))
    return {name for name in found if not name.startswith("_plan/")}


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    write_mixed(tmp_path / "images", IMAGES)
    return [Item(str(path)) for path in sorted((tmp_path / "images").rglob("*.*"))]


@pytest.fixture(params=["local", pytest.param("gs", marks=pytest.mark.slow)])
def finished(
    request: pytest.FixtureRequest,
    gcs: None,
    make_spec: SpecFactory,
    items: list[Item],
    tmp_path: Path,
) -> RunSummary:
    """A run of seven parts."""
    output = str(tmp_path / "out") if request.param == "local" else f"gs://images/{tmp_path.name}"
    return finish(make_spec(input="images", output=output, shard_size=3), items)


def test_the_same_rows_in_the_same_order_in_one_file_that_the_manifest_names(
    finished: RunSummary,
) -> None:
    before = rows_of(finished)
    assert len(before) == 2 * IMAGES
    compacted = compact(finished)
    assert compacted.files == ("part-00000-of-00001.parquet",)
    assert compacted == read_summary(finished.location)
    assert rows_of(compacted) == before
    assert names(finished.location) == {
        *("_manifest.json", "_compact/decision.json", "part-00000-of-00001.parquet"),
    }


def test_a_file_still_says_what_made_it_and_when_each_part_was_done(finished: RunSummary) -> None:
    footers = [pq.read_metadata(io.BytesIO(storage.read_bytes(uri))) for uri in row_files(finished)]
    held = [piece for footer in footers for piece in pieces(footer)]
    (uri,) = row_files(compact(finished))
    footer = pq.read_metadata(io.BytesIO(storage.read_bytes(uri)))
    said, first = footer.metadata, footers[0].metadata
    for key in (b"schema_version", b"spec", b"checkpoint_sha256", b"version"):
        assert said[b"paliflow." + key] == first[b"paliflow." + key]
    assert said[b"paliflow.errors"] == str(finished.errors).encode()
    assert said[b"paliflow.inputs"] == str(finished.inputs).encode()
    assert json.loads(said[b"paliflow.reasons"]) == finished.error_reasons
    assert pieces(footer) == held
    assert footer.num_row_groups == 1


def test_files_are_cut_where_they_are_large_enough(
    finished: RunSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILE_BYTES", 1)
    before = rows_of(finished)
    spec = finished.spec | {"row_group_size": 12}
    compacted = compact(finished.model_copy(update={"spec": spec}))
    assert compacted.files == tuple(f"part-0000{k}-of-00004.parquet" for k in range(4))
    assert rows_of(compacted) == before


def test_compacting_again_changes_nothing(finished: RunSummary) -> None:
    once = compact(finished)
    entries = list(storage.list_files(finished.location))
    assert compact(once) == once
    assert list(storage.list_files(finished.location)) == entries
    assert compact(finished) == once  # by someone who has not seen the new manifest


def test_a_folder_reader_sees_each_row_once_before_and_after(
    make_spec: SpecFactory, items: list[Item]
) -> None:
    summary = finish(make_spec(input="images", shard_size=3), items)
    output = Path(summary.location).parent
    before = pd.read_parquet(output)
    compact(summary)
    after = pd.read_parquet(output)
    assert len(before) == 2 * IMAGES
    columns = ["source_uri", "prompt", "text", "error"]
    pd.testing.assert_frame_equal(before[columns], after[columns])


class KilledError(BaseException):
    """What stands for a kill: nothing catches it."""


WRITES = ("commit_if_absent", "copy_if_absent", "overwrite", "delete")


class Mortal:
    """The storage, whose writer dies before its n-th change, or after it was made."""

    def __init__(self, last: int, after: bool) -> None:
        self._left, self._after = last, after
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        function = getattr(storage, name)
        return self._mortal(function) if name in WRITES else function

    def _mortal(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            with self._lock:
                self._left -= 1
                if self._left < 0 or (self._left == 0 and not self._after):
                    raise KilledError
                done = function(*arguments)
                if self._left == 0:
                    raise KilledError
                return done

        return change


def copies(summary: RunSummary, folder: Path) -> Iterator[RunSummary]:
    for number in itertools.count():
        location = folder / f"copy {number}" / "run_id=test"
        shutil.copytree(summary.location, location)
        yield summary.model_copy(update={"location": str(location)})


def test_killed_at_any_point_readers_see_each_row_once_and_the_next_one_finishes(
    make_spec: SpecFactory, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILE_BYTES", 1)
    spec = make_spec(input="images", shard_size=3, row_group_size=20)
    original = finish(spec, items)
    before = rows_of(original)
    fresh = copies(original, tmp_path)
    died = 0
    for last, after in itertools.product(range(1, 30), (False, True)):
        summary = next(fresh)
        monkeypatch.setattr(compaction, "storage", Mortal(last, after))
        try:
            compact(summary)
        except KilledError:
            died += 1
        monkeypatch.setattr(compaction, "storage", storage)
        seen = read_summary(summary.location)
        assert seen is not None
        assert rows_of(seen) == before
        compacted = compact(seen)
        assert rows_of(compacted) == before
        assert names(summary.location) == {
            *("_manifest.json", "_compact/decision.json"),
            *compacted.files,
        }
    assert 20 < died < 58  # the last ones had no point left to die at


class Overtaken:
    """The storage, where before the n-th use of it something else happens."""

    def __init__(self, last: int, happens: Callable[[], object]) -> None:
        self._uses, self._happens = itertools.count(1), happens
        self._last = last
        self.happened = False

    def __getattr__(self, name: str) -> Any:
        if next(self._uses) == self._last:
            self.happened = True
            self._happens()
        return getattr(storage, name)


def test_a_compactor_that_is_overtaken_at_any_point_does_no_harm(
    make_spec: SpecFactory, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = finish(make_spec(input="images", shard_size=3, row_group_size=12), items)
    before = rows_of(original)

    def overtake(summary: RunSummary) -> None:
        monkeypatch.setattr(compaction, "FILE_BYTES", 2**20)  # it cuts the rows into other files
        compact(summary)

    for last, summary in enumerate(copies(original, tmp_path), start=1):
        monkeypatch.setattr(compaction, "FILE_BYTES", 1)
        overtaken = Overtaken(last, partial(overtake, summary))
        monkeypatch.setattr(compaction, "storage", overtaken)
        compacted = compact(summary)
        monkeypatch.setattr(compaction, "storage", storage)
        assert read_summary(summary.location) == compacted
        assert rows_of(compacted) == before
        kept = {"_manifest.json", "_compact/decision.json", *compacted.files}
        assert names(summary.location) == kept
        if not overtaken.happened:
            break
    assert last > 10


def test_many_compactors_at_once_end_with_each_row_once(finished: RunSummary) -> None:
    before = rows_of(finished)
    start = threading.Barrier(4)

    def run(_: int) -> RunSummary:
        start.wait()
        return compact(finished)

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(run, range(4)))
    compacted = read_summary(finished.location)
    assert compacted is not None
    assert all(end == compacted for end in ends)
    assert rows_of(compacted) == before
    compact(compacted)
    assert names(finished.location) == {
        *("_manifest.json", "_compact/decision.json"),
        *compacted.files,
    }


def test_a_missing_part_is_said_and_nothing_is_deleted(finished: RunSummary) -> None:
    storage.delete(part_uri(finished.location, 5))
    left = names(finished.location)
    with pytest.raises(FileNotFoundError, match="part-00005"):
        compact(finished)
    assert names(finished.location) >= left
    assert read_summary(finished.location) == finished


def test_parts_of_an_older_version_get_the_new_columns(
    make_spec: SpecFactory, items: list[Item]
) -> None:
    summary = finish(make_spec(input="images", shard_size=3), items)
    before = rows_of(summary)
    for shard in (0, 3):
        table = pq.read_table(part_uri(summary.location, shard)).drop_columns(["id"])
        # Detections had fewer fields, too.
        place = table.schema.get_field_index("detections")
        older = pa.list_(pa.struct(list(DETECTION)[:-2]))
        schema = table.schema.set(place, pa.field("detections", older))
        table = pa.Table.from_pylist(table.to_pylist(), schema)
        pq.write_table(table, part_uri(summary.location, shard))
    assert rows_of(compact(summary)) == before
