"""What commands print of runs and of data that others have written."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from paliflow.configs import RunSummary
from paliflow.configs.base import printable


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


def print_checks(console: Console, summaries: Sequence[RunSummary]) -> None:
    """What the gates of runs found, the failed ones in red, and why others were let through."""
    table = Table("run", "check", box=None, header_style="bold", pad_edge=False)
    for column in ("value", "limit"):
        table.add_column(column, justify="right")
    for summary in summaries:
        for check in summary.checks:
            bound = f"{'at least' if check.least else 'at most'} {check.limit:.4g}"
            style = "" if check.passed else "red"
            cells = (check.name, f"{check.value:.4g}", bound)
            table.add_row(text(summary.run_id), *(text(cell, style) for cell in cells))
        if summary.released:
            said = f"released {summary.released.when:%Y-%m-%d %H:%M}: {summary.released.why}"
            table.add_row(text(summary.run_id), text(said, "green"), "", "")
    if table.row_count:
        console.print(table)
    else:
        print("no checks: none of the runs has a gate")


def text(said: str, style: str = "") -> Text:
    """Text from data: no markup, and nothing that a terminal would obey."""
    return Text(printable(said), style)
