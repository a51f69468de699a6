"""Lines of a job's log: what they say of their level is understood again."""

import json

import pytest

from paliflow.configs.log_lines import FORMAT_VARIABLE, Level, parse, say

LEVELS: tuple[Level, ...] = ("info", "warning", "error")


@pytest.mark.parametrize("setting", ["text", "json"])
def test_level_and_message_of_what_is_said_are_parsed_again(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, setting)
    for level in LEVELS:
        say('a {line} of "text"', level)
    lines = capsys.readouterr().out.splitlines()
    assert [parse(line) for line in lines] == [(level, 'a {line} of "text"') for level in LEVELS]
    if setting == "json":
        assert all(set(json.loads(line)) == {"time", "level", "message"} for line in lines)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-11-27 07:00:00,123\tWARNING worker.py:1 -- slow", "warning"),
        ("2026-11-27 07:00:00,123\tERROR worker.py:1 -- gone", "error"),
        ("2026-11-27 07:00:00,123\tINFO worker.py:1 -- up", "info"),
        ("W0000 00:00:1764.5 12 cpu.cc:3] slow", "warning"),
        ("E1127 07:00:00.5 12 cpu.cc:3] gone", "error"),
        ("{'not': 'json'}", "info"),
        ('{"level": "fatal", "message": "of another"}', "info"),
        ("[1, 2]", "info"),
        ("Errors: 3", "info"),
    ],
)
def test_lines_of_libraries_keep_their_text_and_tell_their_level(line: str, level: Level) -> None:
    assert parse(line) == (level, line)
