"""What an `ExampleSource` stands for: its examples, streamed in a fixed order."""

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from paliflow import storage
from paliflow.configs.base import SpecError
from paliflow.configs.examples import EvaluationSet, ExampleSource
from paliflow.jobs.examples.annotations import annotation_examples, names_images_itself
from paliflow.jobs.examples.benchmarks import benchmark_examples
from paliflow.jobs.examples.coco import coco_examples
from paliflow.jobs.examples.example import Example, make_example
from paliflow.jobs.media.places import is_place
from paliflow.jobs.sources.admission import Admission, roots_of
from paliflow.jobs.sources.tables import TABLE_SUFFIXES, Columns, suffix, table_rows

__all__ = ["Example", "image_roots", "read_examples"]

_OUTSIDE = "an image outside of the file's folder, of images and of allowed_roots"


def image_roots(source: ExampleSource, allowed_roots: tuple[str, ...]) -> tuple[str, ...] | None:
    """Where the images of a source may lie: below its folder, `images`, and `allowed_roots`.

    Returns:
        None for what Paliflow's own annotations are of: those were inputs of a run, and whoever
        can write to an output is trusted like its author.

    Raises:
        ValueError: a URI of an unknown kind.
    """
    uri = storage.absolute(source.path)
    if source.benchmark:
        return roots_of(uri, allowed_roots)
    is_file = suffix(uri) in _READERS
    if not is_file and names_images_itself(source):
        return None
    folder = posixpath.dirname(uri) if is_file else uri
    return roots_of(folder, allowed_roots, *_images(source))


def read_examples(
    source: ExampleSource,
    https_hosts: tuple[str, ...],
    allowed_roots: tuple[str, ...] = (),
    max_error_fraction: float = 0.1,
    dropped: Counter[str] | None = None,
) -> Iterator[Example | str]:
    """The examples of a source; a row that is none is a reason that names no file.

    - a table (`TABLE_SUFFIXES`): one example a row, in the order of the rows; the id is the row's
      number, from 0.
    - COCO's .json: see `coco_examples`.
    - Paliflow's annotations, an output or one run of it: see `annotation_examples`.
    - a benchmark's folder: see `benchmark_examples`.

    Relative paths of images are relative to `source.images`, or to the file's folder.

    Args:
        source: what to read.
        https_hosts: the hosts that an `https://` source may be at.
        allowed_roots: where else its images may lie; see `image_roots`.
        max_error_fraction: if more of them lie elsewhere, that is an error at once.
        dropped: counts what is left out without being an error, by reason, while this is read.

    Raises:
        SpecError: there is no such source, it is of no kind that is known, or is broken, or has
            no such column, or many of its images lie elsewhere.
        OSError: the storage fails in a way that may pass.
    """
    dropped = Counter() if dropped is None else dropped
    try:
        uri = storage.absolute(source.path)
        storage.check_host(uri, https_hosts)
        folder = next(iter(_images(source)), posixpath.dirname(uri))
        roots, admission = image_roots(source, allowed_roots), Admission(max_error_fraction)
        for found in _reader(uri, source)(uri, source, folder, dropped):
            if found is None:
                dropped["an empty suffix"] += 1
            elif isinstance(found, Example):
                if roots is not None and not source.benchmark and any(map(is_place, found.images)):
                    yield "an image's name has #place= in it"
                    continue
                admitted = [admission.admits(image, roots) for image in found.images]
                yield found if all(admitted) else _OUTSIDE
            else:
                yield found
        admission.judge()
    except SpecError as error:
        raise SpecError(f"path={source.path!r}, {error}") from None
    except (OSError, ValueError) as error:
        if storage.is_transient(error):
            raise
        raise SpecError(f"path={source.path!r}: {error}") from error


def _images(source: ExampleSource) -> list[str]:
    return [storage.absolute(source.images)] if source.images else []


_Reader = Callable[[str, ExampleSource, str, Counter[str]], Iterator[Example | str | None]]


def _reader(uri: str, source: ExampleSource) -> _Reader:
    if source.benchmark:
        return _benchmark
    read = _READERS.get(suffix(uri))
    if read is not _table_examples and isinstance(source, EvaluationSet) and source.groups:
        raise SpecError(f"groups={source.groups!r}: only tables have such columns")
    if not storage.is_file(uri):
        if read:
            raise ValueError("there is no such file")
        return annotation_examples
    if not read:
        raise ValueError(
            f"examples are read from {', '.join(_READERS)} and from Paliflow's own annotations"
        )
    for field in ("prompts", "min_score", "reviewed_column"):
        if (value := getattr(source, field)) not in (None, ()):
            raise SpecError(f"{field}={value!r}: only Paliflow's own annotations have it")
    return read


def _benchmark(
    uri: str, source: ExampleSource, folder: str, dropped: Counter[str]
) -> Iterator[Example | str]:
    return benchmark_examples(source)


def _table_examples(
    uri: str, source: ExampleSource, folder: str, dropped: Counter[str]
) -> Iterator[Example | str | None]:
    image, prefix, answer = source.image_column, source.prefix_column, source.suffix_column
    required = {image: f"image_column={image!r}", answer: f"suffix_column={answer!r}"}
    if source.prefix is None:
        required[prefix] = f"prefix_column={prefix!r}"
    groups = source.groups if isinstance(source, EvaluationSet) else ()
    required |= {group: f"groups={group!r}" for group in groups}
    columns = Columns(required, image, lists=True, optional=[prefix])
    for number, row in enumerate(table_rows(uri, columns)):
        if isinstance(row, ValueError):
            yield "the line is not a JSON object"
            continue
        asked = row.get(prefix) or source.prefix
        found = make_example(
            str(number), row.get(image), asked, row.get(answer), folder, source.empty
        )
        if groups and isinstance(found, Example):
            own = {name: [str(row[name])] for name in groups if row.get(name) not in (None, "")}
            found = found._replace(details=json.dumps({"groups": own}))
        yield found


_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(TABLE_SUFFIXES, _table_examples),
    ".json": coco_examples,
}
