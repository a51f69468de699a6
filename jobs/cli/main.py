"""The `paliflow` command line."""

import contextlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from paliflow.configs import AnnotateSpec, RunSummary, Sampling, VideoSpec
from paliflow.configs.base import ClusterError, SpecError, brief, printable
from paliflow.configs.summary import cut_said
from paliflow.jobs.cli.commands import evaluate, extract, finetune, plan, promote
from paliflow.jobs.cli.registry_commands import registry

_MESSAGE = 10_000
"""Characters of an error on stderr."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def main() -> None:
    """The entry point: exit code 0 done, 2 the user must change something, 1 anything else."""
    with user_errors():
        app()


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns a `SpecError` and a `ClusterError` into one line on stderr and exit code 2 or 1, any
    other error into its traceback and exit code 1, whatever names and texts it repeats."""
    try:
        yield
    except (SpecError, ClusterError) as error:
        said = printable(brief(" ".join(str(error).split()), _MESSAGE))
        print(f"paliflow: {said}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, SpecError) else 1)
    except Exception:
        lines = traceback.format_exc().rstrip("\n").split("\n")
        print(*map(printable, lines), sep="\n", file=sys.stderr, flush=True)
        sys.exit(1)


@app.callback()
def _paliflow() -> None:
    """PaliGemma over image datasets: captions, answers and boxes to Parquet, on Ray."""


_PANELS = {
    "What": "prompts video sniff image_column prompt_column id_column metadata_columns https_hosts "
    "allowed_roots only_new max_pixels exif read_timeout video_timeout decoder_memory",
    "Model": "checkpoint registry tokenizer mask_decoder dtype int8_cache query_pre_attn_scalar "
    "max_new_tokens max_prompt_tokens temperature top_k top_p seed",
    "Output": "output run_id generation thumbnail compact report row_group_size compression_level",
    "How": "actors cpus_per_actor accelerators_per_actor batch_size model_parallel "
    "compilation_cache shard_size stall_timeout "
    "start_timeout max_errors max_error_fraction",
}
_FLAGS = {"accelerators_per_actor": "--accelerator"}
_NOTES = {
    "run_id": "The time, if not given.",
    "accelerators_per_actor": "Here TPU=4 or GPU=1.",
    "video": "Here fps=2, or count=8 and clip.frames=8; docs/video.md has them all.",
}


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """A field of the spec as an option; the spec checks the values, so they stay text here."""
    repeated = get_origin(field.annotation) in (tuple, dict) or name == "video"
    required = field.is_required() and name != "run_id"
    flag = _FLAGS.get(name, f"--{name.removesuffix('s') if repeated else name}".replace("_", "-"))
    notes = [field.description, _NOTES.get(name), "Repeat for several." if repeated else None]
    if isinstance(field.default, (str, int, float)):
        notes.append(f"Default: {str(field.default).lower()}.")
    option = typer.Option(
        *([] if field.annotation is bool else [flag]),
        help=" ".join(note for note in notes if note),
        metavar=None if field.annotation is bool else _metavar(field.annotation),
        show_default=False,
        rich_help_panel=panel,
    )
    kind: Any = bool if field.annotation is bool else list[str] if repeated else str
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind | None, option],
    )


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) is dict:
        return "NAME=FLOAT"
    if annotation == VideoSpec | None:
        return "NAME=VALUE"
    return next((kind.upper() for kind in ("int", "float") if kind in str(annotation)), "TEXT")


def _signature() -> inspect.Signature:
    """The options of `annotate`: the fields of the spec, those of its sampling, and an address."""
    fields = {**AnnotateSpec.model_fields, **Sampling.model_fields}
    source = typer.Argument(help=fields["input"].description, metavar="INPUT")
    address = typer.Option(
        help="A Ray cluster's head:port, or `auto`; one here if not given.",
        metavar="TEXT",
        rich_help_panel="How",
    )
    parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    return inspect.Signature(
        [
            parameter("input", annotation=Annotated[str, source]),
            *(
                _option(name, fields[name], panel)
                for panel, names in _PANELS.items()
                for name in names.split()
            ),
            parameter("ray_address", default=None, annotation=Annotated[str | None, address]),
        ]
    )


def _annotate(ray_address: str | None, **fields: Any) -> None:
    """Asks every prompt about every image and writes the answers to Parquet.

    Example: paliflow annotate photos --output annotations --prompt "caption en" --prompt ocr

    The same command with the same --run-id resumes a run that was interrupted.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("run_id", datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    given["sampling"] = {name: given.pop(name) for name in Sampling.model_fields if name in given}
    taken = (item.partition("=") for item in given.pop("accelerators_per_actor", ()))
    given["accelerators_per_actor"] = {name: count for name, _, count in taken}
    if "video" in given:
        given["video"] = _nested(given["video"])
    spec = AnnotateSpec.parse(given)
    from paliflow.jobs.annotate import (
        job as run,  # here, because JAX and Ray would make --help wait
    )

    console = Console()
    _print(console, run.annotate(spec, console, ray_address))


def _nested(pairs: list[str]) -> dict[str, Any]:
    """`clip.frames=8` as the field of a field."""
    fields: dict[str, Any] = {}
    for name, _, value in (pair.partition("=") for pair in pairs):
        *path, last = name.split(".")
        within = fields
        for step in path:
            within = within.setdefault(step, {})
        within[last] = value
    return fields


_annotate.__signature__ = _signature()  # type: ignore[attr-defined]
app.command("annotate")(_annotate)
for _command in (plan, extract, finetune, evaluate, promote):
    app.command()(_command)
app.add_typer(registry, name="registry")

Output = Annotated[
    str, typer.Argument(help="The folder or gs:// prefix that runs were written to, or one run's.")
]
RunId = Annotated[str | None, typer.Option(help="Which run; the newest finished, if not given.")]


@app.command()
def runs(output: Output) -> None:
    """Lists the runs of an output: how far they are, rows, errors, when, how fast."""
    from paliflow.jobs.runs.outputs import list_runs, state

    table = Table("run", "state", box=None, header_style="bold", pad_edge=False)
    for column in ("rows", "errors", "images/s", "last written"):
        table.add_column(column, justify="right")
    for run in list_runs(output):
        rows, errors, speed, when = "", "", "", run.latest and run.latest.committed
        if done := run.summary:
            rows, errors, when = f"{done.rows:,}", f"{done.errors:,}", done.finished
            speed = f"{done.images_per_second:.1f}"
        table.add_row(
            _text(run.run_id),
            _text(state(run), "green" if run.summary else "yellow"),
            *(rows, errors, speed, f"{when.astimezone():%Y-%m-%d %H:%M}" if when else ""),
        )
    if not table.row_count:
        raise SpecError(f"{output}: no runs there")
    Console().print(table)


@app.command()
def show(output: Output, run_id: RunId = None) -> None:
    """Prints a finished run's summary and some of its rows."""
    from paliflow.jobs.runs.outputs import find_run

    _print(Console(), find_run(output, run_id))


@app.command()
def compact(output: Output, run_id: RunId = None) -> None:
    """Rewrites a finished run into files of about 256 MB.

    Safe to interrupt and to repeat. Its manifest names the files that count.
    """
    from paliflow.jobs.runs.compact import compact
    from paliflow.jobs.runs.outputs import find_run

    summary = compact(find_run(output, run_id))
    files = f"{len(summary.files)} file" + "s" * (len(summary.files) != 1)
    where = printable(summary.location)
    print(f"{summary.rows} rows of {summary.shards} parts in {files}: {where}")


def _print(console: Console, summary: RunSummary) -> None:
    """Some rows, why others failed, and last the line that sums it up."""
    from paliflow.jobs.runs.outputs import sample_rows

    table = Table("image", "prompt", "answer")
    for row in sample_rows(summary, 8):
        name = row["source_uri"].rpartition("/")[2]
        answer = _text(row["text"]) if row["error"] is None else _text(row["error"], "red")
        table.add_row(_text(name), _text(row["prompt"]), answer)
    reasons = Table.grid(padding=(0, 2))
    for reason, count in summary.error_reasons.items():
        reasons.add_row(f"{count:>8,}", _text(reason, "red"))
    console.print(Group(table, reasons) if summary.error_reasons else table)
    print(
        f"{summary.rows} rows, {summary.errors} of them errors{cut_said(summary.cut)}, from "
        f"{summary.inputs} images in {summary.seconds:.1f} s: {printable(summary.location)}"
    )


def _text(text: str, style: str = "") -> Text:
    """Text from data: no markup, and nothing that a terminal would obey."""
    return Text(printable(text), style)
