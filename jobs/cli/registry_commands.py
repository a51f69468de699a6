"""`paliflow registry`: which weights a model's aliases stand for, and how to change it by hand."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from paliflow.configs.base import SpecError, printable
from paliflow.configs.run import REGISTERED
from paliflow.jobs.cli.printing import text

registry = typer.Typer(no_args_is_help=True)

Folder = Annotated[str, typer.Argument(help="The folder of registry.json, local or gs://.")]
Alias = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="E.g. digits@production.")]
Why = Annotated[str, typer.Option(help="For the history.")]


@registry.callback()
def _registry() -> None:
    """Shows and changes a registry of models: what registry://NAME@ALIAS stands for.

    `paliflow promote` moves an alias by a rule; these move it by hand.
    """


@registry.command()
def show(
    folder: Folder,
    name: Annotated[str | None, typer.Argument(help="Of a model; all if not given.")] = None,
) -> None:
    """Lists versions, the aliases that point to them, and every move with its reason."""
    from paliflow.jobs.registry.aliases import read

    models = read(folder).models
    if not (shown := {known: models[known] for known in models if name in (None, known)}):
        there = ", ".join(map(printable, models)) or "none"
        raise SpecError(f"{folder}: no model {name!r} there; there are {there}")
    console = Console()
    for known, model in shown.items():
        columns = "version", "aliases", "registered", "checkpoint"
        versions = Table(*columns, title=text(known), box=None)
        for version in reversed(model.versions):
            own = [alias for alias, number in model.aliases.items() if number == version.number]
            when = f"{version.registered.astimezone():%Y-%m-%d %H:%M}"
            versions.add_row(
                str(version.number), text(" ".join(own)), when, text(version.checkpoint)
            )
        history = Table("when", "alias", "from", "to", "why", box=None)
        for move in reversed(model.history):
            moved = str(move.origin or ""), f"{move.target}{' (back)' * move.back}"
            when = f"{move.when.astimezone():%Y-%m-%d %H:%M}"
            history.add_row(when, text(move.alias), *moved, text(move.why))
        console.print(versions, "", history, "")


@registry.command(name="set")
def set_(
    folder: Folder,
    alias: Alias,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|CHECKPOINT",
            help="A version's number; or weights, which become a version if they are none yet.",
        ),
    ],
    why: Why = "by hand",
) -> None:
    """Points an alias to a version or to new weights, whatever it pointed to.

    \b
    paliflow registry set gs://bucket/m digits@production 3
    paliflow registry set gs://bucket/m digits@staging gs://bucket/new.npz
    """
    name, own = _split(alias)
    from paliflow.jobs.registry.aliases import move, register
    from paliflow.jobs.registry.checkpoints import weights_of

    number = int(version) if version.isdecimal() else register(folder, name, weights_of(version))
    move(folder, name, own, number, why)
    print(f"{name}@{own} is version {number}")


@registry.command()
def rollback(folder: Folder, alias: Alias, why: Why = "rolled back by hand") -> None:
    """Points an alias to what it pointed to before; again, to what it pointed to before that.

    \b
    paliflow registry rollback gs://bucket/m digits@production --why "7 is read as 1"
    """
    name, own = _split(alias)
    from paliflow.jobs.registry.aliases import rollback

    move = rollback(folder, name, own, why)
    print(f"{name}@{own} is version {move.target} again; it was {move.origin}")


def _split(alias: str) -> tuple[str, str]:
    match = REGISTERED.fullmatch(f"registry://{alias}")
    if not match or match[2].isdecimal():
        raise SpecError(
            f"{alias!r}: give NAME@ALIAS, e.g. digits@production; no number is an alias"
        )
    return match[1], match[2]
