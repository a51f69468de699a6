"""Whether a benchmark's files are there, before any chip is rented."""

import posixpath
from collections import Counter
from typing import NamedTuple

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark
from paliflow.configs.examples import EvaluationSet
from paliflow.jobs.examples.benchmarks.files import Data
from paliflow.jobs.examples.benchmarks.reading import benchmark_examples, locate, parts_of
from paliflow.jobs.examples.example import Example
from paliflow.jobs.media.places import is_place


class Findings(NamedTuple):
    """What is there of a benchmark."""

    split: str
    files: tuple[str, ...]
    """URIs of the files that are there."""
    missing: tuple[str, ...]
    """Paths of those that are not."""
    broken: tuple[str, ...]
    """Archives that cannot be read, and why; the rest of what lacks may be in them."""
    rows: int
    reasons: Counter[str]
    """Why records are no rows, and how many."""
    images: int
    """Different images of the rows."""
    missing_images: int
    example: str | None
    """One of the images that are not there."""

    @property
    def ready(self) -> bool:
        """Whether everything is there."""
        return not (self.missing or self.broken or self.missing_images or self.reasons)


def check(name: str, folder: str, split: str | None = None) -> Findings:
    """Looks for the files of a benchmark and the images that they name; nothing is decoded.

    Args:
        name: of the benchmark.
        folder: of the data.
        split: the one that is evaluated if not given.

    Raises:
        SpecError: there is no such benchmark or split, or a file is not in its official form.
    """
    known = benchmark(name)
    source = EvaluationSet(path=folder, benchmark=name, split=split)
    data = Data(folder, name)
    parts = parts_of(known, split)
    files: list[str] = []
    missing: list[str] = []
    rows, reasons, images = 0, Counter[str](), dict[str, None]()
    try:
        for part in parts:
            found, lacking = locate(known, part, data)
            files += found.values()
            missing += lacking.values()
        broken = tuple(data.broken)
        for example in () if missing or broken else benchmark_examples(source):
            if isinstance(example, Example):
                rows += 1
                images.update(dict.fromkeys(example.images))
            else:
                reasons[example] += 1
        lost = _not_there(list(images))
    except (OSError, ValueError) as error:
        raise SpecError(f"benchmark {name!r}: {error}") from error
    return Findings(
        split or known.split,
        tuple(dict.fromkeys(files)),
        tuple(dict.fromkeys(missing)),
        broken,
        rows,
        reasons,
        len(images),
        len(lost),
        next(iter(lost), None),
    )


def _not_there(images: list[str]) -> list[str]:
    """Those of some URIs at which there is no file: each folder is listed once."""
    there: dict[str, set[str]] = {}
    lost = []
    for image in images:
        if is_place(image):
            continue  # its archive says that it is there
        folder = posixpath.dirname(image)
        if folder not in there:
            try:
                there[folder] = {entry.uri for entry in storage.list_files(folder)}
            except FileNotFoundError:
                there[folder] = set()
        if image not in there[folder]:
            lost.append(image)
    return lost
