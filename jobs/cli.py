"""The `paliflow` command line."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.base import SpecError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def main() -> None:
    """The entry point: exit code 0 done, 2 the user must change something, 1 anything else."""
    with user_errors():
        app()


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a `SpecError` into one line on stderr and exit code 2."""
    try:
        yield
    except SpecError as error:
        print("paliflow: " + " ".join(str(error).split()), file=sys.stderr, flush=True)
        sys.exit(2)


def annotate_on_ray(spec: AnnotateSpec, address: str | None, console: Console) -> RunSummary:
    """Connects to Ray and annotates; JAX and Ray are imported no sooner, for a quick `--help`."""
    from paliflow.jobs import run
    from paliflow.jobs.cluster import connected

    with connected(address):
        return run.annotate(spec, console)


@app.callback()
def _paliflow() -> None:
    """PaliGemma over image datasets: captions, answers and boxes to Parquet, on Ray."""


def _help(field: str) -> str:
    return AnnotateSpec.model_fields[field].description or ""


@app.command()
def annotate(
    source: Annotated[str, typer.Argument(metavar="INPUT", help=_help("input"))],
    output: Annotated[str, typer.Option(help=_help("output"))],
    prompt: Annotated[list[str], typer.Option(help=_help("prompts") + " Repeat for several.")],
    checkpoint: Annotated[str | None, typer.Option(help=_help("checkpoint"))] = None,
    tokenizer: Annotated[str | None, typer.Option(help=_help("tokenizer"))] = None,
    mask_decoder: Annotated[str | None, typer.Option(help=_help("mask_decoder"))] = None,
    run_id: Annotated[
        str | None, typer.Option(help=_help("run_id") + " The time, if not given.")
    ] = None,
    image_column: Annotated[str, typer.Option(help=_help("image_column"))] = "image",
    max_new_tokens: Annotated[int, typer.Option(help=_help("max_new_tokens"))] = 64,
    dtype: Annotated[
        Literal["bfloat16", "float32"], typer.Option(help=_help("dtype"))
    ] = "bfloat16",
    shard_size: Annotated[int, typer.Option(help=_help("shard_size"))] = 256,
    batch_size: Annotated[int, typer.Option(help=_help("batch_size"))] = 16,
    actors: Annotated[int | None, typer.Option(help=_help("actors"))] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster, e.g. `auto` or `ray://head:10001`; one here if not given."
        ),
    ] = None,
) -> None:
    """Asks every prompt about every image and writes the answers to Parquet.

    Example: paliflow annotate photos --output annotations --prompt "caption en" --prompt ocr

    The same command with the same --run-id resumes a run that was interrupted.
    """
    spec = AnnotateSpec.parse(
        {
            "input": source,
            "output": output,
            "prompts": prompt,
            "run_id": run_id or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "checkpoint": checkpoint,
            "tokenizer": tokenizer,
            "mask_decoder": mask_decoder,
            "image_column": image_column,
            "max_new_tokens": max_new_tokens,
            "dtype": dtype,
            "shard_size": shard_size,
            "batch_size": batch_size,
            "actors": actors,
        }
    )
    console = Console()
    summary = annotate_on_ray(spec, ray_address, console)
    console.print(_preview(summary))
    print(
        f"{summary.rows} rows, {summary.errors} of them errors, from {summary.inputs} images in "
        f"{summary.seconds:.1f} s: {summary.location}"
    )


def _preview(summary: RunSummary, rows: int = 6) -> Table:
    """The first rows of a run's first part."""
    from paliflow.jobs import storage
    from paliflow.jobs.sink import part_uri

    columns = ["source_uri", "prompt", "text", "error"]
    with storage.open_binary(part_uri(summary.location, 0)) as file:
        batch = next(pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns))
    table = Table("image", "prompt", "answer")
    for row in batch.to_pylist():
        name = row["source_uri"].rpartition("/")[2]
        answer = Text(row["text"]) if row["error"] is None else Text(row["error"], "red")
        table.add_row(Text(name), Text(row["prompt"]), answer)
    return table
