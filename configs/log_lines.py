"""Lines of a job's log, with their level: as text for people, or as JSON for what collects logs."""

import json
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Level = Literal["info", "warning", "error"]

FORMAT_VARIABLE = "PALIFLOW_LOG"
"""The environment variable that has a job write JSON: `json`. Anything else is text."""
_PREFIXES: dict[str, Level] = {"warning: ": "warning", "paliflow: ": "error"}
"""How a line of text begins that is no mere information."""
_LIBRARIES = re.compile(
    r"[\d-]{10} [\d:,.]+\s+(?P<name>WARNING|ERROR|CRITICAL)\b"  # Python's logging, as Ray sets it
    r"|(?P<letter>[WEF])\d{4} [\d:.]+ "  # Abseil's, of JAX and TensorStore
)
_OF_LIBRARY: dict[str, Level] = {"W": "warning", "E": "error", "F": "error", "C": "error"}


def say(message: str, level: Level = "info", file: TextIO | None = None) -> None:
    """Prints a line of a job's log at once.

    Args:
        message: a line, or several.
        level: how grave it is.
        file: standard output if not given.
    """
    text = message
    if os.environ.get(FORMAT_VARIABLE) == "json":
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"time": at, "level": level, "message": message})
    else:
        prefix = next((prefix for prefix, of in _PREFIXES.items() if of == level), "")
        text = f"{prefix}{message}"
    print(text, file=file or sys.stdout, flush=True)


def parse(line: str) -> tuple[Level, str]:
    """The level and the message of a line that `say` or a library has printed."""
    if line.startswith("{"):
        try:
            said: Any = json.loads(line)
            if said["level"] in ("info", "warning", "error"):
                return said["level"], str(said["message"])
        except (ValueError, KeyError, TypeError):
            pass  # somebody else's
    for prefix, level in _PREFIXES.items():
        if line.startswith(prefix):
            return level, line.removeprefix(prefix)
    if found := _LIBRARIES.match(line):
        return _OF_LIBRARY[(found["name"] or found["letter"])[0]], line
    return "info", line
