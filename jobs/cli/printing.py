"""What commands print of runs and of data that others have written."""

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


def text(said: str, style: str = "") -> Text:
    """Text from data: no markup, and nothing that a terminal would obey."""
    return Text(printable(said), style)
