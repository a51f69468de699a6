"""The `paliflow` command line."""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from paliflow.configs import ReleaseSpec
from paliflow.configs.base import ClusterError, SpecError, brief, printable
from paliflow.configs.log_lines import say
from paliflow.jobs.cli.benchmark_commands import benchmarks
from paliflow.jobs.cli.cluster_commands import cluster
from paliflow.jobs.cli.commands import annotate, extract, filter, finetune, plan, promote
from paliflow.jobs.cli.doctor import doctor
from paliflow.jobs.cli.evaluation_commands import calibrate, evaluate, scoreboard
from paliflow.jobs.cli.printing import print_checks, print_rows, text
from paliflow.jobs.cli.registry_commands import registry

if TYPE_CHECKING:
    from paliflow.jobs.runs.outputs import Run

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
        say(said, "error", sys.stderr)
        sys.exit(2 if isinstance(error, SpecError) else 1)
    except Exception:
        lines = traceback.format_exc().rstrip("\n").split("\n")
        print(*map(printable, lines), sep="\n", file=sys.stderr, flush=True)
        sys.exit(1)


@app.callback()
def _paliflow() -> None:
    """PaliGemma over image datasets: captions, answers and boxes to Parquet, on Ray."""


for _command in (
    annotate, plan, extract, filter, finetune, evaluate, scoreboard, calibrate, promote, doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(registry, name="registry")
app.add_typer(benchmarks, name="benchmarks")
app.add_typer(cluster, name="cluster")

Output = Annotated[
    str, typer.Argument(help="The folder or gs:// prefix that runs were written to, or one run's.")
]
RunId = Annotated[str | None, typer.Option(help="Which run; the newest finished, if not given.")]


@app.command()
def runs(
    output: Output,
    checks: Annotated[bool, typer.Option("--checks", help="What gates found of each.")] = False,
) -> None:
    """Lists the runs of an output: how far they are, rows, errors, when, how fast."""
    from paliflow.jobs.runs.outputs import list_runs, state

    table = Table("run", "state", box=None, header_style="bold", pad_edge=False)
    for column in ("rows", "errors", "images/s", "last written"):
        table.add_column(column, justify="right")
    found = list_runs(output)
    for run in found:
        rows, errors, speed, when = "", "", "", run.latest and run.latest.committed
        if done := run.summary:
            rows, errors, when = f"{done.rows:,}", f"{done.errors:,}", done.finished
            speed = f"{done.images_per_second:.1f}"
        table.add_row(
            text(run.run_id),
            text(state(run), style_of(run)),
            *(rows, errors, speed, f"{when.astimezone():%Y-%m-%d %H:%M}" if when else ""),
        )
    if not table.row_count:
        raise SpecError(f"{output}: no runs there")
    console = Console()
    console.print(table)
    if checks:
        print_checks(console, found)


def style_of(run: "Run") -> str:
    """The colour of a run's state."""
    if not run.summary:
        return "yellow"
    return "red" if run.summary.quarantined else "green"


@app.command()
def release(
    output: Output,
    why: Annotated[str, typer.Option(help="Kept in the run's manifest.")],
    run_id: Annotated[str | None, typer.Option(help="Which run.")] = None,
) -> None:
    """Lets a run through that its gate has quarantined, with the reason on record.

    Its report says so. In Airflow, clear the task then: it takes the run up and announces it.

    \b
    paliflow release annotations --run-id week-31 --why "the new camera sees less, as expected"
    """
    from paliflow.jobs.annotate.releasing import release

    spec = ReleaseSpec.parse({"output": output, "run_id": run_id, "why": why})
    print(f"released: {printable(release(spec, Console()).location)}")


@app.command()
def show(output: Output, run_id: RunId = None) -> None:
    """Prints a finished run's summary and some of its rows."""
    from paliflow.jobs.runs.outputs import find_run

    print_rows(Console(), find_run(output, run_id))


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
