"""What an annotation run will take of each kind of chip, before one is rented."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import ceil, floor, inf, log10, prod
from pathlib import Path
from typing import TYPE_CHECKING

from jax.errors import JaxRuntimeError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError, printable
from paliflow.configs.chips import Chip, Efficiency, catalogue
from paliflow.configs.reading import reading_costs
from paliflow.jobs.annotate.prompts import padded_length
from paliflow.jobs.registry.locations import resolve, tokenizer_of
from paliflow.jobs.runs.paths import with_absolute_paths
from paliflow.jobs.sources.items import items
from paliflow.model import VARIANTS, PaliGemmaConfig, Tokenizer, local_copy
from paliflow.model.batch_size import largest_of, shape_of
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.cost import Memory, memory, work
from paliflow.model.sharding import device_rows
from paliflow.model.weights import expected_shapes, infer_config
from paliflow.model.xla import backend_of

if TYPE_CHECKING:
    from paliflow.model.aot import Program

_GIB = 2**30
_SPREADS = (1, 2, 4, 8)
"""Chips that share a model; they are those of one host, 8 at most."""
_ROWS = 8
"""Of a batch, below which a chip mostly waits for weights: then more chips share the model."""
MEGAPIXELS = 2.0
"""Of an image, where nobody says."""
_SAMPLE = 1000
"""Inputs whose prompts are tokenized to see how long they get."""


@dataclass(frozen=True)
class Load:
    """What a run asks of whatever chips it gets."""

    spec: AnnotateSpec
    model: str
    config: PaliGemmaConfig
    inputs: int
    """Images, frames or clips."""
    rows: int
    """Inputs times the prompts of each."""
    prompt_tokens: int
    """What prompts are padded to."""
    new_tokens: int
    """What an answer is estimated to take."""
    sources: tuple[str, ...]
    """Where these figures come from."""
    megapixels: float = MEGAPIXELS
    """Of an image, if the inputs are images."""

    @property
    def read_ms(self) -> float | None:
        """Milliseconds of a host's core to read an image as a JPEG; None of films, whose frames are
        decoded whether or not the model sees them."""
        if self.spec.video:
            return None
        side = self.config.image_size
        return reading_costs().milliseconds(self.spec.decode, side, self.megapixels)

    @property
    def unit(self) -> str:
        """What the inputs are."""
        video = self.spec.video
        return "images" if not video else "clips" if video.clip else "frames"


@dataclass(frozen=True)
class Outlook:
    """A run on one kind of chip."""

    chip: Chip
    chips: int
    """Of an actor."""
    model_parallel: int
    """Of them, those that share one copy of the weights."""
    largest: int
    """The largest batch of an actor that fits; 0 if the model does not fit on a host's chips."""
    batch: int
    """The run's: the largest, or fewer if the spec says so."""
    memory: Memory
    """Of each chip, at that batch, or for one row of each copy if none fits."""
    images_per_second: float
    """Of all actors; 0 if none fits."""
    hours: float
    cost: float
    """USD, for all actors' chips."""
    cores: float | None = None
    """Of a host, that one actor needs to read as fast as its chips ask; None if nobody knows."""


def load(
    spec: AnnotateSpec,
    inputs: int | None = None,
    model: str | None = None,
    new_tokens: int | None = None,
    megapixels: float | None = None,
) -> Load:
    """Counts what there is to do; of a checkpoint, only the shapes are read.

    Args:
        spec: of the run; relative paths in it are relative to this process's folder.
        inputs: how many images, frames or clips there are; counted as the run would if None.
        model: a key of `VARIANTS` instead of the spec's checkpoint, which is then not looked at.
        new_tokens: of an answer; as many as the spec allows if None.
        megapixels: of an image; `MEGAPIXELS` if None.

    Raises:
        SpecError: there is no such model, checkpoint or input, or it cannot be counted.
        OSError: the storage fails in a way that may pass.
    """
    spec = with_absolute_paths(spec)
    _check_given(spec, inputs, new_tokens, megapixels)
    name, config, tokenizer = _model(spec, model)
    inputs, rows, prompts = _counted(spec) if inputs is None else _as_told(spec, inputs)
    prompt_tokens, why = _prompt_tokens(prompts, tokenizer, spec.max_prompt_tokens)
    answers = "--new-tokens" if new_tokens else "max_new_tokens: at most"
    new_tokens = new_tokens or spec.max_new_tokens
    sources = [
        f"prompts padded to {prompt_tokens} tokens ({why})",
        f"answers of {new_tokens} tokens ({answers})",
    ]
    if spec.only_new:
        sources.append("only_new as if no earlier run had answered any")
    return Load(
        *(spec, name, config, inputs, rows, prompt_tokens, new_tokens, tuple(sources)),
        megapixels or MEGAPIXELS,
    )


def _check_given(
    spec: AnnotateSpec, inputs: int | None, new_tokens: int | None, megapixels: float | None
) -> None:
    """
    Raises:
        SpecError: an option has a value that cannot be, or one is needed.
    """
    if new_tokens is not None and not 0 < new_tokens <= spec.max_new_tokens:
        raise SpecError(
            f"--new-tokens {new_tokens}: give 1 to max_new_tokens={spec.max_new_tokens}"
        )
    if inputs is not None and inputs < 1:
        raise SpecError(f"--images {inputs}: give at least 1")
    if megapixels is not None and not 0 < megapixels <= spec.max_pixels / 1e6:
        raise SpecError(
            f"--megapixels {megapixels:g}: give more than 0, and no more than "
            f"max_pixels={spec.max_pixels}"
        )
    if spec.video and inputs is None:
        raise SpecError(
            f"video={spec.video.model_dump(exclude_defaults=True)}: how many frames or clips that "
            "makes is known when the videos are read; say how many with --images"
        )


def _as_told(spec: AnnotateSpec, inputs: int) -> tuple[int, int, list[str] | None]:
    """As `_counted`, of so many inputs; no prompts where a manifest says what is asked."""
    rows = inputs * (len(spec.prompts) + bool(spec.prompt_column))
    by_row = spec.prompt_column or any("{" in prompt for prompt in spec.texts)
    return inputs, rows, None if by_row else list(spec.texts)


def _counted(spec: AnnotateSpec) -> tuple[int, int, list[str] | None]:
    """How many inputs and rows a run has, and the prompts of the first inputs."""
    found = items(spec)
    sample = list(islice(found, _SAMPLE))
    prompts = [prompt for item in sample for prompt in item.prompts or spec.texts]
    inputs = rows = 0
    for item in chain(sample, found):
        inputs += 1
        rows += len(spec.prompts if item.prompts is None else item.prompts)
    return inputs, rows, prompts


def forecast(load: Load, chips: Iterable[Chip]) -> list[Outlook]:
    """The run on each kind of chip, the cheapest first; those that cannot hold the model last."""
    return sorted((outlook(load, chip) for chip in chips), key=lambda each: each.cost)


def outlook(load: Load, chip: Chip, chips: int | None = None) -> Outlook:
    """The run on one kind of chip, its model spread over as many as the spec says.

    If it does not say, over as few as hold it with a batch worth the name, or over a host's.

    Args:
        load: the run.
        chip: the kind.
        chips: of an actor; if None, those that the spec gives it, or as many as a model takes.
    """
    if "model_parallel" in load.spec.model_fields_set:
        return _outlook(load, chip, chips, load.spec.model_parallel)
    for over in _SPREADS:
        each = _outlook(load, chip, chips, over)
        if each.largest >= _ROWS * each.chips // over:
            break
    return each


def _outlook(load: Load, chip: Chip, chips: int | None, over: int) -> Outlook:
    spec = load.spec
    each_host = sum(spec.accelerators_per_actor.get(kind, 0) for kind in ("TPU", "GPU"))
    given = chips or ceil(each_host) * (spec.actor_slice.hosts if spec.actor_slice else 1)
    copies = ceil(max(given, 1) / over)
    shape = shape_of(spec, load.prompt_tokens)
    shape = replace(
        shape,
        model_parallel=over,
        data_parallel=copies,
        backend=backend_of(chip.name, chip.hbm * _GIB, over * copies),
    )
    largest = largest_of(load.config, spec, shape, chip.hbm * _GIB)
    batch = min(spec.batch_size or largest, largest)
    need = memory(load.config, shape, batch or copies)
    if not largest:
        return Outlook(chip, over * copies, over, 0, 0, need, 0.0, inf, inf)
    rows = device_rows(batch, copies)
    seconds = work(load.config, shape).seconds(chip, rows, load.rows / load.inputs, load.new_tokens)
    actors = spec.actors or 1
    speed = actors * batch / seconds
    hours = load.inputs / speed / 3600
    cost = hours * actors * over * copies * chip.price
    cores = None if load.read_ms is None else speed / actors * load.read_ms / 1000
    return Outlook(chip, over * copies, over, largest, batch, need, speed, hours, cost, cores)


def shown(load: Load, outlooks: Sequence[Outlook]) -> RenderableType:
    """A table with a line for each kind of chip, and below it what was assumed."""
    actors = load.spec.actors or 1
    parameters = sum(prod(shape) for shape in expected_shapes(load.config).values())
    head = (
        f"{load.inputs:,} {load.unit}, {load.rows:,} answers, by {load.model} in "
        f"{load.spec.dtype} ({parameters:,} parameters), on {actors} actor{'s' * (actors > 1)}:"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("\nchip")
    columns = ("chips\nan actor", "chips\na model", "GiB of HBM\na chip", "\nbatch")
    rates = f"\n{load.unit}/s", "cores\nan actor"
    for column in (*columns, *rates, "\nhours", "USD/h\na chip", "\nUSD"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in outlooks:
        hbm = f"{each.memory.total / _GIB:.1f} of {each.chip.hbm:.4g}"
        price = f"{each.chip.price:.2f}"
        cells = ["none fits", "", "", "", price, ""]
        if each.largest:
            cores = "" if each.cores is None else f"{each.cores:.1f}"
            cells = [f"{each.batch}", _figure(each.images_per_second), cores]
            cells += [_figure(each.hours), price, _figure(each.cost)]
        table.add_row(each.chip.name, f"{each.chips}", f"{each.model_parallel}", hbm, *cells)
    said = map(Text, map(printable, (head, *_remarks(load, outlooks))))
    return Group(next(said), "", table, "", *said)


def compiled(load: Load, chip: Chip, topology: str) -> tuple[RenderableType, bool]:
    """What the TPU compiler says that the run's programs take of each chip of a slice.

    Args:
        load: the run; a slice is an actor.
        chip: what the slice is made of.
        topology: e.g. `v5e:2x4`.

    Returns:
        A table, and whether all programs fit.

    Raises:
        SpecError: there is no such slice, or no compiler.
    """
    from paliflow.model.aot import compile_inference  # here, because of what it asks of libtpu

    each = outlook(load, chip, _chips_of(topology))
    batch = each.batch or each.chips // each.model_parallel
    title = (
        f"{topology}: a batch of {batch} on {each.chips} chips, a model on {each.model_parallel}"
    )
    try:
        shape = shape_of(load.spec, load.prompt_tokens)
        shape = replace(shape, model_parallel=each.model_parallel)
        programs = compile_inference(load.config, shape, topology, batch)
    except ValueError as error:
        raise SpecError(f"--compile {topology!r}: {error}") from error
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Text(f"{title}: {str(error).splitlines()[0]}", "red"), False
    fits = all(program.memory <= chip.hbm * _GIB for program in programs)
    return _programs_table(title, programs, chip.hbm), fits


def _chips_of(topology: str) -> int:
    """
    Raises:
        SpecError: it is no chip and the sides of a slice.
    """
    sides = topology.partition(":")[2].split("x")
    if not all(side.isdecimal() and int(side) for side in sides):
        raise SpecError(f"--compile {topology!r}: give a chip and the sides of a slice, as v5e:2x4")
    return prod(map(int, sides))


def _programs_table(title: str, programs: Iterable["Program"], hbm: float) -> Table:
    """What each program takes of a chip's memory, which has so many GiB."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("program")
    for column in ("arguments", "temporaries", "outputs", f"of {hbm:g} GiB", "compiled"):
        table.add_column(column, justify="right")
    for program in programs:
        parts = program.arguments, program.temporaries, program.outputs
        share = program.memory / (hbm * _GIB)
        sizes = [f"{part / _GIB:.2f} GiB" for part in parts]
        table.add_row(program.name, *sizes, f"{share:.0%}", f"{program.seconds:.0f} s")
    return table


def _model(spec: AnnotateSpec, model: str | None) -> tuple[str, PaliGemmaConfig, Tokenizer | None]:
    """Its name, its configuration, and its tokenizer if that is on this machine."""
    if model is not None:
        if model not in VARIANTS:
            raise SpecError(f"--model {model!r}: no such model; there are {', '.join(VARIANTS)}")
        if not (spec.tokenizer or spec.checkpoint):
            return model, VARIANTS[model], None  # the bundled tokenizer is another model's
        return model, VARIANTS[model], _tokenizer(spec.tokenizer, spec.checkpoint or "")
    checkpoint = resolve(spec).checkpoint
    if checkpoint.startswith("gs://"):
        raise SpecError(
            f"checkpoint={checkpoint!r}: all of it would be downloaded for its shapes; say what it "
            f"is with --model, one of {', '.join(VARIANTS)}"
        )
    try:
        with local_copy(checkpoint) as path:
            leaves, described = read_checkpoint(path)
        if spec.image_size:
            described |= {"image_size": spec.image_size}
        config = infer_config({name: leaf.shape for name, leaf in leaves.items()}, **described)
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise SpecError(f"checkpoint={checkpoint!r}: {error}") from error
    known = (name for name, variant in VARIANTS.items() if variant == config)
    return next(known, Path(checkpoint).name), config, _tokenizer(spec.tokenizer, checkpoint)


def _tokenizer(tokenizer: str | None, checkpoint: str) -> Tokenizer | None:
    path = tokenizer_of(tokenizer, checkpoint)
    try:
        return Tokenizer.from_file(path) if Path(path).is_file() else None
    except Exception as error:  # protobuf's and sentencepiece's have nothing in common
        raise SpecError(f"tokenizer={path!r}: {error}") from error


def _prompt_tokens(
    prompts: list[str] | None, tokenizer: Tokenizer | None, limit: int
) -> tuple[int, str]:
    """What prompts are padded to, and how it is known."""

    def tokens(prompt: str) -> int:
        try:
            if tokenizer:
                return len(tokenizer.encode_prompt(prompt, limit))
            return 2 + len(prompt.encode())  # a token is a byte or more; a beginning and an end
        except ValueError:  # not asked, but an error
            return limit

    longest, why = limit, "max_prompt_tokens: at most"
    if prompts:
        longest = min(limit, max(map(tokens, prompts)))
        why = "tokenized" if tokenizer else "no tokenizer here, so counted in bytes: at most"
    return padded_length(longest), why


def _remarks(load: Load, outlooks: Sequence[Outlook]) -> Iterator[str]:
    """What the table assumes, and what the spec lacks."""
    chips = [each.chip for each in outlooks]
    yield f"Reckoned with {'; '.join(load.sources)}."
    yield from _efficiencies(chips)
    known = catalogue()
    priced = [chip.name for chip in chips if chip.price != known.named(chip.name).price]
    given = f"; of {', '.join(priced)}: --price" if priced else ""
    yield f"Prices: {known.prices}{given}."
    yield from _reading(load, outlooks)
    films = "decoding films on the host, which decides where it is slower; " * bool(load.spec.video)
    yield f"Not counted: {films}what chips exchange; loading and compiling."
    for each in outlooks:
        yield from _fit(load.spec, each)


def _reading(load: Load, outlooks: Sequence[Outlook]) -> Iterator[str]:
    """What reading takes of the hosts, and which chips would wait for it."""
    spec, costs, read_ms = load.spec, reading_costs(), load.read_ms
    if read_ms is None:
        return
    yield (
        f"Cores are those that read JPEGs of {load.megapixels:g} megapixels with "
        f"decode={spec.decode} as fast as the chips ask: {read_ms:.1f} ms each (measured on "
        f"{costs.measured}: {costs.command}). --megapixels says another size."
    )
    given = spec.cpus_per_actor
    waiting = [each.chip.name for each in outlooks if each.cores and each.cores > given]
    if waiting:
        faster = "" if spec.decode == "fast" else ", or decode=fast"
        yield (
            f"Of {', '.join(waiting)} the host is the limit, not the chip, where an actor has "
            f"cpus_per_actor={given:g} and no more: that reads {given * 1000 / read_ms:.0f} "
            f"images/s. Give it the cores of its line{faster}."
        )


def _efficiencies(chips: Iterable[Chip]) -> Iterator[str]:
    """How much of their peaks the chips are taken to reach, and why."""
    reached: dict[tuple[Efficiency, str], list[str]] = {}
    for chip in chips:
        why = "measured" if chip.efficiency.measured else "assumed, nobody has measured it"
        if chip.efficiency != catalogue().named(chip.name).efficiency:
            why = "--efficiency"
        reached.setdefault((chip.efficiency, why), []).append(chip.name)
    for (efficiency, why), names in reached.items():
        of = f"On {', '.join(names)} a" if len(reached) > 1 else "A"
        yield (
            f"{of} run reaches {efficiency.compute:.0%} of peak computing and "
            f"{efficiency.bandwidth:.0%} of peak bandwidth ({why})."
        )


def _fit(spec: AnnotateSpec, each: Outlook) -> Iterator[str]:
    """What the spec has to say, or might say, for a kind of chip."""
    name, over = each.chip.name, each.model_parallel
    if not each.largest:
        yield f"{name}: a row needs more than there is on {over} of a host's chips."
    elif over != spec.model_parallel:
        yield f"{name}: the spec needs model_parallel={over}, and {each.chips} chips an actor."
    if spec.batch_size and each.largest < spec.batch_size:
        yield f"{name}: batch_size={spec.batch_size} is more than fits; a run halves it."
    elif spec.batch_size and each.largest > spec.batch_size:
        yield f"{name}: a batch of {each.largest} fits, too."


def _figure(value: float) -> str:
    """Three digits that matter."""
    return "<0.01" if value < 0.01 else f"{value:,.{max(0, 2 - floor(log10(value)))}f}"
