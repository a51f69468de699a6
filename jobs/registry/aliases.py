"""The registry of models: which weights a name and an alias stand for, and since when and why."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ConfigDict, Field

from paliflow import storage
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.run import REGISTERED
from paliflow.configs.summary import Figures

_ATTEMPTS = 100
"""Lost races after which something else must be wrong."""


class Weights(NamedTuple):
    """What becomes a version."""

    checkpoint: str
    """An absolute path or URI."""
    sha256: str
    """As `checkpoint_sha256` digests them, with their tokenizer."""


class Version(Spec):
    """Weights under a number that is theirs for ever."""

    model_config = ConfigDict(allow_inf_nan=False)

    number: int
    """From 1."""
    checkpoint: str
    sha256: str
    """Of older versions of Paliflow that of an .npz alone, without its tokenizer."""
    registered: datetime
    source: str | None = None
    """The evaluation that they were registered for, by its location."""
    figures: Figures = Field(default_factory=dict)
    """That evaluation's."""
    calibration: str | None = None
    """The `calibration.json` of its answers' confidences."""


class Move(Spec):
    """An alias begins to point to a version."""

    alias: str
    when: datetime
    origin: int | None
    """What it pointed to before; None if to nothing."""
    target: int
    why: str
    back: bool = False
    """It was a rollback."""


class Model(Spec):
    """The versions of one name."""

    versions: tuple[Version, ...] = ()
    aliases: dict[str, int] = Field(default_factory=dict)
    """The number of the version that each points to."""
    history: tuple[Move, ...] = ()
    """Every move, the oldest first."""

    def version(self, alias: str) -> Version | None:
        """What an alias, or a version's number, stands for; None if nothing."""
        number = int(alias) if alias.isdecimal() else self.aliases.get(alias)
        return next((known for known in self.versions if known.number == number), None)


class Registry(Spec):
    """`registry.json`. Changed by compare-and-set alone, so that no change is lost."""

    models: dict[str, Model] = Field(default_factory=dict)


Change = Callable[[Model], Model]
"""Made anew from what is there whenever a race was lost; raises what forbids it."""


def read(registry: str) -> Registry:
    """What a registry holds; an empty one is nowhere.

    Args:
        registry: its folder, local or `gs://`.

    Raises:
        SpecError: `registry.json` is not one, or a newer Paliflow's.
    """
    return _read(_uri(registry))


def find(registry: str, checkpoint: str) -> Version:
    """The version that `registry://name@alias` stands for now.

    Raises:
        SpecError: there is none; the message says what there is.
    """
    match = REGISTERED.fullmatch(checkpoint)
    assert match, checkpoint  # the specs check
    name, alias = match.groups()
    models = read(registry).models
    if not (model := models.get(name)):
        raise SpecError(
            f"checkpoint={checkpoint!r}: {_uri(registry)} has no model {name!r}; it has "
            f"{', '.join(sorted(models)) or 'none'}"
        )
    if version := model.version(alias):
        return version
    aliases = ", ".join(f"{alias} (version {n})" for alias, n in sorted(model.aliases.items()))
    raise SpecError(
        f"checkpoint={checkpoint!r}: {name} has no alias or version {alias!r}; it has versions 1 "
        f"to {len(model.versions)} and the aliases {aliases or 'none'}"
    )


def update(registry: str, name: str, change: Change) -> Model:
    """Changes one model by compare-and-set; of two at once one reads again what the other wrote.

    Args:
        registry: the folder.
        name: of the model; one that is not there begins empty.
        change: of the model. If it changes nothing, nothing is written.

    Returns:
        The model as it is now.

    Raises:
        SpecError: what would be written could not be read again.
    """
    uri = _uri(registry)
    own: tuple[Move, ...] = ()
    for _ in range(_ATTEMPTS):
        seen = storage.version(uri)  # first, so that what is read is this or newer
        now = _read(uri)
        model = now.models.get(name, Model())
        if own and own[0] in model.history:
            return model  # done before, and not told; see `storage.replace`
        changed = change(model)
        if changed == model:
            return model
        own = changed.history[len(model.history) :]
        after = Registry(models={**now.models, name: changed})
        try:
            content = after.model_dump_json(indent=2)
            Registry.parse(content)
        except ValueError as error:
            raise SpecError(f"{uri} is left as it is: {error}") from error
        if storage.replace(uri, io.BytesIO(content.encode()), seen):
            return changed
    raise RuntimeError(f"{uri}: gave up after {_ATTEMPTS} conflicting updates")


def with_version(
    model: Model,
    weights: Weights,
    source: str | None = None,
    figures: dict[str, float] | None = None,
) -> tuple[Model, int]:
    """The model with these weights among its versions, and their number; once, however often.

    Raises:
        SpecError: a figure is no finite number.
    """
    for known in model.versions:
        if (known.checkpoint, known.sha256) == weights:
            return model, known.number
    version = Version.parse(
        {
            **weights._asdict(),
            "number": len(model.versions) + 1,
            "registered": datetime.now(UTC),
            "source": source,
            "figures": figures or {},
        }
    )
    return model.model_copy(update={"versions": (*model.versions, version)}), version.number


def with_calibration(model: Model, number: int, calibration: str) -> Model:
    """The model with a version's calibration, in place of an earlier one."""
    versions = tuple(
        known.model_copy(update={"calibration": calibration}) if known.number == number else known
        for known in model.versions
    )
    return model.model_copy(update={"versions": versions})


def with_alias(model: Model, alias: str, target: int, why: str, *, back: bool = False) -> Model:
    """The model with an alias pointing to one of its versions, and the move in its history.

    Raises:
        SpecError: there is no such version.
    """
    if not model.version(str(target)):
        raise SpecError(f"no version {target}; there are 1 to {len(model.versions)}")
    origin = model.aliases.get(alias)
    if origin == target:
        return model
    move = Move(
        alias=alias, when=datetime.now(UTC), origin=origin, target=target, why=why, back=back
    )
    aliases = {**model.aliases, alias: target}
    return model.model_copy(update={"aliases": aliases, "history": (*model.history, move)})


def register(registry: str, name: str, weights: Weights) -> int:
    """Adds weights to a model's versions, and returns their number; once, however often."""
    model = update(registry, name, lambda model: with_version(model, weights)[0])
    return with_version(model, weights)[1]


def move(registry: str, name: str, alias: str, target: int, why: str) -> Model:
    """Points an alias to a version, whatever it pointed to.

    Raises:
        SpecError: there is no such version.
    """
    return update(registry, name, lambda model: with_alias(model, alias, target, why))


def rollback(registry: str, name: str, alias: str, why: str) -> Move:
    """Points an alias to what it pointed to before; again, to what it pointed to before that.

    Raises:
        SpecError: there was nothing before.
    """

    def change(model: Model) -> Model:
        trail: list[int] = []
        for past in model.history:
            if past.alias == alias:
                trail.pop() if past.back else trail.append(past.target)
        if len(trail) < 2:
            raise SpecError(f"{alias!r} of {name!r} has pointed to nothing before: no way back")
        return with_alias(model, alias, trail[-2], why, back=True)

    return update(registry, name, change).history[-1]


def _uri(registry: str) -> str:
    return f"{storage.absolute(registry)}/registry.json"


def _read(uri: str) -> Registry:
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError:
        return Registry()
    try:
        return Registry.parse(content.decode())
    except (SpecError, UnicodeDecodeError) as error:
        raise SpecError(f"{uri} is no registry, or of a newer Paliflow: {error}") from None
