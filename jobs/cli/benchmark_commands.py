"""`paliflow benchmarks`: which benchmarks are known, what they need, and whether it is there."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from paliflow.configs.base import SpecError, printable
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.jobs.cli.printing import text

benchmarks = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As `paliflow benchmarks list` has it.")]


@benchmarks.callback()
def _benchmarks() -> None:
    """Shows the public benchmarks that `paliflow evaluate --benchmark` knows."""


@benchmarks.command(name="list")
def list_() -> None:
    """Lists the benchmarks: the row of the model card, the split and the published figures."""
    table = Table("name", "model card", "split", "published", box=None, header_style="bold")
    for name in benchmark_names():
        known = benchmark(name)
        published = "; ".join(
            f"{variant}: {', '.join(f'{value:g}' for value in figures.values())}"
            for variant, figures in known.published.items()
        )
        table.add_row(text(name), text(known.card), text(known.split), text(published))
    Console().print(table)


@benchmarks.command()
def describe(name: Name) -> None:
    """Prints all that is known of a benchmark: files, prompt, metrics, what differs, licence."""
    known = benchmark(name)
    table = Table.grid(padding=(0, 2))
    table.add_row(text("title", "bold"), text(known.title))
    table.add_row(text("data", "bold"), text(f"{known.data} ({known.licence})"))
    for role, paths in known.files.items():
        listed = paths if isinstance(paths, str) else " or ".join(paths)
        table.add_row(text(f"file {role}", "bold"), text(listed))
    for role, path in known.folders.items():
        table.add_row(text(f"folder {role}", "bold"), text(f"{path}/"))
    if known.prepared:
        names = (
            (known.prepared.name,) if isinstance(known.prepared.name, str) else known.prepared.name
        )
        table.add_row(
            text("or of TFDS", "bold"), text(" or ".join(f"{each}/<version>/" for each in names))
        )
    images = (known.images,) if isinstance(known.images, str) else known.images
    for image in filter(None, images):
        table.add_row(text("image", "bold"), text(image))
    splits = ", ".join(
        f"{each} (evaluated)" if each == known.split else each for each in known.splits
    )
    table.add_row(text("splits", "bold"), text(splits))
    for group, values in known.parts.items():
        table.add_row(text(group, "bold"), text(", ".join(values)))
    table.add_row(text("prompt", "bold"), text(known.prefix))
    table.add_row(text("answer", "bold"), text(f"{known.text_length} tokens at most"))
    for figure in known.figures:
        table.add_row(text(f"figure {figure.name}", "bold"), text(figure.rule))
    for variant, figures in known.published.items():
        said = ", ".join(f"{figure} {value:g}" for figure, value in figures.items())
        table.add_row(
            text(f"published {variant}", "bold"), text(f"{said} ({known.published_split})")
        )
    if known.reuses:
        table.add_row(text("model", "bold"), text(f"fine-tuned on {known.reuses}"))
    for note in known.differs:
        table.add_row(text("differs", "bold"), text(note))
    Console().print(table)


@benchmarks.command()
def submit(
    runs: Annotated[
        list[str],
        typer.Argument(help="An evaluation of a split that a server scores; of A-OKVQA both."),
    ],
    output: Annotated[str, typer.Option(help="The file to write, in the server's form.")],
) -> None:
    """Writes the answers of an evaluation as the benchmark's server takes them.

    Example: paliflow benchmarks submit evaluations/run_id=week-31-vqav2 --output vqav2.json
    """
    from paliflow.jobs.evaluate.submission import write_submission

    count = write_submission(runs, output)
    print(f"{count:,} answers: {printable(output)}")


@benchmarks.command()
def record(
    run: Annotated[str, typer.Argument(help="The evaluation whose answers were sent.")],
    figure: Annotated[str, typer.Argument(help="As `describe` calls it.")],
    score: Annotated[float, typer.Argument(help="In the unit of the published figures.")],
) -> None:
    """Keeps the score that a server gave, so that it stands in the scoreboard.

    Example: paliflow benchmarks record evaluations/run_id=week-31-vqav2 accuracy 83.19
    """
    from paliflow.jobs.evaluate.submission import record_score

    print(f"recorded: {printable(record_score(run, figure, score).location)}")


@benchmarks.command()
def check(
    folder: Annotated[str, typer.Argument(help="The folder of the data, local or gs://.")],
    name: Annotated[list[str] | None, typer.Argument(help="Of benchmarks; all if none.")] = None,
    split: Annotated[
        str | None, typer.Option(help="The one that is evaluated if not given.")
    ] = None,
) -> None:
    """Says of each benchmark which of its files lie in a folder, which lack, and how many rows.

    Each is looked for in the folder and in one of its name there. No image is opened, and no model
    is loaded. Exit code 1: something lacks of a benchmark that was named.
    """
    from paliflow.jobs.examples.benchmarks.checking import check as look

    ready = True
    table = Table("name", "split", box=None, header_style="bold")
    table.add_column("rows", justify="right")
    table.add_column("images", justify="right")
    table.add_column("lacks")
    unread: dict[str, list[str]] = {}
    for each in name or benchmark_names():
        if not name and not set((split or benchmark(each).split).split("+")) <= set(
            benchmark(each).splits
        ):
            continue  # another benchmark's split
        try:
            found = look(each, folder, split)
        except SpecError as error:
            ready = False
            table.add_row(text(each), text(split or ""), "", "", text(str(error), "red"))
            continue
        if not name and not found.files:
            for archive in found.broken:
                unread.setdefault(archive, []).append(each)
            continue
        lacks = [*found.missing, *found.broken]
        if found.missing_images:
            lacks.append(f"{found.missing_images:,} images, e.g. {found.example}")
        lacks += [f"{count:,} x {reason}" for reason, count in found.reasons.most_common(3)]
        ready = ready and found.ready
        table.add_row(
            text(each),
            text(found.split),
            f"{found.rows:,}",
            f"{found.images - found.missing_images:,}",
            text("; ".join(lacks) or "nothing", "red" if lacks else "green"),
        )
    for archive, names in unread.items():  # one in the common folder may be any benchmark's
        known = names[0] if len(names) == 1 else "others"
        table.add_row(text(known), "", "", "", text(archive, "red"))
    if not table.row_count:
        raise SpecError(f"{printable(folder)}: no file of any benchmark there")
    Console().print(table)
    if name and not ready:
        raise typer.Exit(1)
