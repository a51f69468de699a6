"""Python for notebooks: an annotation run as one call, and its rows as a table."""

import html
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from paliflow import storage
from paliflow.configs import AnnotateSpec, PromptSpec, RunSummary
from paliflow.configs.run import run_id_now
from paliflow.configs.schema import ANNOTATIONS
from paliflow.jobs.runs.outputs import row_files, sample_rows

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

_SHOWN = 8


@dataclass(frozen=True)
class Annotations:
    """A finished annotation run. A notebook shows some of its rows."""

    summary: RunSummary
    """Where the run is, and how many rows, errors and images it has."""

    def to_arrow(self) -> pa.Table:
        """All rows, in the order of the inputs, by the columns of docs/output.md."""
        tables = []
        for uri in row_files(self.summary):
            with storage.open_binary(uri) as file:
                tables.append(pq.read_table(file))
        return pa.concat_tables(tables or [ANNOTATIONS.empty_table()], promote_options="permissive")

    def to_pandas(self) -> "pd.DataFrame":
        """As `to_arrow`. It needs pandas, which Paliflow does not install."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    @property
    def report(self) -> str | None:
        """The path or URI of the HTML page that shows the run; None if it has none."""
        from paliflow.jobs.report.page import REPORT

        uri = f"{self.summary.location}/{REPORT}"
        return uri if storage.is_file(uri) else None

    def _repr_html_(self) -> str:
        lines = ["<tr><th>image</th><th>prompt</th><th>answer</th></tr>"]
        for row in sample_rows(self.summary, _SHOWN):
            cells = row["source_uri"].rpartition("/")[2], row["prompt"], row["error"] or row["text"]
            shown = "".join(f"<td>{html.escape(cell or '')}</td>" for cell in cells)
            lines.append(f"<tr>{shown}</tr>")
        said = html.escape(self.summary.said())
        return f"<table>{''.join(lines)}</table><p>{said}</p>"


def annotate(
    input: str | os.PathLike[str],
    prompts: str | Iterable[str | Mapping[str, Any] | PromptSpec] = (),
    *,
    output: str | os.PathLike[str],
    ray_address: str | None = None,
    **fields: Any,
) -> Annotations:
    """Asks every prompt about every image of `input` and writes the answers to Parquet.

    Ray starts in this process and ends with the run, unless it runs already or an address is
    given. Progress is printed.

    Args:
        input: an image, a folder, a glob, a manifest or a tar; local or `gs://`.
        prompts: what is asked, e.g. `caption en`, `detect cat ; dog` or with fixed choices
            `{"ask": "answer en is it open?", "choices": "yes/no"}`.
        output: the folder or `gs://` prefix that the run is written below.
        ray_address: of a Ray cluster's head, `host:port`, or `auto`.
        fields: any other field of `AnnotateSpec`. `run_id` is the time if not given; the same one
            again resumes a run that was interrupted.

    Raises:
        SpecError: something in what was given has to change; the message says what.
        ClusterError: the cluster is not there, or has no room now.
    """
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    given: dict[str, Any] = {
        "input": input,
        "prompts": prompts,
        "output": output,
        "run_id": run_id_now(),
        **fields,
    }
    spec = AnnotateSpec.parse(
        {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in given.items()
        }
    )
    from paliflow.jobs.annotate import job  # here, so that a bad spec is told before JAX is there

    return Annotations(job.annotate(spec, Console(), ray_address))
