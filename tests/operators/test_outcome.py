"""What a job's exit code and last lines become."""

import json

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from paliflow.configs.summary import SUMMARY_PREFIX
from paliflow.operators.outcome import (
    LINE_CHARACTERS,
    TAIL_LINES,
    lines_of,
    outcome,
    relay,
    summary_or_raise,
)

SUMMARY = SUMMARY_PREFIX + '{"rows": 4, "spec": {"prompts": ["ocr"]}}'


def test_a_summary_is_found_among_later_lines_and_loses_its_spec() -> None:
    lines = ["working", SUMMARY, *["a library's goodbye"] * 100]
    assert summary_or_raise(outcome("SUCCEEDED", "", 0, lines)) == {"rows": 4}


def test_success_without_a_summary_is_a_failure() -> None:
    with pytest.raises(AirflowException, match="no line that starts with 'paliflow-summary"):
        summary_or_raise(outcome("SUCCEEDED", "", 0, ["working"]))


@pytest.mark.parametrize(
    ("exit_code", "final"), [(2, True), (1, False), (-9, False), (None, False)]
)
def test_only_exit_code_2_is_not_retried(exit_code: int | None, final: bool) -> None:
    lines = [f"line {n}" for n in range(TAIL_LINES + 1)]
    with pytest.raises(AirflowException, match="FAILED: why\nline 1\n") as failure:
        summary_or_raise(outcome("FAILED", "why", exit_code, lines))
    assert isinstance(failure.value, AirflowFailException) == final


class Log:
    """Keeps what is logged, by level."""

    def __init__(self) -> None:
        self.lines: tuple[object, ...] = ()
        self.warnings: tuple[object, ...] = ()
        self.errors: tuple[object, ...] = ()

    def info(self, message: str, /, *args: object) -> None:
        self.lines += args

    def warning(self, message: str, /, *args: object) -> None:
        self.warnings += args

    def error(self, message: str, /, *args: object) -> None:
        self.errors += args


def test_the_summary_line_and_blank_lines_are_not_relayed() -> None:
    relay(["one", "", SUMMARY, "two"], log := Log())
    assert log.lines == ("one", "two")


def test_lines_carry_their_level_to_airflow() -> None:
    lines = ["one", "warning: slow", "paliflow: broken"]
    relay([*lines, '{"time": "t", "level": "warning", "message": "as JSON"}'], log := Log())
    assert log.lines == ("one",)
    assert log.warnings == ("slow", "as JSON")
    assert log.errors == ("broken",)


def test_a_name_with_a_line_separator_does_not_break_the_summary() -> None:
    name = "a\u2028b\u2029\x85c"
    text = f'working\n{SUMMARY_PREFIX}{{"location": "{name}"}}\n'
    assert summary_or_raise(outcome("SUCCEEDED", "", 0, lines_of(text))) == {"location": name}


def test_what_a_job_prints_cannot_command_who_reads_the_log() -> None:
    line = "broken: \x1b[2J\x9b31m\u202egpj.exe\u2028[airflow] success"
    with pytest.raises(AirflowException) as failure:
        summary_or_raise(outcome("FAILED", line, 1, [line]))
    assert not set("\x1b\x9b\u202e\u2028") & set(str(failure.value))
    assert "\\x1b[2J" in str(failure.value)
    relay([line], log := Log())
    assert not set("\x1b\x9b\u202e\u2028") & set(str(log.lines[0]))


def test_what_a_job_prints_takes_little_room_in_logs_and_xcoms() -> None:
    long = "x" * 10**6
    relay([long], log := Log())
    assert len(str(log.lines[0])) < LINE_CHARACTERS + 50
    failed = outcome("FAILED", long, 1, [long] * 100)
    assert len(json.dumps(failed)) < (TAIL_LINES + 2) * (LINE_CHARACTERS + 50)
    reasons = {f"{number}{long}": 1 for number in range(30)}
    summary = SUMMARY_PREFIX + json.dumps({"rows": 4, "error_reasons": reasons})
    kept = summary_or_raise(outcome("SUCCEEDED", "", 0, [summary]))
    assert (kept["rows"], len(kept["error_reasons"])) == (4, 20)
    assert len(json.dumps(kept)) < 20_000
