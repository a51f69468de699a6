"""Extraction: every image shows the frame that its row says, whatever happens on the way."""

import hashlib
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from paliflow.configs import ExtractSpec, ExtractSummary
from paliflow.configs.base import SpecError
from paliflow.configs.schema import FRAMES
from paliflow.jobs.cli.main import main
from paliflow.jobs.extract import actor, job
from paliflow.jobs.extract.actor import Extractor
from paliflow.jobs.runs.error_limits import ErrorLimitError
from paliflow.jobs.runs.outputs import list_runs
from paliflow.jobs.runs.plan import Item, write_plan
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.extract.mortal import MortalExtractor
from paliflow.tests.jobs.here import extract_here
from paliflow.tests.jobs.videos import read, uneven, with_moov_first, write

GOOD: dict[str, Any] = {"input": "in", "output": "out", "run_id": "test", "video": {"count": 2}}


def extract(spec: ExtractSpec) -> ExtractSummary:
    return job.extract(spec, Console())


def make(videos: Path, output: Path, **fields: Any) -> ExtractSpec:
    defaults = {
        "input": str(videos),
        "output": str(output),
        "run_id": "test",
        "video": {"every_s": 0.5, "segment_s": 2},
        "shard_size": 2,
        "max_error_fraction": 1.0,
    }
    return ExtractSpec.parse(defaults | fields)


def read_rows(location: str | Path) -> list[dict[str, Any]]:
    parts = sorted(Path(location).glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def digests(location: str | Path) -> dict[str, str]:
    """Of every image, by its path; not of the hidden files that killed writers leave."""
    return {
        str(path.relative_to(location)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(location, "frames").rglob("[0-9]*.*")
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole videos of 4.8 and 3 seconds, one that breaks off, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write(folder / "a.mp4", options={"g": "12"}, at=uneven)
    write(folder / "b.mkv", frames=75)
    broken = with_moov_first(write(folder / "c.mp4", options={"g": "12"}))
    content = broken.read_bytes()
    (folder / "c.mp4").write_bytes(content[: len(content) // 2])
    broken.unlink()
    (folder / "d.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run over them in shards of two pieces."""
    return extract_here(make(videos, tmp_path_factory.mktemp("outputs") / "output"))


@pytest.fixture
def unfinished(finished: ExtractSummary, tmp_path: Path) -> ExtractSpec:
    """A copy of that run that lacks its manifest, the parts after the first and an image."""
    shutil.copytree(finished.spec["output"], tmp_path / "output")
    location = tmp_path / "output" / "run_id=test"
    (location / "_manifest.json").unlink()
    for shard in range(1, finished.shards):
        (location / f"part-{shard:05d}.parquet").unlink()
    next((location / "frames" / "00001").iterdir()).unlink()
    return ExtractSpec.parse(finished.spec | {"output": str(tmp_path / "output")})


def test_every_image_shows_the_frame_that_its_row_names(finished: ExtractSummary) -> None:
    rows = [row for row in read_rows(finished.location) if row["status"] == "ok"]
    for row in rows:
        with Image.open(Path(finished.location, row["image"])) as image:
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"]))
            assert image.size == (320, 240)
            assert read(image) == row["frame_index"]
    assert finished.frames == len(rows) == len({row["image"] for row in rows})
    assert {row["image"] for row in rows} == set(digests(finished.location))
    of_b = [row["timestamp_s"] for row in rows if row["source_uri"].endswith("b.mkv")]
    assert of_b == [0.0, 0.52, 1.0, 1.52, 2.0, 2.52]
    of_a = [row["timestamp_s"] for row in rows if row["source_uri"].endswith("a.mp4")]
    assert [int(time / 0.5) for time in of_a] == list(range(11))


def test_what_is_broken_is_a_row_without_an_image(finished: ExtractSummary) -> None:
    wrong = [row for row in read_rows(finished.location) if row["status"] == "error"]
    assert {Path(row["source_uri"]).name for row in wrong} == {"c.mp4", "d.mp4"}
    for row in wrong:
        assert row["image"] is row["width"] is row["frame_index"] is None
        assert row["error"].startswith(
            "not a video" if row["source_uri"].endswith("d.mp4") else "frames are missing"
        )
    assert finished.errors == len(wrong) == sum(finished.error_reasons.values())


def test_parts_say_what_made_them(finished: ExtractSummary) -> None:
    schema = pq.read_schema(f"{finished.location}/part-00000.parquet")
    assert schema.equals(FRAMES, check_metadata=False)
    assert ExtractSpec.parse(schema.metadata[b"paliflow.spec"].decode()).location == (
        finished.location
    )


def test_a_finished_run_is_not_done_again(finished: ExtractSummary) -> None:
    assert extract(ExtractSpec.parse(finished.spec)) == finished
    with pytest.raises(SpecError, match="quality was 90, is 50"):
        extract(ExtractSpec.parse(finished.spec | {"quality": 50}))


@pytest.mark.slow
def test_a_killed_and_resumed_run_leaves_the_same_files(
    cluster: str,
    finished: ExtractSummary,
    unfinished: ExtractSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "Extractor", MortalExtractor)
    summary = extract(unfinished)
    assert Path(unfinished.output, "dead").exists()
    assert read_rows(summary.location) == read_rows(finished.location)
    assert digests(summary.location) == digests(finished.location)
    counts = {"inputs", "frames", "errors", "error_reasons", "shards"}
    assert summary.model_dump(include=counts) == finished.model_dump(include=counts)


def test_what_one_input_writes_does_not_depend_on_another(videos: Path, tmp_path: Path) -> None:
    """Whoever does a shard beside somebody who has given up an input, overwrites equal by equal."""
    spec = make(videos, tmp_path, video={"count": 2}, shard_size=4)
    found = [Item(str(videos / name)) for name in ("a.mp4", "b.mkv")]
    plan = write_plan(spec.location, found, spec.model_dump(mode="json"))
    actor = Extractor(spec, spec.location, plan)
    actor.probe(0, 1)
    before = digests(spec.location)
    done = actor.process(0, {0: "kills"})
    assert done.failures == ("kills",)
    assert digests(spec.location) == before
    first, *others = read_rows(spec.location)
    assert (first["image"], first["error"]) == (None, "kills")
    assert [row["image"] for row in others] == sorted(before)


def test_a_clock_that_starts_again_is_a_note_and_no_error(tmp_path: Path) -> None:
    part = write(tmp_path / "part.mpg", "mpeg2video", frames=20, base=Fraction(1, 25))
    (tmp_path / "joined.mpg").write_bytes(2 * part.read_bytes())
    spec = make(tmp_path, tmp_path, video={"every_frames": 8})
    plan = write_plan(
        spec.location, [Item(str(tmp_path / "joined.mpg"))], spec.model_dump(mode="json")
    )
    assert Extractor(spec, spec.location, plan).process(0, {}).failures == ()
    rows = read_rows(spec.location)
    assert [(row["frame_index"], row["status"]) for row in rows] == [
        (n, "ok") for n in range(0, 40, 8)
    ]
    assert [row["note"] and row["note"][:14] for row in rows] == [None] * 3 + [
        "times run on f",
        None,
    ]


def test_the_parts_are_a_manifest_to_annotate(
    finished: ExtractSummary, make_spec: SpecFactory
) -> None:
    spec = make_spec(
        input=f"{finished.location}/part-*.parquet", metadata_columns=["source_uri", "timestamp_s"]
    )
    rows, found = read_rows(finished.location), list(items(spec))
    assert len(found) == len(rows)
    for row, item in zip(rows, found, strict=True):
        assert item.uri == (f"{finished.location}/{row['image']}" if row["image"] else "")
        assert not item.uri or Path(item.uri).is_file()


def test_ids_metadata_size_and_format_are_as_asked_for(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"file,key,shop\n{videos}/b.mkv,one,north\n,two,south\n")
    summary = extract_here(
        make(
            tmp_path / "in.csv",
            tmp_path / "output",
            video={"count": 3, "min_distance": 0.001},
            image_column="file",
            id_column="key",
            metadata_columns=["shop"],
            allowed_roots=[str(videos)],
            format="png",
            longest_side=160,
        )
    )
    *rows, last = read_rows(summary.location)
    assert [(row["id"], row["metadata"]) for row in rows] == [("one", '{"shop": "north"}')] * 3
    assert [row["frame_distance"] is None for row in rows] == [True, False, False]
    for row in rows:
        with Image.open(Path(summary.location, row["image"])) as image:
            assert (image.format, image.size) == ("PNG", (160, 120))
            assert (row["width"], row["height"]) == (160, 120)
            assert read(image) == row["frame_index"]
    assert (last["id"], last["status"], last["image"]) == ("two", "error", None)


def test_too_many_errors_stop_it_and_it_goes_on_with_another_limit(
    cluster: str, videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        (tmp_path / "in" / name).write_bytes((videos / "d.mp4").read_bytes())
    spec = make(tmp_path / "in", tmp_path, shard_size=1, max_errors=0)
    with pytest.raises(ErrorLimitError, match=r"max_errors=0: 1 of . inputs failed: 1 x not a"):
        extract(spec)
    assert not (tmp_path / "run_id=test" / "_manifest.json").exists()
    summary = extract_here(spec.model_copy(update={"max_errors": None}))
    assert (summary.inputs, summary.errors) == (4, 4)


def test_extractions_are_not_listed_among_annotations(
    finished: ExtractSummary, unfinished: ExtractSpec
) -> None:
    assert list_runs(finished.spec["output"]) == list_runs(unfinished.output) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"video": None}, "video=None"),
        ({"video": {"clip": {"frames": 8}}}, "leave out clip"),
        ({"video": {"track": 0.3}}, "leave out track"),
        ({"quality": 0}, "quality=0"),
        ({"format": "gif"}, "format='gif'"),
        ({"prompts": ["ocr"]}, "prompts: unknown field"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        ExtractSpec.parse(GOOD | fields)


@pytest.mark.slow
def test_the_command_reads_a_spec_in_yaml(
    cluster: str,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "spec.yaml").write_text(
        f"input: {videos}/b.mkv\noutput: {tmp_path}/frames\nvideo: {{count: 2}}\n"
    )
    arguments = ["paliflow", "extract", str(tmp_path / "spec.yaml"), "--run-id", "r"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "2 frames, 0 errors, from 1 videos" in capsys.readouterr().out
    assert len(digests(tmp_path / "frames" / "run_id=r")) == 2
