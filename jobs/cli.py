"""The `paliflow` command line."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

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


@app.callback()
def _paliflow() -> None:
    """PaliGemma over image datasets: captions, answers and boxes to Parquet, on Ray."""


def _option(field: str, *names: str, note: str = "") -> Any:
    """An option that says of itself what the spec says of its field."""
    info = AnnotateSpec.model_fields[field]
    shown = False if info.is_required() or not info.default else str(info.default)
    return typer.Option(*names, help=f"{info.description}{note}", show_default=shown)


@app.command()
def annotate(
    context: typer.Context,
    input: Annotated[str, typer.Argument(help=AnnotateSpec.model_fields["input"].description)],
    output: Annotated[str, _option("output")],
    prompts: Annotated[list[str], _option("prompts", "--prompt", note=" Repeat for several.")],
    run_id: Annotated[str | None, _option("run_id", note=" The time, if not given.")] = None,
    checkpoint: Annotated[str | None, _option("checkpoint")] = None,
    tokenizer: Annotated[str | None, _option("tokenizer")] = None,
    mask_decoder: Annotated[str | None, _option("mask_decoder")] = None,
    dtype: Annotated[str | None, _option("dtype")] = None,
    image_column: Annotated[str | None, _option("image_column")] = None,
    max_new_tokens: Annotated[int | None, _option("max_new_tokens")] = None,
    shard_size: Annotated[int | None, _option("shard_size")] = None,
    batch_size: Annotated[int | None, _option("batch_size")] = None,
    actors: Annotated[int | None, _option("actors")] = None,
    accelerator: Annotated[
        list[str] | None, typer.Option(help="What one actor takes: TPU=4 or GPU=1.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster's head:port, or `auto`; one here if not given."),
    ] = None,
) -> None:
    """Asks every prompt about every image and writes the answers to Parquet.

    Example: paliflow annotate photos --output annotations --prompt "caption en" --prompt ocr

    The same command with the same --run-id resumes a run that was interrupted.
    """
    given = {
        field: value
        for field, value in context.params.items()
        if field in AnnotateSpec.model_fields and value is not None
    }
    given.setdefault("run_id", datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    taken = (item.partition("=") for item in accelerator or [])
    given["accelerators_per_actor"] = {name: count for name, _, count in taken}
    spec = AnnotateSpec.parse(given)
    from paliflow.jobs import run  # here, because JAX and Ray would make --help wait

    console = Console()
    summary = run.annotate(spec, console, ray_address)
    console.print(_preview(summary))
    print(
        f"{summary.rows} rows, {summary.errors} of them errors, from {summary.inputs} images in "
        f"{summary.seconds:.1f} s: {summary.location}"
    )


def _preview(summary: RunSummary, rows: int = 6) -> Table:
    """The first rows of a run's first part."""
    import pyarrow.parquet as pq

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
