"""`paliflow doctor`: what is wrong with a cluster, before a run finds out."""

from typing import Annotated

import typer
from rich.console import Console

from paliflow.configs.base import printable

_STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster's head:port, or `auto`; one here if not given."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="A folder or gs:// prefix: every node writes a small file there, reads and "
            "deletes it.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A published model, e.g. paligemma-3b-224: its speed with random weights on all "
            "chips of each host, beside what `paliflow plan` reckons. Takes minutes.",
        ),
    ] = None,
) -> None:
    """Looks at every node of a cluster: packages, storage, the chips that actors see, their speed.

    \b
    paliflow doctor --address head:6379 --storage gs://bucket/annotations

    Exit code 1 says that something is wrong; each line has the remedy.
    """
    from paliflow.configs.base import SpecError
    from paliflow.jobs.annotate.checkup import examine
    from paliflow.jobs.fleet.cluster import connected
    from paliflow.model import VARIANTS

    if model is not None and model not in VARIANTS:
        raise SpecError(f"--model {model!r}: no such model; there are {', '.join(VARIANTS)}")
    console = Console()
    with connected(address):
        findings = examine(storage, model)
    for grade, text in findings:
        console.print(f"{grade:8}", style=_STYLES[grade], end="")
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
    if any(grade == "fault" for grade, _ in findings):
        raise typer.Exit(1)
