"""`paliflow promote` and `paliflow registry`: an alias moved by the rule, and by hand."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from paliflow.configs.base import printable
from paliflow.jobs.cli.main import main
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import Weights
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.tests.jobs.evaluations import evaluated, right


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry with one version that is in production; the terminal is wide."""
    monkeypatch.setenv("COLUMNS", "200")
    registry.register(str(tmp_path), "digits", Weights("/models/old.npz", "old"))
    registry.move(str(tmp_path), "digits", "production", 1, "the first")
    return str(tmp_path)


def call(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["paliflow", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_an_alias_is_set_shown_and_rolled_back(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["set", folder, "digits@production", str(BUNDLED_CHECKPOINT), "--why", "[new]"]
    assert call("registry", *arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "digits@production is version 2\n"
    assert call("registry", "show", folder, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for text in (str(BUNDLED_CHECKPOINT), "/models/old.npz", "the first", "[new]"):
        assert text in shown
    assert call("registry", "rollback", folder, "digits@production", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "digits@production is version 1 again; it was 2\n"
    assert call("registry", "set", folder, "digits@staging", "2", monkeypatch=monkeypatch) == 0
    aliases = registry.read(folder).models["digits"].aliases
    assert aliases == {"production": 1, "staging": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "{}", "letters"], "no model 'letters' there; there are digits"),
        (["set", "{}", "digits", "1"], "'digits': give NAME@ALIAS"),
        (["set", "{}", "digits@2", "1"], "'digits@2': give NAME@ALIAS"),
        (["set", "{}", "digits@production", "7"], "no version 7; there are 1 to 1"),
        (["set", "{}", "digits@production", "/not/there.npz"], "checkpoint='/not/there.npz': "),
        (["rollback", "{}", "digits@production"], "no way back"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    folder: str,
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.format(folder) for argument in arguments]
    assert call("registry", *filled, monkeypatch=monkeypatch) == 2
    assert expected in capsys.readouterr().err


def test_to_be_kept_is_no_failure(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, share in (("old", 0.6), ("worse", 0.5), ("better", 0.8)):
        evaluated(Path(folder), name, right(share), right(0.9))
    spec = {
        "registry": folder,
        "name": "digits",
        "candidate": f"{folder}/run_id=worse",
        "incumbent": f"{folder}/run_id=old",
        "metric": "held_out/exact_match",
        "resamples": 1000,
    }
    file = Path(folder, "promote.yaml")
    file.write_text(yaml.safe_dump(spec))
    assert call("promote", str(file), monkeypatch=monkeypatch) == 0
    assert "kept: held_out/exact_match went from 0.6000 to 0.5000" in capsys.readouterr().out
    better = f"candidate={folder}/run_id=better"
    assert call("promote", str(file), "--set", better, monkeypatch=monkeypatch) == 0
    assert "digits@production is version 2: /models/better.npz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        (["evaluate"], ["held_out: {path: held-out.jsonl}", "goes on with a run"]),
        (
            ["promote"],
            ["metric: held_out/exact_match", "The exit code is 0 whether or not the alias moves"],
        ),
        (["registry"], ["show", "set", "rollback", "registry://NAME@ALIAS"]),
        (["registry", "set"], ["set gs://bucket/m digits@production 3"]),
    ],
)
def test_help_teaches(
    command: list[str],
    taught: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(*command, "--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for text in taught:
        assert text in shown


def test_texts_of_a_registry_say_nothing_to_the_terminal(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "\x1b]0;owned\x07[red]new[/red][/]\r\u202e\u2028"
    content = Path(folder, "registry.json").read_text()
    for text in ("the first", "/models/old.npz", "production"):
        content = content.replace(f'"{text}"', json.dumps(f"{odd}{text}"))
    content = content.replace('"digits"', json.dumps(f"{odd}digits"))
    Path(folder, "registry.json").write_text(content)
    assert call("registry", "show", folder, monkeypatch=monkeypatch) == 0
    assert call("registry", "show", folder, "letters", monkeypatch=monkeypatch) == 2
    out, err = capsys.readouterr()
    shown = f"{printable(odd)}digits"
    assert shown in out
    assert shown in err
    for text in ("the first", "/models/old.npz", "production"):
        assert printable(odd) + text in out
    assert not set("\x1b\x07\r\u202e\u2028") & set(out + err)
