"""Readers of caption files that are no lists of records."""

from collections.abc import Iterator, Mapping

from paliflow.jobs.examples.benchmarks.files import records, text_lines
from paliflow.jobs.examples.benchmarks.rows import Files, Row


def screen2words(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """Screen2Words: a table of summaries, several a screen, and a list of a split's screens."""
    summaries: dict[str, list[str]] = {}
    for record in records(files["summaries"]):
        if not {"screenId", "summary"} <= record.keys():
            raise ValueError("the table has no columns screenId and summary")
        summaries.setdefault(record["screenId"], []).append(record["summary"])
    for screen in text_lines(files["screens"]):
        if screen in summaries:
            yield Row(screen, {"screen": screen}, tuple(summaries[screen]), {}, {})
        else:
            yield "a screen without summaries"
