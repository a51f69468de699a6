"""The commands whose job is written down in a YAML file."""

from typing import Annotated

import typer
from rich.console import Console

from paliflow.configs import FineTuneSpec
from paliflow.configs.load import load_spec

SpecFile = Annotated[str, typer.Argument(help="The spec, in YAML.", metavar="SPEC.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="A field of the spec, e.g. lora.rank=8. Repeatable."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster's head:port, or `auto`; one here if not given."),
]


def finetune(
    spec: SpecFile,
    set_: Overrides = None,
    run_id: Annotated[str | None, typer.Option(help="Instead of the spec's.")] = None,
    ray_address: Address = None,
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
    """
    overrides = [*(set_ or []), *([f"run_id={run_id}"] if run_id else [])]
    parsed = load_spec(FineTuneSpec, spec, overrides)
    from paliflow.jobs import finetune as job  # here, because JAX and Ray would make --help wait

    summary = job.finetune(parsed, Console(), ray_address)
    for name, value in summary.figures.items():
        print(f"{name} {value:.4f}")
    print(
        f"{summary.steps} steps, loss {summary.loss:.4f}, {summary.errors} errors of "
        f"{summary.examples} examples, in {summary.seconds:.1f} s: {summary.model}"
    )
