"""What commands print of runs and of data that others have written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from paliflow.configs import RunSummary
from paliflow.configs.base import printable

if TYPE_CHECKING:
    from paliflow.jobs.runs.outputs import Run


def print_rows(console: Console, summary: RunSummary) -> None:
    """Some rows, why others failed, and last the line that sums it up."""
    from paliflow.jobs.runs.outputs import sample_rows  # here, because --help needs no Parquet

    table = Table("image", "prompt", "answer")
    for row in sample_rows(summary, 8):
        name = row["source_uri"].rpartition("/")[2]
        answer = text(row["text"]) if row["error"] is None else text(row["error"], "red")
        table.add_row(text(name), text(row["prompt"]), answer)
    reasons = Table.grid(padding=(0, 2))
    for reason, count in summary.error_reasons.items():
        reasons.add_row(f"{count:>8,}", text(reason, "red"))
    console.print(Group(table, reasons) if summary.error_reasons else table)
    print(summary.said())


def print_checks(console: Console, runs: Sequence["Run"]) -> None:
    """What the gates of runs found, also of those that were started over since: the failed checks
    in red, and why others were let through."""
    from paliflow.jobs.gates.history import read_checks

    table = Table("run", "check", box=None, header_style="bold", pad_edge=False)
    for column in ("value", "limit"):
        table.add_column(column, justify="right")
    for run in runs:
        rows = read_checks(run.location)
        for row in rows:
            bound = f"{'at least' if row['least'] else 'at most'} {row['limit']:.4g}"
            style = "" if row["passed"] else "red"
            cells = (row["check"], f"{row['value']:.4g}", bound)
            table.add_row(text(run.run_id), *(text(cell, style) for cell in cells))
        if rows and rows[0]["released"]:
            said = f"released {rows[0]['released']:%Y-%m-%d %H:%M}: {rows[0]['why']}"
            table.add_row(text(run.run_id), text(said, "green"), "", "")
    if table.row_count:
        console.print(table)
    else:
        print("no checks: none of the runs has a gate")


def text(said: str, style: str = "") -> Text:
    """Text from data: no markup, and nothing that a terminal would obey."""
    return Text(printable(said), style)
