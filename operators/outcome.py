"""What a job's output and exit code mean to Airflow."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from paliflow.configs.summary import SUMMARY_PREFIX

USER_ERROR = 2
"""The exit code of a job that no retry can help: a wrong spec, no inputs, a bad checkpoint."""
TAIL_LINES = 30


class _Logger(Protocol):
    def info(self, message: str, /, *args: Any) -> Any: ...


def relay(lines: Iterable[str], log: _Logger) -> None:
    """Writes a job's lines to the task log, all but the summary, which is for `conclude`."""
    for line in lines:
        if line.strip() and not line.startswith(SUMMARY_PREFIX):
            log.info("%s", line)


def conclude(tail: Sequence[str], exit_code: int | None, what: str) -> dict[str, Any]:
    """The summary among a job's last lines: plain JSON, without the spec.

    It is not validated against `RunSummary`: the cluster may run a newer Paliflow.

    Raises:
        AirflowFailException: for exit code 2; retrying would not help.
        AirflowException: for any other failure, `what` and the job's last lines.
    """
    if exit_code == 0:
        for line in reversed(tail):
            if line.startswith(SUMMARY_PREFIX):
                summary: dict[str, Any] = json.loads(line.removeprefix(SUMMARY_PREFIX))
                summary.pop("spec", None)
                return summary
    exception = AirflowFailException if exit_code == USER_ERROR else AirflowException
    problem = "and printed no summary" if exit_code == 0 else "its last lines:"
    raise exception("\n".join([f"{what}; {problem}", *tail]))
