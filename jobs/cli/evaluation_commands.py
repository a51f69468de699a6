"""`paliflow evaluate`, `scoreboard`, `calibrate`: answers scored, compared, made frequencies."""

import io
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from paliflow.configs import CalibrateSpec
from paliflow.configs.base import SpecError, printable
from paliflow.configs.load import load_spec
from paliflow.jobs.cli.options import (
    Address,
    OptionalSpec,
    Overrides,
    RunId,
    SpecFile,
    evaluate_specs,
)
from paliflow.jobs.cli.printing import text


def evaluate(
    spec: OptionalSpec = None,
    set_: Overrides = None,
    run_id: RunId = None,
    ray_address: Address = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A benchmark of `paliflow benchmarks list`. Repeat for several, each of which "
            "becomes a run of its own, <run_id>-<name>.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The folder of the benchmarks' official files.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the benchmark; the published one if not given.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="So many rows of each, evenly spread; all if not given.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Pixels of the square input, if not the checkpoint's.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="The field `checkpoint`.")] = None,
    output: Annotated[str | None, typer.Option(help="The field `output`.")] = None,
    rescore: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Score the answers of this finished evaluation again, without a model.",
        ),
    ] = None,
) -> None:
    """Asks a checkpoint held-out examples, and scores its answers.

    Every answer, beside what is right, is kept with its scores in predictions.parquet.

    The same command again goes on with a run that was interrupted.

    \b
    # Lines of held-out.jsonl: {"image": "a.png", "prefix": "ocr", "suffix": "81"}
    output: evaluations      # the run is written to evaluations/run_id=week-31
    run_id: week-31
    sets:
      held_out: {path: held-out.jsonl}       # its prefixes say how it is scored
      old_domain: {path: old.jsonl, max_examples: 500}
    checkpoint: registry://digits@production
    registry: gs://bucket/models

    Or on public benchmarks: paliflow evaluate --benchmark vqav2 --data /data --output evaluations
    """
    if rescore is not None:
        from paliflow.jobs.evaluate.rescoring import rescore as score_again

        if spec is not None or benchmark:
            raise SpecError("--rescore takes the sets of its run: leave SPEC.yaml and others out")
        score_again(rescore, Console())
        return
    own = {"checkpoint": checkpoint, "output": output, "image_size": resolution}
    fields = {name: value for name, value in own.items() if value is not None}
    overrides = [*(set_ or []), *([f"run_id={run_id}"] if run_id else [])]
    specs = evaluate_specs(spec, fields, overrides, benchmark, data, split, limit)
    from paliflow.jobs.evaluate import job

    for each in specs:
        job.evaluate(each, Console(), ray_address)


def calibrate(spec: SpecFile, set_: Overrides = None) -> None:
    """Fits confidences to the answers of an evaluation: how often such answers are right.

    Writes calibration.json, and calibration.html with reliability diagrams and the thresholds that
    reach a precision. Annotation by the registry's version then fills `confidence`. Safe to repeat.

    \b
    evaluation: evaluations/run_id=week-31
    registry: gs://bucket/models        # the version of its checkpoint gets the calibration
    name: digits

    Without a registry, an annotation names the file: paliflow annotate --calibration FILE
    """
    parsed = load_spec(CalibrateSpec, spec, set_ or ())
    from paliflow.jobs.evaluate import calibrating as job

    job.calibrate(parsed, Console())


def scoreboard(
    runs: Annotated[
        list[str], typer.Argument(help="Folders of evaluations, or outputs all of whose count.")
    ],
    family: Annotated[
        str, typer.Option(metavar="pt|mix", help="Of the published models to compare with.")
    ] = "pt",
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the table as Markdown.")
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the table as one page of HTML.")
    ] = None,
) -> None:
    """Shows the benchmarks of finished evaluations beside the published figures.

    Example: paliflow scoreboard evaluations --html scoreboard.html

    Each checkpoint is a column. Green: the published figure lies in the confidence interval.
    Grey: split, rows or coverage differ, and why.
    """
    from paliflow import storage
    from paliflow.jobs.evaluate import scoreboard as boards

    if family not in ("pt", "mix"):
        raise SpecError(f"--family {family!r}: give pt or mix")
    board = boards.read_scoreboard(runs, family)
    table = Table("benchmark", "figure", "published", *map(printable, board.checkpoints))
    styles = {"equal": "green", "different": "", "incomparable": "bright_black"}
    for line in board.lines:
        published = ", ".join(f"{variant} {value:g}" for variant, value in line.published.items())
        cells = [text(boards.cell(own), styles[own.state] if own else "") for own in line.entries]
        table.add_row(line.benchmark, line.figure, published, *cells)
    Console().print(table)
    for path, content in ((markdown, boards.as_markdown), (html, boards.as_html)):
        if path:
            storage.overwrite(storage.absolute(path), io.BytesIO(content(board).encode()))
