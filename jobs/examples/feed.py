"""Examples to batches of arrays: which a step draws is decided by the seed and its number."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice, tee
from typing import NamedTuple

import grain
import numpy as np

from paliflow.configs.base import brief
from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.orientation import boxes_in_picture
from paliflow.jobs.examples.plan import ExamplePlan, open_examples, training_name
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import max_concurrent_reads, reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.runs.plan import Item
from paliflow.model.examples import Texts, encode_examples
from paliflow.model.loss import Batch
from paliflow.model.tokenizer import Tokenizer

_BATCHES_AHEAD = 2


class Fed(NamedTuple):
    """One process's rows of a batch."""

    batch: Batch
    """Of numpy arrays."""
    failures: tuple[str, ...]
    """Why rows of it were skipped; their `mask_loss` is all 0."""


class _Pair(NamedTuple):
    example: Example
    suffix: str
    roots: tuple[str, ...] | None
    """Where the example's images may lie."""


class _Draw(NamedTuple):
    source: int
    epoch: int
    """Of the source."""
    row: int


def training_feed(
    run: str,
    plan: ExamplePlan,
    spec: FineTuneSpec,
    tokenizer: Tokenizer,
    image_size: int,
    *,
    first_step: int,
    total_steps: int,
    process_index: int,
    process_count: int,
) -> Iterator[Fed]:
    """Batches of the steps from `first_step` to before `total_steps`.

    Sources are drawn from in proportion to their weights (to within a hundredth), whatever their
    sizes. Each is shuffled anew every time it has been gone through, so that all its examples have
    had their turn before one has its next. An example with several suffixes takes another each
    time, until all have had theirs.

    The global batch of a step depends on the seed and the step's number alone. The processes have
    consecutive parts of it and read nothing else. Images are read ahead in threads; one that
    cannot be read is a row that does not count.

    Args:
        run: the run's folder.
        plan: from `write_examples` of `sources_of(spec)`.
        spec: `batch_size` is of all processes together.
        tokenizer: the model's.
        image_size: what the network sees, in pixels.
        first_step, total_steps: counted from 0.
        process_index, process_count: which part of each batch.
    """
    names = [training_name(number) for number in range(len(spec.train))]
    sources = [open_examples(run, plan, name) for name in names]
    roots = [plan.source(name).roots for name in names]
    draws = _draws([len(source) for source in sources], [s.weight for s in spec.train], spec.seed)
    own = _part(spec.batch_size, process_index, process_count)

    def pairs() -> Iterator[_Pair]:
        for step in range(first_step, total_steps):
            for place in own:
                draw = draws[step * spec.batch_size + place]
                example = sources[draw.source][draw.row]
                turn = draw.epoch + zlib.crc32(example.id.encode())
                suffix = example.suffixes[turn % len(example.suffixes)]
                yield _Pair(example, suffix, roots[draw.source])

    yield from _feed(pairs(), len(own), spec, tokenizer, image_size)


def validation_feed(
    run: str,
    plan: ExamplePlan,
    name: str,
    spec: FineTuneSpec,
    tokenizer: Tokenizer,
    image_size: int,
    *,
    process_index: int,
    process_count: int,
) -> Iterator[Fed]:
    """A source's examples in order, each with its first suffix, in batches as in `training_feed`.

    The last batch is filled up with rows that do not count.

    Args:
        name: the source's in the plan.
    """
    examples, roots = open_examples(run, plan, name), plan.source(name).roots
    own = _part(spec.batch_size, process_index, process_count)

    def pairs() -> Iterator[_Pair | None]:
        for start in range(0, len(examples), spec.batch_size):
            for index in range(start + own.start, start + own.stop):
                example = examples[index] if index < len(examples) else None
                yield example and _Pair(example, example.suffixes[0], roots)

    yield from _feed(pairs(), len(own), spec, tokenizer, image_size)


def _draws(sizes: list[int], weights: list[float], seed: int) -> grain.MapDataset[_Draw]:
    """An endless sequence with random access: what the n-th example of a training is."""
    sources = []
    for number, size in enumerate(sizes):
        own = np.random.SeedSequence([seed % 2**32, number]).generate_state(1)[0]
        rows = grain.MapDataset.range(size).shuffle(seed=int(own)).repeat()
        sources.append(rows.map_with_index(partial(_draw, number, size)))
    return grain.MapDataset.mix(sources, weights)


def _draw(source: int, size: int, index: int, row: int) -> _Draw:
    return _Draw(source, index // size, row)


def _part(batch_size: int, process_index: int, process_count: int) -> range:
    """Which rows of a global batch are a process's."""
    size, rest = divmod(batch_size, process_count)
    if rest:
        raise ValueError(f"batch_size={batch_size} does not divide by {process_count} processes")
    return range(process_index * size, (process_index + 1) * size)


def _feed(
    pairs: Iterable[_Pair | None],
    size: int,
    spec: FineTuneSpec,
    tokenizer: Tokenizer,
    image_size: int,
) -> Iterator[Fed]:
    """Batches of `size` rows; None is a row that does not count."""
    count = spec.images_per_example
    pairs, following = tee(pairs)
    items = (
        image_item(image, pair.roots, pair.example.edit)
        for pair in following
        if pair and len(pair.example.images) == count
        for image in pair.example.images
    )
    depth = _BATCHES_AHEAD * size * count
    read_all = reader(spec, image_size)

    def read(item: Item) -> Iterator[Input | None]:
        """One input an image: of a video its clip, whatever may be missing after it."""
        for found in read_all(item):
            yield found
            if found is not None:
                return

    with closing(
        ReadAhead(read, items, depth, spec.read_timeout, max_concurrent_reads(spec.video))
    ) as ahead:
        inputs = iter(ahead)
        while rows := list(islice(pairs, size)):
            yield _assemble(rows, inputs, spec, tokenizer, image_size)


def _assemble(
    rows: list[_Pair | None],
    inputs: Iterator[Input],
    spec: FineTuneSpec,
    tokenizer: Tokenizer,
    image_size: int,
) -> Fed:
    count, length = spec.images_per_example, spec.max_tokens
    frames = spec.frames_per_example
    images = np.zeros((len(rows), frames, image_size, image_size, 3), np.uint8)
    blank = np.full((1, length), tokenizer.pad_id, np.int32)
    texts = [Texts(blank, np.ones_like(blank), np.zeros_like(blank))] * len(rows)
    failures = []
    for place, pair in enumerate(rows):
        if pair is None:
            continue
        try:
            read = _read(pair.example, inputs, count)
            turned = _in_picture(pair, read[0], upright=spec.exif == "apply")
            texts[place] = _encode(
                turned, tokenizer, spec.max_tokens, truncate=spec.too_long == "truncate"
            )
            shown = read[0].pixels if spec.video else [source.pixels for source in read]
            images[place] = np.array(shown)
        except ValueError as error:
            failures.append(brief(str(error)))
    fields = map(np.concatenate, zip(*texts, strict=True))
    return Fed(Batch(images[:, 0] if frames == 1 else images, *fields), tuple(failures))


def _read(example: Example, inputs: Iterator[Input], count: int) -> list[Input]:
    """An example's images, all of which have pixels.

    Raises:
        ValueError: an image could not be read, or there are too many or too few.
    """
    if len(example.images) != count:
        raise ValueError(f"{len(example.images)} images, not images_per_example={count}")
    own = list(islice(inputs, count))
    for source in own:
        if source.pixels is None:
            raise ValueError(source.error)
    return own


def _in_picture(pair: _Pair, source: Input, *, upright: bool) -> _Pair:
    """
    Raises:
        ValueError: its boxes are of another picture's size.
    """
    size, (width, height) = pair.example.size, (source.width, source.height)
    if size is None or width is None or height is None:
        return pair
    turned = boxes_in_picture(
        pair.suffix, size, (width, height), source.orientation, upright=upright
    )
    return pair._replace(suffix=turned)


def _encode(pair: _Pair, tokenizer: Tokenizer, max_tokens: int, *, truncate: bool) -> Texts:
    """
    Raises:
        ValueError: there are too many tokens; it does not name them, so that equal ones count.
    """
    texts = [(pair.example.prefix, pair.suffix)]
    try:
        return encode_examples(tokenizer, texts, max_tokens, truncate=truncate)
    except ValueError:
        said = f"prefix and suffix have more than max_tokens={max_tokens} tokens"
        raise ValueError(said) from None
