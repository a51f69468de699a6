"""The commands that take a spec: from a YAML file, with `--set` for any of its fields."""

from typing import Annotated, Any

import typer
from rich.console import Console

from paliflow.configs import AnnotateSpec, ExtractSpec, FilterSpec, FineTuneSpec, PromoteSpec
from paliflow.configs.base import SpecError, printable
from paliflow.configs.chips import catalogue
from paliflow.configs.load import load_spec, make_spec, name_and_value, read_fields
from paliflow.jobs.cli.options import (
    SPEC_SUFFIXES,
    Address,
    OptionalSpec,
    Overrides,
    RunId,
    SpecFile,
    annotate_spec,
    spec_with_options,
    takes_fields,
    takes_spec,
)
from paliflow.jobs.cli.printing import print_rows

Source = Annotated[
    str,
    typer.Argument(
        help="The spec, in YAML (.yaml or .yml); or else the field `input`: "
        f"{AnnotateSpec.model_fields['input'].description}",
        metavar="SPEC.yaml|INPUT",
    ),
]


@takes_fields
def annotate(
    source: Source, set_: Overrides = None, ray_address: Address = None, **fields: Any
) -> None:
    """Asks every prompt about every image and writes the answers to Parquet.

    Example: paliflow annotate photos --output annotations --prompt "caption en" --prompt ocr

    Or, with the same fields in a file: paliflow annotate spec.yaml --set thumbnail=256

    \b
    input: gs://bucket/photos/
    output: annotations      # the run is written to annotations/run_id=week-31
    run_id: week-31          # the time, if not given
    prompts:
      - caption en
      - detect cat ; dog

    The same command with the same run_id resumes a run that was interrupted. `paliflow plan` says
    of the same file or options what the run will take.
    """
    spec = annotate_spec(source, fields, set_)
    from paliflow.jobs.annotate import job  # here, because JAX and Ray would make --help wait

    console = Console()
    print_rows(console, job.annotate(spec, console, ray_address))


def finetune(
    spec: OptionalSpec = None,
    set_: Overrides = None,
    run_id: RunId = None,
    ray_address: Address = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="NAME", help="The field `benchmark`.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The field `data`.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="The field `checkpoint`.")] = None,
    resolution: Annotated[int | None, typer.Option(help="The field `image_size`.")] = None,
    output: Annotated[str | None, typer.Option(help="The field `output`.")] = None,
) -> None:
    """Trains a checkpoint on labelled images and writes another, with a card that tells how.

    The same command again goes on with a run that was interrupted.

    \b
    # Lines of labels.jsonl: {"image": "a.png", "prefix": "ocr", "suffix": "81"}
    output: models           # the run is written to models/run_id=week-31
    run_id: week-31
    train:
      - path: labels.jsonl
    validation:
      held_out: {path: held-out.jsonl}
    checkpoint: gs://bucket/paligemma-3b-pt-224.npz
    duration: {epochs: 5}    # or {steps: 1000}
    learning_rate: 1e-5
    lora: {rank: 16}         # leave it out to train all weights

    Or by a published recipe: paliflow finetune --benchmark cococap --data /data --output models
    """
    own: dict[str, Any] = {"benchmark": benchmark, "data": data, "checkpoint": checkpoint}
    own |= {"image_size": resolution, "output": output}
    named = [f"run_id={run_id}"] if run_id else []
    parsed = spec_with_options(FineTuneSpec, spec, own, [*(set_ or ()), *named])
    from paliflow.jobs.finetune import job

    summary = job.finetune(parsed, Console(), ray_address)
    for name, value in summary.figures.items():
        print(f"{printable(name)} {value:.4f}")
    print(
        f"{summary.steps} steps, loss {summary.loss:.4f}, {summary.errors} errors of "
        f"{summary.examples} examples, in {summary.seconds:.1f} s: {printable(summary.model)}"
    )


@takes_spec(ExtractSpec)
def extract(spec: ExtractSpec, ray_address: str | None) -> None:
    """Writes sampled frames of videos as images, with a manifest in Parquet.

    The same command again goes on with a run that was interrupted.

    \b
    input: gs://bucket/videos/
    output: frames           # the run is written to frames/run_id=week-31
    run_id: week-31
    video: {every_s: 2}      # or fps, every_frames, count, keyframes, scenes
    longest_side: 640        # leave it out to keep the videos' size
    """
    from paliflow.jobs.extract import job

    summary = job.extract(spec, Console(), ray_address)
    print(
        f"{summary.frames} frames, {summary.errors} errors, from {summary.inputs} videos or pieces "
        f"of them in {summary.seconds:.1f} s: {printable(summary.location)}"
    )


def filter(
    source: Source,
    output: Annotated[
        str | None, typer.Option(help="Folder or `gs://` prefix, instead of the spec's.")
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME",
            help="A filter with its defaults: quality, nsfw, personal_data, toxicity or "
            "duplicates. Repeatable.",
        ),
    ] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(help="A manifest's column that filters of texts look at. Repeatable."),
    ] = None,
    exclude_near: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A filter run; images nearly like one of its are removed. Repeatable.",
        ),
    ] = None,
    set_: Overrides = None,
    run_id: RunId = None,
    ray_address: Address = None,
) -> None:
    """Filters images, and the texts beside them, and writes a manifest of what remains.

    Example: paliflow filter photos --output filtered --filter quality --filter duplicates

    Or, with the same fields in a file: paliflow filter spec.yaml

    \b
    input: gs://bucket/photos/labels.jsonl
    output: filtered         # the run is written to filtered/run_id=week-31
    run_id: week-31
    filters:
      - quality              # with its defaults, or with settings:
      - {filter: personal_data, regions: [US, GB], action: redact}
      - {filter: duplicates, action: drop}
    text_columns: [suffix]
    exclude_near: [gs://bucket/filtered/run_id=held-out]

    `paliflow annotate` and training take kept.parquet, which the last line names. What was removed,
    and why, is in _safety.parquet beside it. The same command again goes on with a run that was
    interrupted.
    """
    given = {
        "output": output,
        "filters": filter_ and tuple(filter_),
        "text_columns": text_column and tuple(text_column),
        "exclude_near": exclude_near and tuple(exclude_near),
        "run_id": run_id,
    }
    fields = {name: value for name, value in given.items() if value}
    if source.endswith(SPEC_SUFFIXES):
        try:
            parsed = make_spec(FilterSpec, read_fields(source) | fields, set_ or ())
        except SpecError as error:
            raise SpecError(f"{source}: {error}") from None
    else:
        parsed = make_spec(FilterSpec, {"input": source} | fields, set_ or ())
    from paliflow.jobs.safety import job

    summary = job.filter(parsed, Console(), ray_address)
    for flagged, count in summary.flagged.items():
        print(f"{count:>8,} {printable(flagged)}")
    print(summary.said())


def promote(spec: SpecFile, set_: Overrides = None) -> None:
    """Compares two evaluations of the same examples and moves an alias, or says why not.

    The exit code is 0 whether or not the alias moves. Safe to repeat.

    \b
    registry: gs://bucket/models
    name: digits
    candidate: evaluations/run_id=week-31
    incumbent: evaluations/run_id=week-31-production
    metric: held_out/exact_match
    min_gain: 0.01           # better by at least this, with a confidence of
    confidence: 0.95
    guards: {old_domain/exact_match: 0.02}        # and this is worse by no more

    The first checkpoint has nothing to compare with: give registry, name and checkpoint alone.
    """
    parsed = load_spec(PromoteSpec, spec, set_ or ())
    from paliflow.jobs.evaluate import promotion as job

    job.promote(parsed, Console())


@takes_fields
def plan(
    source: Source,
    set_: Overrides = None,
    images: Annotated[
        int | None,
        typer.Option(help="How many images, frames or clips; the input's, if not given."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A published model, e.g. paligemma-3b-224, instead of reading the checkpoint.",
        ),
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(help="Of an answer; max_new_tokens if not given.")
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(help="Of an image, which says how many cores reading takes; 2 if not given."),
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="E.g. v5e. Repeat for several; all if not given."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHIP=USD", help="Of a chip-hour, instead of the list price. Repeatable."
        ),
    ] = None,
    efficiency: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=FRACTION",
            help="Of its peak that a chip reaches: compute=0.5 or bandwidth=0.6. Repeatable.",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="What it takes at the speed of a finished run: its folder, or that of the output, "
            "for the newest.",
        ),
    ] = None,
    compile_: Annotated[
        str | None,
        typer.Option(
            "--compile",
            metavar="SLICE",
            help="Have the TPU compiler say whether it fits, e.g. on v5e:2x4. Takes minutes.",
        ),
    ] = None,
    **fields: Any,
) -> None:
    """Reckons what an annotation run takes of each kind of chip: memory, cores, hours, cost.

    Nothing is run, and no chip is needed. It takes what `paliflow annotate` takes.

    \b
    input: gs://bucket/photos/       # is listed, unless --images says how many
    output: annotations
    run_id: week-31
    prompts:
      - caption en
    checkpoint: gs://bucket/paligemma-3b-mix-224.npz
    dtype: bfloat16                  # or int8, on a GPU float8_e4m3fn
    max_new_tokens: 32

    Example: paliflow plan spec.yaml --images 1000000 --model paligemma-3b-224 --price v5e=0.6

    With --compile, exit code 1 says that a program does not fit.
    """
    parsed = annotate_spec(source, fields, set_)
    known = catalogue().priced(_numbers("--price", price))
    known = known.reaching(_numbers("--efficiency", efficiency))
    chips = known.only(chip or (), parsed.dtype)
    slice_chip = known.named(compile_.partition(":")[0]) if compile_ else None
    from paliflow.jobs.annotate import forecast

    console = Console()
    load = forecast.load(parsed, images, model, new_tokens, megapixels)
    console.print(forecast.shown(load, forecast.forecast(load, chips)))
    if like:
        from paliflow.jobs.annotate import likeness
        from paliflow.jobs.runs.outputs import find_run

        for line in likeness.like(load, find_run(like)):
            console.print(printable(line), markup=False, highlight=False)
    if compile_ and slice_chip:
        table, fits = forecast.compiled(load, slice_chip, compile_)
        console.print("", table)
        if not fits:
            raise typer.Exit(1)


def _numbers(option: str, pairs: list[str] | None) -> dict[str, float]:
    """`v5e=0.6` by name."""
    numbers = {}
    for pair in pairs or ():
        name, value = name_and_value(pair, option)
        try:
            numbers[name] = float(value)
        except ValueError:
            raise SpecError(f"{option} {pair!r}: {value!r} is no number") from None
    return numbers
