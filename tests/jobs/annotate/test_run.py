"""A run: every input times every prompt is one row, whatever happens on the way."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from paliflow import storage
from paliflow.benchmarks.digits import scenes
from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import ClusterError, SpecError
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.annotate import actor
from paliflow.jobs.annotate import job as run
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.runs.plan import write_plan
from paliflow.jobs.runs.spending import SpendingLimitError
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.annotate.mortal import MortalAnnotator
from paliflow.tests.jobs.conftest import SpecFactory, small_spec
from paliflow.tests.jobs.files import encode, write_mixed
from paliflow.tests.jobs.here import annotate_here

INPUTS, SHARD_SIZE = 80, 22


def annotate(spec: AnnotateSpec) -> RunSummary:
    return run.annotate(spec, Console())


def read_rows(location: str | Path) -> list[dict[str, Any]]:
    parts = sorted(Path(location).glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "images"
    write_mixed(folder, INPUTS)
    (folder / "notes.txt").write_text("not an input")
    return folder


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    """A run over the mixed folder in four shards, sampled so that seeds matter."""
    output = tmp_path_factory.mktemp("outputs") / "output"
    return annotate_here(small_spec(output, input=str(images), shard_size=SHARD_SIZE))


@pytest.fixture
def unfinished(finished: RunSummary, tmp_path: Path) -> AnnotateSpec:
    """A copy of that run that lacks its manifest and the parts of shards 1 and 2."""
    shutil.copytree(finished.spec["output"], tmp_path / "output")
    for name in ("_manifest.json", "part-00001.parquet", "part-00002.parquet"):
        (tmp_path / "output" / "run_id=test" / name).unlink()
    return AnnotateSpec.parse(finished.spec | {"output": str(tmp_path / "output")})


def test_every_input_and_prompt_is_one_row(finished: RunSummary, images: Path) -> None:
    rows = read_rows(finished.location)
    inputs = {str(path) for path in images.rglob("*.[jP]*") if path.is_file()}
    assert len(inputs) == INPUTS
    expected = sorted((uri, prompt) for uri in inputs for prompt in finished.spec["prompts"])
    assert sorted((row["source_uri"], row["prompt"]) for row in rows) == expected
    assert (finished.inputs, finished.rows, finished.shards) == (INPUTS, 2 * INPUTS, 4)
    assert (finished.ok, finished.errors) == (96, 64)
    stages = finished.stages
    assert min(stages.read, stages.device, stages.parse) > 0
    assert min(stages.vision, stages.prefill, stages.decode) > 0
    assert finished.tokens == sum(row["token_count"] or 0 for row in rows) > 0
    assert finished.chip_seconds["cpu"] > stages.on_device
    assert finished.usd is None


def test_broken_files_are_error_rows_that_say_why(finished: RunSummary) -> None:
    rows = [row for row in read_rows(finished.location) if row["status"] == "error"]
    reasons = {row["error"].split(":")[0] for row in rows}
    assert reasons == {
        "truncated or broken image",
        "empty file",
        "not an image",
        "too many pixels",
    }
    for row in rows:
        assert row["text"] is row["width"] is row["logprob"] is row["detections"] is None
        assert row["source_sha256"] is None  # of what is no image nothing is told


def test_good_files_are_answered(finished: RunSummary) -> None:
    rows = [row for row in read_rows(finished.location) if row["status"] == "ok"]
    for row in rows:
        assert row["error"] is None
        assert len(row["source_sha256"]) == 64
        assert re.fullmatch(r"\d+-\d+", row["source_version"])
        assert (row["width"], row["height"]) == (40, 30)
        assert 1 <= row["token_count"] <= 6
        assert row["finished"] or row["token_count"] == 6
        assert row["logprob"] <= 0
        assert row["task"] == row["prompt"].split()[0]
        assert (row["detections"] is None) == (row["task"] == "caption")
    assert len({row["text"] for row in rows}) > 10


def test_the_bundled_checkpoint_reads_handwriting(make_spec: SpecFactory, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(7)
    drawn = [scenes.compose(rng, "test", scale=2) for _ in range(16)]
    for number, scene in enumerate(drawn):
        scene.image.save(tmp_path / "images" / f"{number:02d}.png")
    prompts = ["answer en how many digits are there?", "detect digit"]
    summary = annotate_here(
        make_spec(input=str(tmp_path / "images"), prompts=prompts, sampling={}, max_new_tokens=24)
    )
    rows = read_rows(summary.location)
    counts = [row["text"] for row in rows[::2]]
    assert sum(a == str(len(b.digits)) for a, b in zip(counts, drawn, strict=True)) >= 13
    for row, scene in zip(rows[1::2], drawn, strict=True):
        assert row["text"].startswith("<loc")
        for found in row["detections"]:
            assert found["label"] == "digit"
            assert 0 < found["score"] <= 1
            assert 0 <= found["x_min"] < found["x_max"] <= scene.image.width
    boxes = [len(row["detections"]) for row in rows[1::2]]
    assert sum(a == len(b.digits) for a, b in zip(boxes, drawn, strict=True)) >= 13


def test_parts_say_what_made_them(finished: RunSummary) -> None:
    for shard in range(finished.shards):
        schema = pq.read_schema(f"{finished.location}/part-{shard:05d}.parquet")
        assert schema.equals(ANNOTATIONS, check_metadata=False)
        said = schema.metadata
        assert said[b"paliflow.schema_version"] == b"1"
        assert said[b"paliflow.shard"] == str(shard).encode()
        assert said[b"paliflow.checkpoint_sha256"].decode() == finished.checkpoint_sha256
        assert json.loads(said[b"paliflow.spec"]) == finished.spec


def test_common_readers_need_nothing_but_the_path(finished: RunSummary) -> None:
    output = finished.spec["output"]
    frame = pd.read_parquet(output)
    assert len(frame) == 2 * INPUTS
    assert set(frame["run_id"]) == {"test"}
    assert pyarrow.dataset.dataset(output).count_rows() == 2 * INPUTS
    query = f"select status, count(*) from '{output}/*/part-*.parquet' group by 1 order by 1"
    assert duckdb.connect().execute(query).fetchall() == [("error", 64), ("ok", 96)]


def test_a_finished_run_returns_its_summary_and_says_so(
    finished: RunSummary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert annotate(AnnotateSpec.parse(finished.spec)) == finished
    assert "run test is finished already" in capsys.readouterr().out


def test_a_resumed_run_does_only_what_is_missing(
    finished: RunSummary, unfinished: AnnotateSpec
) -> None:
    location = Path(unfinished.output, "run_id=test")
    before = {path.name: path.stat().st_mtime_ns for path in location.glob("part-*")}
    # What earlier jobs have cost counts: the run stops before an actor starts.
    limited = unfinished.model_copy(update={"max_usd": 1e-6, "usd_per_chip_hour": 1.0})
    with pytest.raises(SpendingLimitError, match=r"max_usd=1e-06: .* Nothing is lost: raise the"):
        annotate(limited)
    priced = {"max_usd": 1e6, "usd_per_chip_hour": 1.0}
    summary = annotate_here(unfinished.model_copy(update=priced))
    assert summary.usd == pytest.approx(sum(summary.chip_seconds.values()) / 3600)
    after = {path.name: path.stat().st_mtime_ns for path in location.glob("part-*")}
    assert before.items() < after.items()
    assert read_rows(location) == read_rows(finished.location)
    counts = {"inputs", "rows", "ok", "errors", "shards", "checkpoint_sha256"}
    assert summary.model_dump(include=counts) == finished.model_dump(include=counts)


def test_a_killed_actor_changes_no_row(
    cluster: str, finished: RunSummary, unfinished: AnnotateSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "Annotator", MortalAnnotator)
    assert annotate(unfinished.model_copy(update={"actors": 1})).rows == finished.rows
    assert Path(unfinished.output, "dead").exists()
    assert read_rows(Path(unfinished.output, "run_id=test")) == read_rows(finished.location)


def test_a_folder_that_changes_after_planning_does_not_change_the_run(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.png").write_bytes(encode("RGB", "PNG"))
    spec = make_spec(input=str(tmp_path / "images"), shard_size=2)
    location = tmp_path / "output" / "run_id=test"
    write_plan(str(location), items(spec), spec.model_dump(mode="json"))
    (tmp_path / "images" / "c.png").unlink()
    (tmp_path / "images" / "0.png").write_bytes(encode("RGB", "PNG"))
    summary = annotate_here(spec)
    assert (summary.inputs, summary.rows, summary.errors) == (3, 6, 2)
    rows = read_rows(location)
    assert [Path(row["source_uri"]).stem for row in rows] == ["a", "a", "b", "b", "c", "c"]
    assert [row["error"] for row in rows[4:]] == ["not found", "not found"]


@pytest.mark.slow
def test_a_run_from_bucket_to_bucket_keeps_its_compiled_programs_there(
    cluster: str, make_spec: SpecFactory, tmp_path: Path
) -> None:
    write_mixed(tmp_path / "images", 20)
    for path in (tmp_path / "images").rglob("*.*"):
        uri = f"gs://images/run/{path.relative_to(tmp_path / 'images')}"
        storage.commit_if_absent(uri, io.BytesIO(path.read_bytes()))
    places = {"input": "gs://images/run", "output": "gs://images/output"}
    spec = make_spec(**places, compilation_cache="gs://images/compiled", shard_size=15)
    summary = annotate(spec)
    assert summary.location == "gs://images/output/run_id=test"
    assert (summary.inputs, summary.rows, summary.errors) == (20, 40, 16)
    with storage.open_binary(f"{summary.location}/part-00001.parquet") as file:
        assert pq.read_table(file).num_rows == 10
    assert annotate(spec) == summary
    kept = [entry.uri for entry in storage.list_files("gs://images/compiled")]
    assert all(any(f"/jit_{name}-" in uri for uri in kept) for name in ("prefill", "decode")), kept


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompts": ["caption " * 600]}, "^max_prompt_tokens=512.* longer than 512"),
        ({"input": "nowhere"}, "no such file|No such file"),
    ],
)
def test_what_the_user_must_change_is_said(
    make_spec: SpecFactory, images: Path, fields: dict[str, Any], complaint: str
) -> None:
    spec = make_spec(**({"input": str(images / "000.jpg")} | fields))
    with pytest.raises(SpecError, match=complaint):
        annotate_here(spec)


def test_what_an_actor_finds_that_the_user_must_change_is_said_as_it_says_it(
    cluster: str, make_spec: SpecFactory, images: Path
) -> None:
    spec = make_spec(input=str(images / "000.jpg"), tokenizer="nowhere.model")
    with pytest.raises(SpecError, match=r"^tokenizer='.*nowhere.model'"):
        annotate(spec)


def test_a_cluster_without_room_may_have_it_at_the_next_try(
    cluster: str, make_spec: SpecFactory, images: Path
) -> None:
    spec = make_spec(input=str(images / "000.jpg"), accelerators_per_actor={"TPU": 4})
    with pytest.raises(ClusterError, match="each takes CPU 1, TPU 4 of one node"):
        annotate(spec)


def test_another_spec_is_refused_whether_the_run_is_finished_or_not(
    finished: RunSummary, unfinished: AnnotateSpec
) -> None:
    for spec in (AnnotateSpec.parse(finished.spec), unfinished):
        with pytest.raises(SpecError, match=r"run_id='test' .* seed was 0, is 1"):
            annotate(spec.model_copy(update={"seed": 1}))


def test_parts_that_do_not_make_up_the_plan_are_not_sealed(unfinished: AnnotateSpec) -> None:
    location = Path(unfinished.output, "run_id=test")
    for shard in (1, 2):
        shutil.copy(location / "part-00003.parquet", location / f"part-{shard:05d}.parquet")
    with pytest.raises(RuntimeError, match="have 128 rows of 64 inputs; its plan makes 160"):
        annotate(unfinished)
    assert not (location / "_manifest.json").exists()


def test_parts_of_different_weights_are_not_sealed(
    finished: RunSummary, unfinished: AnnotateSpec
) -> None:
    location = Path(unfinished.output, "run_id=test")
    for shard in (1, 2):
        table = pq.read_table(f"{finished.location}/part-{shard:05d}.parquet")
        other = {**table.schema.metadata, b"paliflow.checkpoint_sha256": b"other"}
        pq.write_table(table.replace_schema_metadata(other), location / f"part-{shard:05d}.parquet")
    with pytest.raises(RuntimeError, match="2 different checkpoints"):
        annotate(unfinished)


@pytest.mark.slow  # of an extraction it is shown in the default tests
def test_a_run_with_too_many_errors_stops_and_can_be_resumed_with_another_limit(
    cluster: str, finished: RunSummary, unfinished: AnnotateSpec
) -> None:
    location = Path(unfinished.output, "run_id=test")
    strict = unfinished.model_copy(update={"max_error_fraction": 0.1})
    with pytest.raises(SpecError, match=r"max_error_fraction=0.1: \d+ of \d+ inputs failed: \d+ x"):
        annotate(strict)
    assert not (location / "_manifest.json").exists()
    assert annotate_here(unfinished).error_reasons == finished.error_reasons
    assert sum(finished.error_reasons.values()) == finished.errors


@pytest.mark.slow
def test_two_drivers_of_one_run_at_once_make_one_run(
    finished: RunSummary, cluster: str, make_spec: SpecFactory, images: Path
) -> None:
    spec = make_spec(input=str(images), shard_size=SHARD_SIZE)
    code = (
        "import sys; from rich.console import Console; from paliflow.configs import AnnotateSpec;"
        "from paliflow.jobs.annotate import job as run;"
        "run.annotate(AnnotateSpec.parse(sys.argv[1]), Console(), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, spec.model_dump_json(), cluster]
    others = [subprocess.Popen(command) for _ in range(2)]
    assert [other.wait(240) for other in others] == [0, 0]
    location = Path(spec.output, "run_id=test")
    assert read_rows(location) == read_rows(finished.location)
    summary = RunSummary.parse((location / "_manifest.json").read_text())
    assert (summary.inputs, summary.rows) == (INPUTS, finished.rows)
    assert len([*location.glob("_plan/*.json")]) == len([*location.glob("_plan/*/*")]) == 1


def test_rows_of_a_manifest_ask_their_own_questions(make_spec: SpecFactory, tmp_path: Path) -> None:
    questions = ["how many digits are there?", "what is the leftmost digit?", "is there a 7?"]
    rows = []
    for number in range(20):
        (tmp_path / f"{number:02d}.png").write_bytes(encode("RGB", "PNG") if number % 5 else b"")
        rows.append(
            {"image": f"{number:02d}.png", "question": questions[number % 3], "key": number}
        )
        if number % 2:
            rows[-1]["extra"] = "OCR" if number == 19 else "ocr"
    manifest = tmp_path / "questions.jsonl"
    rows = [{"extra": None, **row} for row in rows]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    summary = annotate_here(
        make_spec(
            input=str(manifest),
            prompts=["answer en {question}", "detect digit"],
            prompt_column="extra",
            id_column="key",
            metadata_columns=["question"],
            shard_size=9,
            batch_size=4,
            thumbnail=16,
        )
    )
    written = read_rows(summary.location)
    expected = [
        (str(row["key"]), prompt)
        for row in rows
        for prompt in [f"answer en {row['question']}", "detect digit", row["extra"]]
        if prompt
    ]
    assert [(row["id"], row["prompt"]) for row in written] == expected
    assert (summary.rows, summary.errors) == (50, 11)
    for row in written:
        assert json.loads(row["metadata"]) == {"question": questions[int(row["id"]) % 3]}
        if row["prompt"] == "OCR":
            assert row["error"].startswith("prompt: the task 'OCR' is spelt 'ocr'")
            continue
        assert (row["status"] == "error") == (int(row["id"]) % 5 == 0)
        assert (row["image_thumbnail"] is None) == (row["status"] == "error")
        assert row["source_version"] is None  # nobody asks for each row of a manifest


def test_a_second_run_of_only_new_inputs_does_what_changed(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.png").write_bytes(encode("RGB", "PNG"))
    (folder / "d.png").write_bytes(b"")
    monday = make_spec(input=str(folder), run_id="monday", only_new=True)
    assert annotate_here(monday).inputs == 4
    tuesday = monday.model_copy(update={"run_id": "tuesday"})
    (folder / "b.png").write_bytes(encode("L", "PNG"))
    (folder / "d.png").write_bytes(encode("RGB", "PNG"))
    (folder / "e.png").write_bytes(encode("RGB", "PNG"))
    os.utime(folder / "c.png")
    summary = annotate_here(tuesday)
    done = {Path(row["source_uri"]).stem for row in read_rows(summary.location)}
    assert done == {"b", "d", "e"}
    nothing = annotate(monday.model_copy(update={"run_id": "wednesday"}))
    assert (nothing.inputs, nothing.rows, nothing.shards) == (0, 0, 0)
    assert nothing.checkpoint_sha256 == summary.checkpoint_sha256


def test_a_compilation_cache_that_others_can_write_to_is_refused(
    tmp_path: Path, make_spec: SpecFactory
) -> None:
    cache = tmp_path / "programs"
    cache.mkdir()
    cache.chmod(0o777)
    spec = make_spec(input=__file__, compilation_cache=str(cache))
    plan = write_plan(spec.location, items(spec), spec.model_dump(mode="json"))
    with pytest.raises(SpecError, match=r"compilation_cache=.*other users can write to"):
        Annotator(spec, spec.location, plan).load()
