"""Runs over videos: every sampled frame times every prompt is one row, whatever happens."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from paliflow.benchmarks.digits.films import write_film
from paliflow.configs import AnnotateSpec, EvaluateSpec, FineTuneSpec, RunSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate import actor
from paliflow.jobs.annotate import job as run
from paliflow.jobs.examples.feed import training_feed
from paliflow.jobs.examples.plan import sources_of, write_examples
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.sources.items import items
from paliflow.model import BUNDLED_CHECKPOINT, Tokenizer
from paliflow.tests.jobs.annotate.mortal import MortalViewer
from paliflow.tests.jobs.conftest import SpecFactory, small_spec
from paliflow.tests.jobs.files import write_rows
from paliflow.tests.jobs.here import annotate_here, evaluate_here
from paliflow.tests.jobs.videos import draw

VIDEO = {"fps": 2, "segment_s": 2}


def annotate(spec: AnnotateSpec) -> RunSummary:
    return run.annotate(spec, Console())


def read_rows(location: str) -> list[dict[str, Any]]:
    parts = sorted(Path(location).glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of six seconds, one that breaks off, and an image that is none."""
    folder = tmp_path_factory.mktemp("films")
    for name in "abc":
        write_film(folder / f"{name}.mp4", np.random.default_rng(ord(name)), "test", 3, 50)
    content = (folder / "c.mp4").read_bytes()
    (folder / "c.mp4").write_bytes(content[: len(content) // 2])
    Image.fromarray(draw(1)).save(folder / "d.png")
    return folder


@pytest.fixture(scope="module")
def finished(films: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    output = tmp_path_factory.mktemp("outputs")
    fields = {"video": VIDEO, "shard_size": 2, "batch_size": 3}
    return annotate_here(small_spec(output, input=str(films), **fields))


def test_every_sampled_frame_and_prompt_is_one_row(finished: RunSummary, films: Path) -> None:
    rows = read_rows(finished.location)
    assert finished.inputs == 9  # three pieces a film
    assert (finished.rows, finished.errors) == (len(rows), 2)
    for name in "ab":
        own = [row for row in rows if row["source_uri"] == str(films / f"{name}.mp4")]
        frames = [(row["frame_index"], row["timestamp_s"], row["prompt"]) for row in own]
        expected = [0, 13, 25, 38, 50, 63, 75, 88, 100, 113, 125, 138]
        assert frames == [(n, n / 25, p) for n in expected for p in finished.spec["prompts"]]
        assert {(row["width"], row["height"], row["status"]) for row in own} == {(224, 224, "ok")}
        assert all(row["source_version"] and not row["source_sha256"] for row in own)
    broken = [row for row in rows if row["status"] == "error"]
    assert {row["source_uri"] for row in broken} == {str(films / "c.mp4")}
    assert [row["prompt"] for row in broken] == list(finished.spec["prompts"])
    assert all("breaks off" in row["error"] and row["frame_index"] is None for row in broken)


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_of_a_video_ends_with_the_same_rows(
    cluster: str, finished: RunSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "Annotator", MortalViewer)
    (tmp_path / "output").mkdir()
    spec = AnnotateSpec.parse(finished.spec | {"output": str(tmp_path / "output")})
    summary = annotate(spec)
    for when in ("amid", "dead"):
        assert Path(spec.output, when).exists()
    assert read_rows(summary.location) == read_rows(finished.location)


@pytest.mark.slow
def test_only_new_videos_are_asked_about(finished: RunSummary, films: Path, tmp_path: Path) -> None:
    output = finished.spec["output"]
    spec = AnnotateSpec.parse(finished.spec | {"run_id": "again", "only_new": True})
    again = annotate_here(spec)
    assert again.location == f"{output}/run_id=again"
    assert {row["source_uri"] for row in read_rows(again.location)} == {str(films / "c.mp4")}
    other = AnnotateSpec.parse(spec.model_dump() | {"run_id": "other", "video": {"fps": 1}})
    asked = read_rows(annotate_here(other).location)
    assert {Path(row["source_uri"]).stem for row in asked} == {*"abc"}


@pytest.mark.slow
def test_clips_are_asked_about_as_one(films: Path, make_spec: SpecFactory) -> None:
    video = {"every_s": 0.5, "clip": {"frames": 2, "length_s": 2}}
    summary = annotate_here(make_spec(input=str(films / "a.mp4"), video=video, prompts=["ocr"]))
    rows = read_rows(summary.location)
    assert [row["frame_index"] for row in rows] == [0, 50, 100]
    assert [row["clip_frames"] for row in rows] == [
        [{"frame_index": n, "timestamp_s": n / 25} for n in (first, first + 13)]
        for first in (0, 50, 100)
    ]


@pytest.mark.slow
def test_boxes_are_linked_from_sample_to_sample(films: Path, make_spec: SpecFactory) -> None:
    spec = make_spec(
        input=str(films / "b.mp4"),
        video={"fps": 5, "track": 0.3},
        prompts=["detect digit"],
        sampling={"temperature": 0.0},
        max_new_tokens=24,
    )
    rows = read_rows(annotate_here(spec).location)
    ids = [[found["track_id"] for found in row["detections"]] for row in rows]
    assert all(None not in own and len(set(own)) == len(own) for own in ids)
    assert len({track for own in ids for track in own}) < sum(map(len, ids)) / 2


@pytest.mark.slow
def test_clips_are_evaluated_and_learnt_from(films: Path, tmp_path: Path) -> None:
    labels = [
        {"image": str(films / f"{name}.mp4"), "prefix": "ocr", "suffix": suffix}
        for name, suffix in (("a", "1"), ("c", "2"), ("b", "3"))
    ]
    source = {"path": str(write_rows(tmp_path / "labels.jsonl", labels))}
    video = {"every_frames": 40, "clip": {"frames": 4}}
    common = {"output": str(tmp_path / "out"), "run_id": "test", "video": video}
    roots = {"allowed_roots": [str(films)]}
    asked = EvaluateSpec.parse(
        common
        | roots
        | {"sets": {"held_out": source}, "max_error_fraction": 1.0, "max_new_tokens": 6}
    )
    summary = evaluate_here(asked)
    assert summary.examples_sha256
    predictions = pq.read_table(f"{summary.location}/predictions.parquet").to_pylist()
    assert [Path(row["image"]).stem for row in predictions] == ["a", "c", "b"]
    assert [row["status"] for row in predictions] == ["ok", "ok", "ok"]

    spec = FineTuneSpec.parse(
        common
        | roots
        | {"train": [source], "batch_size": 3, "duration": {"steps": 1}, "max_tokens": 32}
    )
    tokenizer = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))
    plan = write_examples(spec.location + "-tune", sources_of(spec), spec)
    (fed,) = training_feed(
        *(spec.location + "-tune", plan, spec, tokenizer, 56),
        first_step=0,
        total_steps=1,
        process_index=0,
        process_count=1,
    )
    assert fed.failures == ()
    images = np.asarray(fed.batch.images)
    assert images.shape == (3, 4, 56, 56, 3)
    # Of the film that breaks off, some samples are not there, and others come twice.
    assert sorted(len({frame.tobytes() for frame in clip}) == 4 for clip in images) == [
        False,
        True,
        True,
    ]


def test_videos_with_one_answer_each_are_one_clip(tmp_path: Path) -> None:
    common = {"output": "o", "run_id": "r", "video": {"fps": 1}}
    for kind, fields in (
        (EvaluateSpec, {"sets": {"held_out": {"path": "x"}}}),
        (FineTuneSpec, {"train": [{"path": "x"}]}),
    ):
        with pytest.raises(SpecError, match="has to be one clip"):
            kind.parse(common | fields)


def test_extracted_frames_are_videos_by_folder_or_by_group(tmp_path: Path) -> None:
    rows = []
    for film in ("x", "y"):
        (tmp_path / film).mkdir()
        for number in (1, 2, 10):
            Image.fromarray(draw(number)).save(tmp_path / film / f"f{number}.png")
            rows.append({"image": f"{film}/f{number}.png", "film": film, "who": "me"})
    fields = {"output": "o", "run_id": "r", "prompts": ["ocr"]}

    def found(**given: Any) -> list[tuple[str, list[str], str | None]]:
        spec = AnnotateSpec.parse(fields | given)
        return [(i.uri, [Path(f).name for f in i.frames or ()], i.id) for i in items(spec)]

    names = ["f1.png", "f2.png", "f10.png"]
    by_folder = found(input=str(tmp_path), video={"frame_rate": 2})
    assert by_folder == [(str(tmp_path / film), names, None) for film in "xy"]
    manifest = str(write_rows(tmp_path / "rows.csv", rows))
    grouped = {"frame_rate": 2, "group_column": "film"}
    by_group = found(input=manifest, video=grouped, metadata_columns=["who"])
    assert by_group == [(str(tmp_path / film), names, film) for film in "xy"]
    scattered = str(write_rows(tmp_path / "scattered.csv", rows[::3] + rows[1::3]))
    with pytest.raises(SpecError, match="sort the manifest"):
        found(input=scattered, video=grouped)
    with pytest.raises(SpecError, match="only the rows of a manifest have columns"):
        found(input=str(tmp_path), video=grouped)


def test_a_film_whose_name_is_not_utf_8_is_read(tmp_path: Path, make_spec: SpecFactory) -> None:
    write_film(tmp_path / "film.mp4", np.random.default_rng(1), "test", 1, 50)
    folder = tmp_path / "in"
    folder.mkdir()
    os.link(tmp_path / "film.mp4", os.fsencode(folder) + b"/caf\xe9.mp4")
    spec = make_spec(input=str(folder), video=VIDEO)
    (item,) = pieces(items(spec), spec)
    assert item.uri.endswith(r"/caf\xe9.mp4")
    read = [found for found in reader(spec, 8)(item) if found]
    assert len(read) == 4
    assert not any(found.error for found in read)
