"""What a job's output and exit code mean to Airflow."""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from paliflow.configs.base import brief, printable
from paliflow.configs.log_lines import parse
from paliflow.configs.summary import SUMMARY_PREFIX

USER_ERROR = 2
"""The exit code of a job that no retry can help: a wrong spec, no inputs, a bad checkpoint."""
TAIL_LINES = 30
LINE_CHARACTERS = 2000
"""Of a line in the task's log, and in an error."""
_REASONS = 20


class Logger(Protocol):
    def info(self, message: str, /, *args: Any) -> Any: ...
    def warning(self, message: str, /, *args: Any) -> Any: ...
    def error(self, message: str, /, *args: Any) -> Any: ...


def lines_of(text: str) -> list[str]:
    """Returns the lines of a job's output, blank ones left out.

    Newlines alone part them: `str.splitlines` also splits at U+2028 and the like, which the names
    in a summary may hold.
    """
    return [line for line in text.split("\n") if line.strip()]


def relay(lines: Iterable[str], log: Logger) -> None:
    """Writes a job's lines to the task log, each at its level, but for the summary, which
    `summary_or_raise` reads."""
    for line in lines:
        if line.strip() and not line.startswith(SUMMARY_PREFIX):
            level, message = parse(line)
            getattr(log, level)("%s", _shortened(message))


def outcome(
    status: str, message: str, exit_code: int | None = None, lines: Sequence[str] = ()
) -> dict[str, Any]:
    """How a job ended, as plain JSON small enough for a trigger's event.

    Args:
        status: Ray's, or why there is none.
        message: what there is to add.
        exit_code: None if the job never ran or was lost.
        lines: its output; the summary among them is parsed and loses its spec, and its reasons
            for errors are cut to what an XCom can hold. It is not validated, because a cluster
            may run a newer Paliflow.
    """
    summary = None
    for line in lines:
        if line.startswith(SUMMARY_PREFIX):
            summary = json.loads(line.removeprefix(SUMMARY_PREFIX))
            summary.pop("spec", None)
            if reasons := summary.get("error_reasons"):
                common = islice(reasons.items(), _REASONS)
                summary["error_reasons"] = {brief(reason): count for reason, count in common}
    tail = [_shortened(line) for line in lines[-TAIL_LINES:]] if not summary else []
    return {
        "status": status,
        "message": _shortened(message),
        "exit_code": exit_code,
        "summary": summary,
        "tail": tail,
    }


def _shortened(line: str) -> str:
    return printable(brief(line, LINE_CHARACTERS))


def summary_or_raise(ended: dict[str, Any]) -> dict[str, Any]:
    """The summary in what `outcome` made of a job that succeeded.

    Raises:
        AirflowFailException: for exit code 2; retrying would not help.
        AirflowException: for any other failure, with the job's last lines.
    """
    if ended["exit_code"] == 0 and ended["summary"]:
        summary: dict[str, Any] = ended["summary"]
        return summary
    lines = [f"The job is {ended['status']}: {ended['message']}"]
    if ended["exit_code"] == 0:
        lines.append(f"It printed no line that starts with {SUMMARY_PREFIX!r}")
    exception = AirflowFailException if ended["exit_code"] == USER_ERROR else AirflowException
    raise exception("\n".join([*lines, *ended["tail"]]))


def shown(figure: float | None) -> str:
    """A figure of a summary in a log line; JSON has null for what is not a number."""
    return "nan" if figure is None else f"{figure:.4g}"
