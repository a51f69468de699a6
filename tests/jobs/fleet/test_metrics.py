"""The figures that a driver reports, and the board that shows them."""

import json
import re
from pathlib import Path

import pytest

from paliflow.jobs.fleet import metrics
from paliflow.jobs.fleet.metrics import kind_of

BOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "paliflow.json"


def names_on_the_board() -> set[str]:
    """The metrics that its panels ask Prometheus for."""
    panels = json.loads(BOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return {name for each in asked for name in re.findall(r"\bray_paliflow_\w+", each)}


def test_the_board_asks_for_each_metric_and_for_no_other() -> None:
    text = Path(metrics.__file__).read_text()
    counters = {f"ray_paliflow_{name}_total" for name in re.findall(r'counter\("(\w+)"', text)}
    gauges = {f"ray_paliflow_{name}" for name in re.findall(r'gauge\("(\w+)"', text)}
    assert names_on_the_board() == counters | gauges
    assert len(counters | gauges) == 8


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("not found", "not found"),
        ("truncated or broken image: /data/a.jpg", "truncated or broken image"),
        ("crashes the decoder (SIGSEGV)", "crashes the decoder"),
        ("needs more than decoder_memory=2048 MB to decode", "needs more than decoder_memory"),
        ("17 things", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_errors_leave_names_and_numbers_out(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind
