"""The official scorers' outputs that the tests compare with."""

import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parents[1] / "data"


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_DATA / name).read_text(encoding="utf-8"))
    return content
