"""The command line and `python -m paliflow.jobs`: what they print and how they exit."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paliflow.configs import RunSummary
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import write_mixed


def execute(
    *arguments: str | Path, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


PALIFLOW = ["-c", "from paliflow.jobs.cli import main; main()"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_mixed(tmp_path / "images", 10)
    return tmp_path / "images"


def test_help_teaches_without_starting_anything(tmp_path: Path) -> None:
    result = execute(*PALIFLOW, "annotate", "--help", cwd=tmp_path, COLUMNS="200")
    assert result.returncode == 0
    for text in ("--prompt", "--run-id", "resumes a run", "gs://", "Example:"):
        assert text in result.stdout


def test_relative_paths_a_table_and_the_place_of_the_rows(
    cluster: str, images: Path, tmp_path: Path
) -> None:
    result = execute(
        *(*PALIFLOW, "annotate", "images", "--output", "annotations", "--prompt", "ocr"),
        *("--max-new-tokens", "6", "--run-id", "first", "--ray-address", cluster),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "000.jpg" in result.stdout
    assert "empty file" in result.stdout
    location = tmp_path / "annotations" / "run_id=first"
    assert result.stdout.endswith(f"s: {location}\n")
    assert re.search(r"^10 rows, 4 of them errors, from 10 images", result.stdout, re.MULTILINE)
    assert re.search(r"^10/10 images, .* images/s, 4 errors", result.stdout, re.MULTILINE)
    assert (location / "_manifest.json").exists()


def test_a_job_on_the_cluster_ends_with_its_summary(
    cluster: str, images: Path, make_spec: SpecFactory, tmp_path: Path
) -> None:
    spec = make_spec(input=str(images))
    result = execute(
        *("-m", "paliflow.jobs"),
        cwd=tmp_path,
        RAY_ADDRESS=cluster,
        **{SPEC_VARIABLE: spec.model_dump_json()},
    )
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith(SUMMARY_PREFIX)
    summary = RunSummary.parse(last.removeprefix(SUMMARY_PREFIX))
    assert (summary.spec, summary.rows, summary.errors) == (spec, 20, 8)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ('{"input": "x"}', "prompts: required and missing"),
        ('{"input": "nowhere", "output": "out", "prompts": ["ocr"], "run_id": "a"}', "nowhere"),
    ],
)
def test_a_job_that_the_user_must_change_exits_with_2_and_one_line(
    cluster: str, spec: str, complaint: str, tmp_path: Path
) -> None:
    result = execute(
        "-m", "paliflow.jobs", cwd=tmp_path, RAY_ADDRESS=cluster, **{SPEC_VARIABLE: spec}
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line


def test_a_cluster_that_is_not_there_is_named_at_once(images: Path, tmp_path: Path) -> None:
    result = execute(
        *(*PALIFLOW, "annotate", "images", "--output", "out", "--prompt", "ocr"),
        *("--ray-address", "127.0.0.1:1"),
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "ray_address='127.0.0.1:1'" in result.stderr


def test_a_job_without_a_spec_names_the_variable(tmp_path: Path) -> None:
    result = execute("-m", "paliflow.jobs", cwd=tmp_path)
    assert (result.returncode, SPEC_VARIABLE in result.stderr) == (2, True)
