"""What the manual shows is what it says: DAGs parse, specs are specs, commands exist, code runs."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from typer.core import TyperGroup as Group
from typer.main import get_command

import paliflow.dags
from paliflow.configs import (
    AnnotateSpec,
    CalibrateSpec,
    EvaluateSpec,
    ExtractSpec,
    FilterSpec,
    FineTuneSpec,
    PromoteSpec,
)
from paliflow.configs.base import Spec
from paliflow.configs.load import load_spec
from paliflow.jobs.cli import commands, evaluation_commands
from paliflow.jobs.cli.main import app
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.outputs import finish

ROOT = Path(str(paliflow.dags.__file__)).parent.parent
HEAD = """
from datetime import timedelta
from airflow.sdk import DAG
from paliflow.configs import AnnotateSpec
from paliflow.operators import (
    AnnotateOperator, CalibrateOperator, EvaluateOperator, ExtractFramesOperator, FilterOperator,
    FineTuneOperator, PromoteOperator
)
"""
REST: dict[type[Spec], dict[str, Any]] = {
    AnnotateSpec: {"input": "in", "output": "out", "run_id": "r", "prompts": "ocr"},
    ExtractSpec: {"input": "in", "output": "out", "run_id": "r", "video": "{}"},
    FilterSpec: {"input": "in", "output": "out", "run_id": "r", "filters": "quality"},
    FineTuneSpec: {"output": "out", "run_id": "r", "train": "[{'path': 'in.jsonl'}]"},
    EvaluateSpec: {"output": "out", "run_id": "r", "sets": "{'a': {'path': 'in.jsonl'}}"},
    PromoteSpec: {"registry": "r", "name": "n", "checkpoint": "c"},
    CalibrateSpec: {"evaluation": "e"},
}
"""What a block that shows a part of a spec leaves out."""


def blocks(language: str) -> list[Any]:
    """The blocks of the README and the manual in a language, under their page and line."""
    found = []
    pages = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    for page in pages:
        text = page.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


def is_notebook(block: str) -> bool:
    return "paliflow.annotate(" in block


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in blocks("python") if is_notebook(b.values[0])])
def test_a_notebook_that_the_manual_shows_annotates(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "dags/sample"):
        Path(folder).mkdir(parents=True)
        shutil.copy(ROOT / "dags" / "sample" / "scene_00.jpg", folder)
    shown: dict[str, Any] = {}
    exec(block, shown)
    assert list(shown["run"].to_pandas()["status"]) == ["ok"]


@pytest.mark.parametrize("block", [b for b in blocks("python") if not is_notebook(b.values[0])])
def test_python_that_the_manual_shows_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = AnnotateSpec(
        input=str(tmp_path / "photos"),
        output=str(tmp_path / "annotations"),
        run_id="week-31",
        prompts=("caption en",),
    )
    finish(spec, [Item("missing.jpg")])
    with DAG("manual"):
        exec(HEAD + block, {})


@pytest.mark.parametrize("block", blocks("console"))
def test_commands_that_the_manual_shows_exist_with_their_options(block: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^\$ (.+)$", re.sub(r"\\\n", "", block), re.MULTILINE):
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, line
        elif program == "paliflow":
            command: Any = get_command(app)
            while isinstance(command, Group):
                command = command.commands[words.pop(0)]
            known = {
                name for option in command.params for name in (*option.opts, *option.secondary_opts)
            }
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= known, line


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_that_the_manual_shows_is_a_spec(block: str, tmp_path: Path) -> None:
    names = re.findall(r"^(\w+):", block, re.MULTILINE)
    choices = [block] if len(set(names)) == len(names) else block.strip().split("\n")
    for number, choice in enumerate(choices):
        path = tmp_path / f"{number}.yaml"
        path.write_text(choice)
        parsed_by_any(path)


def parsed_by_any(path: Path) -> Spec:
    """The spec in a file, of the first kind that has all its fields."""
    given = set(re.findall(r"^(\w+):", path.read_text(), re.MULTILINE))
    kind = next(kind for kind in REST if given <= set(kind.model_fields))
    rest = REST[kind]
    if kind is PromoteSpec:
        rest = {} if "candidate" in given else rest
    return load_spec(kind, path, [f"{k}={v}" for k, v in rest.items() if k not in given])


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (commands.annotate, AnnotateSpec),
        (commands.plan, AnnotateSpec),
        (commands.extract, ExtractSpec),
        (commands.filter, FilterSpec),
        (commands.finetune, FineTuneSpec),
        (evaluation_commands.evaluate, EvaluateSpec),
        (commands.promote, PromoteSpec),
        (evaluation_commands.calibrate, CalibrateSpec),
    ],
)
def test_a_commands_help_shows_a_whole_spec(command: Any, kind: type[Spec], tmp_path: Path) -> None:
    shown = re.sub(r"^    ", "", command.__doc__.partition("\b\n")[2], flags=re.MULTILINE)
    path = tmp_path / "spec.yaml"
    path.write_text(shown.partition("\n\n")[0])
    load_spec(kind, path)


@pytest.mark.parametrize("block", blocks("json"))
def test_json_that_the_manual_shows_is_labelled_examples(block: str) -> None:
    for line in block.splitlines():
        assert set(json.loads(line)) == {"image", "prefix", "suffix"}


def test_the_weekly_dag_and_its_approval_parse() -> None:
    shown_blocks = [parameters.values[0] for parameters in blocks("python")]
    (weekly,) = (block for block in shown_blocks if 'with DAG("weekly"' in block)
    (approval,) = (block for block in shown_blocks if "\nApprovalOperator(" in block)
    shown: dict[str, Any] = {}
    exec(HEAD + weekly, shown)
    tasks = shown["tuned"].dag.task_dict
    upstream = {name: task.upstream_task_ids for name, task in tasks.items()}
    assert upstream == {
        "finetune": set(),
        "new": {"finetune"},
        "old": set(),
        "promote": {"new", "old"},
    }
    with shown["tuned"].dag:
        exec(HEAD + approval, {})
    assert {"subject", "body"} <= set(tasks["approve"].template_fields)
