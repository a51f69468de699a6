"""A run of filters: what stays, what goes and why; resumed, it leaves the same tables."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from paliflow.configs import AnnotateSpec, ExampleSource, FilterSpec, FilterSummary
from paliflow.configs.base import SpecError
from paliflow.jobs.cli.main import main
from paliflow.jobs.examples.example import Example
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.finetune.card import filtered_lines
from paliflow.jobs.fleet.cluster import connected
from paliflow.jobs.safety import job
from paliflow.jobs.safety.cloud.pace import SharedPace
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.files import write_rows

TEMPLE, FLOWER = (Image.fromarray(each) for each in load_sample_images().images)


def write(path: Path, image: Image.Image, **options: Any) -> str:
    image.save(path, **options)
    return path.name


def run(spec: dict[str, Any]) -> FilterSummary:
    return job.filter(FilterSpec.parse(spec), Console())


@pytest.fixture(scope="module")
def spec(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filters of a manifest in two shards, one finished filter run to keep away from."""
    folder = tmp_path_factory.mktemp("filtered")
    (folder / "held_out").mkdir()
    write(folder / "held_out" / "flower.png", FLOWER)
    held_out = run(
        {
            "input": str(folder / "held_out"),
            "output": str(folder / "output"),
            "run_id": "held-out",
            "filters": ["quality"],
        }
    )
    assert (held_out.kept, held_out.removed) == (1, 0)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    rows = [
        (write(folder / "a.png", TEMPLE), "call +1 650-253-0000"),
        (write(folder / "b.jpg", FLOWER.resize((320, 214)), quality=60), "a flower"),
        (write(folder / "c.png", TEMPLE.resize((20, 20))), "small"),
        (write(folder / "d.png", Image.fromarray(noise)), "x" * 40_000),
        (write(folder / "e.jpg", TEMPLE, quality=50), "a temple again"),
        (write(folder / "f.png", Image.fromarray(noise[::-1])), "4111 1111 1111 1111"),
        ("missing.png", "a.b@c.example"),
    ]
    lines = [
        {"image": image, "suffix": suffix, "prefix": "caption en", "key": number}
        for number, (image, suffix) in enumerate(rows)
    ]
    return {
        "input": str(write_rows(folder / "labels.jsonl", lines)),
        "output": str(folder / "output"),
        "run_id": "test",
        "shard_size": 4,
        "filters": [
            "quality",
            "duplicates",
            {"filter": "personal_data", "action": "redact"},
        ],
        "text_columns": ["suffix", "prefix"],
        "metadata_columns": ["key"],
        "id_column": "key",
        "exclude_near": [held_out.location],
        "max_error_fraction": 1.0,
    }


@pytest.fixture(scope="module")
def finished(spec: dict[str, Any]) -> FilterSummary:
    return run(spec)


def test_filter_run_keeps_what_is_good_and_says_why_the_rest_is_not(
    finished: FilterSummary, spec: dict[str, Any]
) -> None:
    counts = finished.kept, finished.removed, finished.changed, finished.unscored, finished.errors
    assert (finished.inputs, *counts) == (7, 2, 3, 2, 1, 1)
    assert finished.flagged == {
        "personal_data/PHONE_NUMBER/redact": 1,
        "exclude_near/duplicate/drop": 1,
        "quality/small/drop": 1,
        "quality/blurred/drop": 1,
        "personal_data/personal_data/unscored": 1,
        "duplicates/duplicate/drop": 1,
        "personal_data/CREDIT_CARD_NUMBER/redact": 1,
        "personal_data/EMAIL_ADDRESS/redact": 1,
    }
    assert set(finished.versions_of_filters) == {
        "quality", "personal_data", "duplicates", "exclude_near",
    }  # fmt: skip
    kept = pq.read_table(finished.manifest).to_pylist()
    assert [(Path(row["image"]).name, row["id"], row["suffix"], row["prefix"]) for row in kept] == [
        ("a.png", "0", "call [PHONE_NUMBER]", "caption en"),
        ("f.png", "5", "[CREDIT_CARD_NUMBER]", "caption en"),
    ]
    assert json.loads(kept[0]["metadata"]) == {"key": 0}
    audit = pq.read_table(f"{finished.location}/_safety.parquet").to_pylist()
    told = {
        (Path(row["image"]).name, row["kept"], row["filter"], row["label"], row["action"])
        for row in audit
    }
    assert told == {
        ("a.png", True, "personal_data", "PHONE_NUMBER", "redact"),
        ("b.jpg", False, "exclude_near", "duplicate", "drop"),
        ("c.png", False, "quality", "small", "drop"),
        ("c.png", False, "quality", "blurred", "drop"),
        ("d.png", False, "personal_data", "personal_data", "unscored"),
        ("e.jpg", False, "duplicates", "duplicate", "drop"),
        ("f.png", True, "personal_data", "CREDIT_CARD_NUMBER", "redact"),
        ("missing.png", False, None, None, "error"),
    }
    reasons = {row["filter"]: row["reason"] for row in audit}
    assert reasons["duplicates"].endswith("a.png")
    assert reasons["exclude_near"].endswith("held_out/flower.png")
    content = b"".join(path.read_bytes() for path in Path(finished.location).glob("*.parquet"))
    assert b"650-253" not in content
    assert b"4111 1111" not in content


def test_kept_images_are_an_annotations_input(finished: FilterSummary) -> None:
    fields: dict[str, Any] = {"input": finished.manifest, "output": "out", "run_id": "r"}
    fields |= {"prompts": "caption en", "metadata_columns": ["suffix"]}
    with pytest.raises(SpecError, match="add: allowed_roots"):
        list(items(AnnotateSpec.parse(fields)))
    folder = str(Path(finished.location).parents[1])
    found = list(items(AnnotateSpec.parse(fields | {"allowed_roots": [folder]})))
    assert [Path(item.uri).name for item in found] == ["a.png", "f.png"]
    assert found[0].metadata == '{"suffix": "call [PHONE_NUMBER]"}'


def test_kept_rows_are_learnt_from_and_the_card_says_what_was_removed(
    finished: FilterSummary,
) -> None:
    source = ExampleSource(path=finished.manifest)
    folder = str(Path(finished.location).parents[1])
    examples = list(read_examples(source, (), (folder,)))
    assert [(each.prefix, each.suffixes) for each in examples if isinstance(each, Example)] == [
        ("caption en", ("call [PHONE_NUMBER]",)),
        ("caption en", ("[CREDIT_CARD_NUMBER]",)),
    ]
    lines = filtered_lines({"train/0": finished.manifest, "held_out": "held-out.jsonl"})
    assert lines[1].startswith("train/0 was filtered: of 7 inputs 2 were kept, 3 removed, 2 red")
    assert "- 1 x exclude_near/duplicate/drop" in lines
    assert filtered_lines({"a": "/nowhere/kept.parquet", "b": "labels.jsonl"}) == []


def test_killed_filter_run_resumes_with_the_same_tables(
    finished: FilterSummary, spec: dict[str, Any]
) -> None:
    location = Path(finished.location)
    tables = {name: (location / name).read_bytes() for name in ("kept.parquet", "_safety.parquet")}
    first = (location / "part-00000.parquet").stat().st_mtime_ns
    for name in ("_manifest.json", "part-00001.parquet", *tables):
        (location / name).unlink()
    again = run(spec)
    assert {name: (location / name).read_bytes() for name in tables} == tables
    assert (location / "part-00000.parquet").stat().st_mtime_ns == first
    assert (again.kept, again.flagged) == (finished.kept, finished.flagged)


@pytest.mark.slow
def test_unscored_inputs_are_kept_where_the_spec_says_so(
    finished: FilterSummary, spec: dict[str, Any]
) -> None:
    summary = run(spec | {"run_id": "kept", "unscored": "keep", "filters": spec["filters"][2:]})
    assert (summary.kept, summary.unscored) == (5, 1)
    rows = pq.read_table(summary.manifest, columns=["image", "safety"]).to_pylist()
    (row,) = [row for row in rows if row["image"].endswith("d.png")]
    told = [(each["field"], each["score"], each["action"]) for each in row["safety"]]
    assert ("suffix", None, "unscored") in told


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"exclude_near": ["/nowhere/run_id=x"]}, "exclude_near='/nowhere/run_id=x': no finished"),
        ({"exif": "ignore"}, "held-out' is a filter run with exif: apply, and exif='ignore'"),
        ({"filters": ["nonsense"]}, "filters.0='?.*nonsense"),
        ({"filters": ["quality", "quality"], "text_columns": []}, "quality is given twice"),
        ({"filters": [], "text_columns": []}, ""),
        ({"video": {"fps": 1}}, "leave out video"),
        ({"text_columns": ["suffix", "id"]}, "kept.parquet has a column id of its own"),
    ],
)
def test_what_is_wrong_with_a_filter_spec_is_said(
    finished: FilterSummary, spec: dict[str, Any], wrong: dict[str, Any], said: str
) -> None:
    fields = spec | {"run_id": "wrong"} | wrong
    if said:
        with pytest.raises(SpecError, match=said):
            run(fields)
    else:
        assert FilterSpec.parse(fields).exclude_near
        with pytest.raises(SpecError, match="give filters"):
            FilterSpec.parse(fields | {"exclude_near": []})


def test_images_in_tars_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    FLOWER.save(content, "PNG")
    member = tarfile.TarInfo("a.png")
    member.size = content.tell()
    content.seek(0)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(member, content)
    arguments = ["paliflow", "filter", str(tmp_path / "a.tar"), "--filter", "quality"]
    monkeypatch.setattr("sys.argv", [*arguments, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "what is in a tar; unpack it" in capsys.readouterr().err


@pytest.mark.slow
def test_actors_of_a_run_share_the_pace_of_a_service(cluster: str) -> None:
    one, other = (SharedPace("test", per_minute=1) for _ in range(2))
    with connected(cluster):
        assert one.reserve() == 0
        assert other.reserve() > 30
