"""`paliflow evaluate` makes a run of each benchmark; `benchmarks` lists and checks them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark_names
from paliflow.jobs.cli.main import app
from paliflow.jobs.cli.options import evaluate_specs
from paliflow.tests.jobs.benchmark_files import Folder, draw, gqa


def test_each_benchmark_of_a_command_line_is_a_run_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("output: out\nrun_id: week\nsets: {old: {path: a.jsonl}}\ndtype: float32\n")
    fields = {"checkpoint": "a.npz", "image_size": 448}
    overrides = ["seed=3", "run_id=day"]
    one, other = evaluate_specs(str(file), fields, overrides, ["gqa", "docvqa"], "/data", None, 50)
    assert (one.run_id, other.run_id) == ("day-gqa", "day-docvqa")
    assert one.sets.keys() == {"gqa"}
    assert (one.sets["gqa"].path, one.sets["gqa"].max_examples) == ("/data", 50)
    assert (other.checkpoint, other.image_size, other.seed, other.dtype) == (
        *("a.npz", 448, 3),
        "float32",
    )
    (alone,) = evaluate_specs(str(file), {}, [], None, None, None, None)
    assert alone.sets.keys() == {"old"}


@pytest.mark.parametrize(
    ("file", "benchmarks", "data", "limit", "expected"),
    [
        (None, None, None, None, "give SPEC.yaml, or --benchmark and --data"),
        (None, ["gqa"], None, None, "--benchmark needs --data"),
        ("a.yaml", None, "/data", 5, "--data, --limit: of which --benchmark"),
        (None, ["gqa"], "/data", None, "output: required and missing"),
    ],
)
def test_a_command_line_that_lacks_something_says_what(
    file: str | None,
    benchmarks: list[str] | None,
    data: str | None,
    limit: int | None,
    expected: str,
) -> None:
    with pytest.raises(SpecError, match=expected):
        evaluate_specs(file, {}, [], benchmarks, data, None, limit)


def test_benchmarks_are_listed_described_and_checked(tmp_path: Path) -> None:
    counts = draw(tmp_path / "pictures")
    gqa(Folder(tmp_path / "pictures", tmp_path / "data"), counts)

    def said(*arguments: str) -> tuple[int, str]:
        result = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["benchmarks", *arguments])
        return result.exit_code, result.output

    code, listed = said("list")
    assert code == 0
    assert all(name in listed for name in benchmark_names())
    for name in benchmark_names():
        assert said("describe", name)[0] == 0
    assert "images/{imageId}.jpg" in said("describe", "gqa")[1]
    assert "ai2d/annotations/" in said("describe", "ai2d")[1]
    code, checked = said("check", str(tmp_path / "data"), "gqa")
    assert (code, "nothing" in checked) == (0, True)
    (tmp_path / "data" / "images" / "n0.jpg").unlink()
    code, checked = said("check", str(tmp_path / "data"))
    assert (code, "1 images, e.g." in checked) == (0, True)
    assert said("check", str(tmp_path / "data"), "gqa")[0] == 1
    (tmp_path / "data" / "half.zip").write_bytes(b"PK\3\4")
    (tmp_path / "data" / "vqa" / "1.0.0").mkdir(parents=True)
    (tmp_path / "data" / "vqa" / "1.0.0" / "dataset_info.json").write_text("[")
    for split in ([], ["--split", "val"]):
        code, checked = said("check", str(tmp_path / "data"), *split)
        shown = [line.split()[0] for line in checked.splitlines() if " is broken" in line]
        # Of VQAv2 alone; of GQA, which has another split, and of whatever else may be in it.
        assert (code, shown) == (0, ["vqav2", "others"] if split else ["gqa", "vqav2", "others"])
