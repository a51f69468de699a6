"""Incremental runs: what earlier runs have answered is skipped, and nothing else."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.incremental import filter_unanswered
from paliflow.tests.summaries import made_up

ASKED = ("caption en", "ocr")
SHA = {content: hashlib.sha256(content).hexdigest() for content in (b"one", b"two")}


def spec_of(output: str, **fields: Any) -> AnnotateSpec:
    given = {"input": "x", "output": output, "run_id": "now", "prompts": ASKED}
    return AnnotateSpec.parse(given | fields)


def row(
    uri: str, prompt: str = "caption en", *, version: str | None = "1", content: bytes = b"one"
) -> dict[str, Any]:
    return {
        "source_uri": uri,
        "source_version": version,
        "source_sha256": SHA[content],
        "prompt": prompt,
        "status": "ok",
    }


def rows(uri: str, **fields: Any) -> list[dict[str, Any]]:
    return [row(uri, prompt, **fields) for prompt in ASKED]


def write_run(
    output: str,
    parts: Sequence[Sequence[dict[str, Any]]],
    *,
    run_id: str = "before",
    checkpoint: str = "c",
    names: Sequence[str] = (),
    finished: bool = True,
    schema: pa.Schema = ANNOTATIONS,
    **fields: Any,
) -> None:
    run = f"{output}/run_id={run_id}"
    for number, part in enumerate(parts):
        name = names[number] if names else f"part-{number:05d}.parquet"
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(part), schema), file)
        storage.commit_if_absent(f"{run}/{name}", file)
    if finished:
        write_manifest(
            made_up(
                run, shards=len(parts), files=tuple(names), checkpoint_sha256=checkpoint, **fields
            )
        )


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "output")


def left(output: str, items: Sequence[Item], checkpoint: str = "c", **fields: Any) -> list[Item]:
    return list(filter_unanswered(items, spec_of(output, **fields), [checkpoint]))


def test_a_first_run_does_everything(output: str) -> None:
    assert left(output, [Item("a", version="1")]) == [Item("a", version="1")]


def test_what_a_finished_run_answered_is_skipped_unread(output: str) -> None:
    write_run(output, [rows("a"), [*rows("b"), *rows("c")]])
    items = [Item(uri, version="1") for uri in "xaybcz"]
    assert left(output, items) == [Item(uri, version="1") for uri in "xyz"]


def test_several_runs_count_together(output: str) -> None:
    write_run(output, [[row("a", "caption en")]], run_id="1")
    write_run(output, [[row("a", "ocr")]], run_id="2")
    assert left(output, [Item("a", version="1")]) == []


def test_an_answer_from_other_choices_does_not_count(output: str) -> None:
    fixed: dict[str, Any] = {"ask": "ocr", "choices": ["1", "2"]}
    spec = spec_of(output, prompts=["caption en", fixed]).model_dump(mode="json")
    write_run(output, [rows("a")], spec=spec)
    items = [Item("a", version="1"), Item("b", version="1")]
    assert left(output, items, prompts=["caption en", fixed]) == items[1:]
    assert left(output, items) == items
    assert left(output, items, prompts=["caption en", fixed | {"choices": ["1", "3"]}]) == items
    # What is left of a manifest's row keeps where it came from.
    asked = Item("a", version="1", prompts=("question", "ocr", "caption en"), asks=(2, 1, 0))
    (item,) = left(output, [asked], prompts=["caption en", fixed])
    assert (item.prompts, item.asks) == (("question",), (2,))


@pytest.mark.parametrize(
    "earlier",
    [
        {"checkpoint": "another"},
        {"finished": False},
        {"parts": [[fields | {"status": "error"} for fields in rows("a")]]},
        {"parts": [rows("b")]},
        {"parts": [[row("a", "describe"), row("a", "question")]]},
    ],
)
def test_other_weights_unfinished_runs_errors_and_other_questions_do_not_count(
    output: str, earlier: dict[str, Any]
) -> None:
    write_run(output, **{"parts": [rows("a")], **earlier})
    assert left(output, [Item("a", version="1")]) == [Item("a", version="1")]


def test_the_prompts_that_were_not_answered_are_left(output: str) -> None:
    write_run(output, [[row("a", "ocr"), row("b", "own?")]])
    items = [
        Item("a", version="1"),
        Item("b", version="1", prompts=("own?", "ocr")),
        Item("b", version="1", prompts=("own?",)),
    ]
    assert left(output, items) == [
        Item("a", version="1", prompts=("caption en",)),
        Item("b", version="1", prompts=("ocr",)),
    ]


@pytest.mark.parametrize("version", [None, "2"])
def test_without_the_same_version_the_content_decides(
    output: str, tmp_path: Path, version: str | None
) -> None:
    same, changed, gone = (str(tmp_path / name) for name in ("same", "changed", "gone"))
    Path(same).write_bytes(b"one")
    Path(changed).write_bytes(b"two")
    write_run(output, [[*rows(same), *rows(changed), *rows(gone)]])
    items = [Item(uri, version=version, metadata="{}") for uri in (same, changed, gone)]
    assert left(output, items) == items[1:]


def test_content_that_came_back_is_known(output: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    Path(uri).write_bytes(b"one")
    write_run(output, [rows(uri, version="1", content=b"one")], run_id="1")
    write_run(output, [rows(uri, version="2", content=b"two")], run_id="2")
    assert left(output, [Item(uri, version="3")]) == []


def test_a_version_stands_for_its_content_in_every_run(output: str) -> None:
    write_run(output, [[row("a", "caption en", version="1")]], run_id="1")
    write_run(output, [[row("a", "ocr", version="2")]], run_id="2")
    write_run(output, [[row("b", "ocr", version="2", content=b"two")]], run_id="3")
    write_run(output, [[row("b", "caption en", version="1")]], run_id="4")
    assert left(output, [Item("a", version="2"), Item("b", version="2")]) == [
        Item("b", version="2", prompts=("caption en",))
    ]


def test_members_of_a_repacked_tar_are_compared_by_their_bytes(output: str, tmp_path: Path) -> None:
    tar = str(tmp_path / "x.tar")
    Path(tar).write_bytes(b"..onetwo")
    write_run(output, [[*rows(f"{tar}#a"), *rows(f"{tar}#b")]])
    items = [Item(f"{tar}#a", tar, 2, 3, "2"), Item(f"{tar}#b", tar, 5, 3, "2")]
    assert left(output, items) == items[1:]
    assert left(output, [item._replace(version="1") for item in items]) == []


def test_the_same_content_at_another_place_is_not_skipped(output: str) -> None:
    write_run(output, [rows("a")])
    assert left(output, [Item("b", version="1")]) == [Item("b", version="1")]


def test_an_input_that_is_asked_twice_is_skipped_twice(output: str) -> None:
    write_run(output, [[row("a", "1?"), row("a", "3?")]])
    items = [Item("a", version="1", prompts=(f"{n}?",)) for n in range(4)]
    assert left(output, items) == [items[0], items[2]]


def test_a_compacted_run_is_read_from_the_files_that_count(output: str) -> None:
    write_run(output, [rows("a"), rows("b")], names=("one.parquet", "two.parquet"))
    assert left(output, [Item("a", version="1"), Item("b", version="1")]) == []


def test_parts_of_an_older_version_lack_columns(output: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    Path(uri).write_bytes(b"one")
    older = pa.schema([field for field in ANNOTATIONS if field.name != "source_version"])
    write_run(output, [rows(uri)], schema=older)
    assert left(output, [Item(uri, version="1")]) == []


def test_an_output_that_was_moved_keeps_its_history(output: str, tmp_path: Path) -> None:
    write_run(output, [rows("a")])
    Path(output).rename(tmp_path / "moved [1]")
    assert left(str(tmp_path / "moved [1]"), [Item("a", version="1")]) == []


def test_a_host_that_the_spec_does_not_allow_is_not_asked(output: str) -> None:
    uri = "https://localhost:9/a.jpg"
    write_run(output, [rows(uri)])
    assert left(output, [Item(uri)]) == [Item(uri)]


@pytest.mark.slow
def test_a_history_of_several_blocks_in_a_bucket_keeps_the_items_in_order(gcs: None) -> None:
    output = "gs://images/incremental"
    uris = [f"gs://images/{n:05d} ü.jpg" for n in range(20_000)]
    parts = [[row(uri, "ocr") for uri in uris[k::40]] for k in range(0, 40, 2)]
    write_run(output, parts)
    items = [Item(uri, version="1", metadata=json.dumps({"n": n})) for n, uri in enumerate(uris)]
    assert left(output, items, prompts=["ocr"]) == items[1::2]
