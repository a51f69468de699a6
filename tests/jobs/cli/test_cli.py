"""The command line and `python -m paliflow.jobs`: what they print and how they exit."""

import inspect
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console

from paliflow.configs import (
    AnnotateSpec,
    Comparison,
    EvaluateSpec,
    EvaluateSummary,
    ExtractSpec,
    ExtractSummary,
    PromoteSummary,
    RunSummary,
    Sampling,
    VideoSpec,
)
from paliflow.configs.base import ClusterError, SpecError
from paliflow.configs.load import load_spec
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX, VERSION_VARIABLE
from paliflow.jobs.cli.commands import annotate as annotate_command
from paliflow.jobs.cli.commands import plan as plan_command
from paliflow.jobs.cli.main import main, user_errors
from paliflow.jobs.cli.options import annotate_spec
from paliflow.jobs.evaluate import job as evaluate
from paliflow.jobs.evaluate import promotion as promote
from paliflow.jobs.finetune.progress import _validated
from paliflow.jobs.fleet.progress import Progress
from paliflow.jobs.fleet.scheduler import FleetStatus, ShardResult
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import write_mixed
from paliflow.tests.jobs.outputs import commit_parts, finish
from paliflow.tests.jobs.videos import write
from paliflow.tests.summaries import made_up


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


def call(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["paliflow", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


PALIFLOW = ["-c", "from paliflow.jobs.cli.main import main; main()"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_mixed(tmp_path / "images", 10)
    return tmp_path / "images"


def test_help_teaches_without_starting_anything(tmp_path: Path) -> None:
    result = execute(*PALIFLOW, "annotate", "--help", cwd=tmp_path, COLUMNS="200")
    assert result.returncode == 0
    for text in (
        *("--prompt ", "--run-id", "resumes a run", "gs://", "Example:", "--no-report"),
        *("SPEC.yaml|INPUT", "--set", "annotate spec.yaml --set thumbnail=256"),
    ):
        assert text in result.stdout
    assert re.search(r"--checkpoint +TEXT", result.stdout)
    assert re.search(r"--seed +INT", result.stdout)
    panels = re.findall(r"─ (\w+) ─", result.stdout)
    assert panels == ["Arguments", "Options", "What", "Model", "Output", "How"]


def test_every_field_of_the_spec_is_an_option() -> None:
    fields = {*AnnotateSpec.model_fields, *Sampling.model_fields} - {"input", "kind", "sampling"}
    asked, planned = (
        set(inspect.signature(c).parameters) for c in (annotate_command, plan_command)
    )
    assert asked == fields | {"source", "set_", "ray_address"}
    assert planned > fields | {"source", "set_"}


def test_options_become_the_spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    specs: list[AnnotateSpec] = []

    def annotate(spec: AnnotateSpec, *_: object) -> RunSummary:
        specs.append(spec)
        return finish(spec.model_copy(update={"output": str(tmp_path)}), [Item("missing.jpg")])

    monkeypatch.setattr("paliflow.jobs.annotate.job.annotate", annotate)
    options = {
        "--prompt": "caption en",
        "--metadata-column": "shop",
        "--https-host": "a.example",
        "--accelerator": "TPU=4",
        "--max-error-fraction": "0.5",
        "--max-errors": "0",
        "--thumbnail": "256",
        "--temperature": "0.5",
        "--top-k": "3",
        "--run-id": "first",
    }
    given = [word for pair in options.items() for word in pair]
    given += ["--metadata-column", "price", "--only-new", "--no-report"]
    assert call("annotate", "in", "--output", "out", *given, monkeypatch=monkeypatch) == 0
    assert specs == [
        AnnotateSpec(
            input="in",
            output="out",
            prompts=("caption en",),
            run_id="first",
            metadata_columns=("shop", "price"),
            https_hosts=("a.example",),
            accelerators_per_actor={"TPU": 4},
            max_error_fraction=0.5,
            max_errors=0,
            thumbnail=256,
            sampling=Sampling(temperature=0.5, top_k=3),
            only_new=True,
            report=False,
        )
    ]


def test_a_file_options_and_set_say_the_same_fields(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "input: in\noutput: out\nrun_id: first\nprompts: [caption en]\nvideo: {fps: 2}\n"
        "sampling: {temperature: 0.5}\n"
    )
    options = {"output": "out", "run_id": "first", "prompts": ["caption en"], "video": ["fps=2"]}
    said = annotate_spec("in", options | {"temperature": "0.5", "thumbnail": None}, None)
    assert annotate_spec(str(path), {}, []) == load_spec(AnnotateSpec, path) == said
    words = {"prompts": ["answer en a: [1]"], "top_k": "3", "video": ["segment_s="]}
    changed = annotate_spec(str(path), words, ["video.fps=5", 'metadata_columns=["a"]'])
    assert changed.prompts == ("answer en a: [1]",)  # an option's text is no YAML
    fixed = {"prompts": ["ocr", "{ask: 'which?', choices: [yes, no], name: n}"]}
    prompts = ["ocr", {"ask": "which?", "choices": ["yes", "no"], "name": "n"}]
    assert annotate_spec(str(path), fixed, []).model_dump(
        include={"prompts"}, exclude_defaults=True, mode="json"
    ) == {"prompts": prompts}
    assert changed.video == VideoSpec(fps=5, segment_s=None)
    assert changed.sampling == Sampling(temperature=0.5, top_k=3)
    assert changed.metadata_columns == ("a",)
    path.write_text("input: in\nsampling: hot\n")
    with pytest.raises(SpecError, match=r"spec\.yaml: --top-p '1': the spec has no such place"):
        annotate_spec(str(path), {"top_p": "1"}, None)


def test_a_run_without_a_name_is_named_by_the_time(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("sets: {a: {path: b}}\noutput: out\n")
    evaluation = load_spec(EvaluateSpec, tmp_path / "spec.yaml")
    annotation = annotate_spec("in", {"output": "out", "prompts": ["ocr"]}, None)
    for spec in (evaluation, annotation):
        assert re.fullmatch(r"\d{8}T\d{6}Z", spec.run_id)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("annotate in --output out --prompt ocr --max-errors many", "max_errors='many': "),
        ("annotate in --output out --prompt ocr --accelerator TPU", "'TPU': give name=value"),
        ("annotate in --output out --prompt ocr --accelerator TPU=x", "accelerators_per_actor.TPU"),
        ("annotate in --output out --prompt ocr --video fps", "--video 'fps': give name=value"),
        ("annotate in --output out --prompt ocr --set sed=1", "sed: unknown field, did you mean"),
        ("annotate in --prompt ocr", "output: required and missing"),
        ("annotate nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("annotate in --output out", "give prompts"),
        ("annotate in --output out --prompt ocr --prompt ocr", "prompts="),
        ("show nowhere", "nowhere: no finished run"),
        ("show nowhere --run-id first", "run_id=first: the run is planning or not there"),
        ("compact nowhere", "nowhere: no finished run"),
        ("runs nowhere", "nowhere: no runs"),
        ("runs ftp://host/folder", "ftp://host/folder"),
    ],
)
def test_what_the_user_must_change_is_one_line_and_exit_code_2(
    arguments: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(*arguments.split(), monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paliflow: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("annotate images --prompt ocr --output images/000.jpg", "no folder can be made there"),
        ("annotate images --prompt ocr --output images/000.jpg/out", "no folder can be made there"),
        ("annotate images --prompt ocr --output /proc/out", "output='/proc/out': no folder can"),
        ("show images/000.jpg", "output='images/000.jpg': a file; give the folder of runs"),
        ("show images/000.jpg/sub", "no finished run there"),
        ("runs images/000.jpg", "a file; give the folder of runs"),
        ("compact images/000.jpg", "a file; give the folder of runs"),
        ("annotate images/000.jpg/a.jpg --prompt ocr --output out", "input="),
    ],
)
def test_a_place_where_nothing_can_be_is_one_line_and_exit_code_2(
    arguments: str,
    complaint: str,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(images.parent)
    assert call(*arguments.split(), monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.slow
def test_a_folder_for_rays_sockets_with_too_long_a_path_names_the_remedy(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)  # tests have one
    long = tmp_path / ("long" * 25)
    long.mkdir()
    result = execute(
        *(*PALIFLOW, "annotate", "images", "--output", "out", "--prompt", "ocr"),
        cwd=tmp_path,
        TMPDIR=str(long),
    )
    assert result.returncode == 2, result.stderr
    line = result.stderr.splitlines()[-1]
    assert f"TMPDIR='{long}': too long a path for Ray's sockets; set RAY_TMPDIR to" in line


def test_runs_are_listed_shown_and_compacted(
    make_spec: SpecFactory,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    items = [Item(str(path)) for path in sorted(images.rglob("*.*"))]
    spec = make_spec(input=str(images), run_id="first", shard_size=4)
    location = finish(spec, items).location
    commit_parts(spec.model_copy(update={"run_id": "second"}), items, [1])
    assert call("runs", spec.output, monkeypatch=monkeypatch) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:5] == ["first", "finished", "20", "8", "2.9"]
    assert re.match(r"second +unfinished, 1 of 3 parts done +\d{4}-\d\d-\d\d \d\d:\d\d", second)
    assert call("compact", spec.output, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == f"20 rows of 3 parts in 1 file: {location}\n"
    for output in (spec.output, location):
        assert call("show", output, monkeypatch=monkeypatch) == 0
        shown = capsys.readouterr().out
        for text in ("000.jpg", "caption en", "empty file", "caption en of 001.PNG"):
            assert text in shown
        assert shown.endswith(f"20 rows, 8 of them errors, from 10 images in 3.5 s: {location}\n")


def test_what_data_says_cannot_command_the_terminal(
    make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec(input="x", prompts=["caption [red]\x1b[2Jen\x07"])
    finish(spec, [Item("missing/\x1b]0;title\x07\u202e\u2028.jpg")])
    assert call("show", spec.output, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "[red]" in shown
    assert not COMMANDS & set(shown)


COMMANDS = set("\x1b\x07\x9b\u202e\u2028\x85")
HOSTILE = "[red]a[/]\x1b]0;t\x07\x9b2J\u202e\u2028\x85b"


@pytest.mark.parametrize("kind", [SpecError, ClusterError, RuntimeError])
def test_what_an_error_repeats_cannot_command_the_terminal(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, user_errors():
        raise kind(f"image {HOSTILE} is broken")
    assert stopped.value.code == (2 if kind is SpecError else 1)
    said = capsys.readouterr().err
    assert r"[red]a[/]\x1b]0;t\x07" in said
    assert not COMMANDS & set(said)


def test_names_of_figures_and_models_cannot_command_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(force_terminal=False, width=300)
    figure = f"{HOSTILE}/exact_match"
    summary = made_up(
        "/out/run_id=a", EvaluateSummary, spec={}, checkpoint=HOSTILE, examples=2, errors=0,
        examples_sha256="e" * 64, figures={figure: 0.5},
    )  # fmt: skip
    evaluate.show(summary, console)
    comparison = Comparison(
        metric=figure, candidate=0.5, incumbent=0.25, low=0.125, wanted=0.0, examples=2
    )
    promotion = PromoteSummary(
        promoted=True, reason=HOSTILE, comparisons=(comparison,), registry="/r", name="n",
        alias="production", version=1, checkpoint=HOSTILE, checkpoint_sha256="c" * 64,
    )  # fmt: skip
    promote._show(promotion, console)
    print(_validated({"step": 1, figure: 0.5}))
    with Progress(1, 0, Console(force_terminal=False)) as progress:
        progress.add(ShardResult(notes=((HOSTILE, HOSTILE),)), FleetStatus(1, 0))
    said = capsys.readouterr().out
    assert said.count("[red]a[/]") >= 6
    assert not COMMANDS & set(said)


def test_relative_paths_a_table_and_the_place_of_the_rows(
    cluster: str, images: Path, tmp_path: Path
) -> None:
    result = execute(
        *(*PALIFLOW, "annotate", "images", "--output", "annotations", "--prompt", "ocr"),
        *("--max-new-tokens", "6", "--run-id", "first", "--ray-address", cluster),
        *("--max-error-fraction", "0.5"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"^model: bfloat16 on 1 x cpu, 16 rows at a time, ", result.stdout, re.MULTILINE
    )
    assert re.search(r"^first batch: after [\d.]+ s, ", result.stdout, re.MULTILINE)
    assert "000.jpg" in result.stdout
    assert "empty file" in result.stdout
    location = tmp_path / "annotations" / "run_id=first"
    assert result.stdout.endswith(f"s: {location}\n")
    assert re.search(r"^10 rows, 4 of them errors, from 10 images", result.stdout, re.MULTILINE)
    assert re.search(r"^10/10 images, .* images/s, 4 errors", result.stdout, re.MULTILINE)
    assert (location / "_manifest.json").exists()


@pytest.mark.slow
def test_a_job_on_the_cluster_ends_with_its_summary(cluster: str, tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", frames=50)
    output = str(tmp_path / "frames")
    spec = ExtractSpec(input=str(film), output=output, run_id="r", video=VideoSpec(count=2))
    result = execute(
        *("-m", "paliflow.jobs", "extract"),
        cwd=tmp_path,
        RAY_ADDRESS=cluster,
        **{SPEC_VARIABLE: spec.model_dump_json()},
    )
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith(SUMMARY_PREFIX)
    summary = ExtractSummary.parse(last.removeprefix(SUMMARY_PREFIX))
    assert ExtractSpec.parse(summary.spec) == spec
    assert (summary.frames, summary.errors) == (2, 0)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ('{"input": "x"}', "output: required and missing"),
        ('{"input": "nowhere", "output": "out", "prompts": ["ocr"], "run_id": "a"}', "nowhere"),
    ],
)
def test_a_job_that_the_user_must_change_exits_with_2_and_one_line(
    cluster: str, spec: str, complaint: str, tmp_path: Path
) -> None:
    result = execute(
        *("-m", "paliflow.jobs", "annotate"),
        cwd=tmp_path,
        RAY_ADDRESS=cluster,
        **{SPEC_VARIABLE: spec},
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert complaint in line


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named_at_once(images: Path, tmp_path: Path) -> None:
    result = execute(
        *(*PALIFLOW, "annotate", "images", "--output", "out", "--prompt", "ocr"),
        *("--ray-address", "127.0.0.1:1"),
        cwd=tmp_path,
    )
    assert result.returncode == 1
    assert "ray_address='127.0.0.1:1'" in result.stderr


@pytest.mark.parametrize("travels", ["variable", "standard input", "package"])
def test_an_unknown_field_names_both_versions_however_the_spec_travels(
    travels: str, tmp_path: Path
) -> None:
    spec = json.dumps({"registry": "r", "name": "n", "checkpoint": "c", "newer_field": 1})
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "spec.json").write_text(spec)
    arguments = {"variable": [], "standard input": ["-"], "package": ["sent/spec.json"]}[travels]
    result = subprocess.run(
        [sys.executable, "-m", "paliflow.jobs", "promote", *arguments],
        env=os.environ
        | {VERSION_VARIABLE: "9.8.7", "PYTHONPATH": str(tmp_path)}
        | ({SPEC_VARIABLE: spec} if travels == "variable" else {}),
        input=spec if travels == "standard input" else "",
        capture_output=True,
        text=True,
    )
    here = version("paliflow")
    assert result.returncode == 2
    assert result.stdout == f"paliflow {here}\n"
    assert "newer_field: unknown field" in result.stderr
    assert f"sent by paliflow 9.8.7, and this job is of paliflow {here}" in result.stderr


def test_a_job_without_a_spec_names_the_variable(tmp_path: Path) -> None:
    result = execute("-m", "paliflow.jobs", "annotate", cwd=tmp_path)
    assert (result.returncode, SPEC_VARIABLE in result.stderr) == (2, True)
