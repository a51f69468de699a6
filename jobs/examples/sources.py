"""What an `ExampleSource` stands for: its examples, streamed in a fixed order."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs import storage
from paliflow.jobs.examples.annotations import annotation_examples
from paliflow.jobs.examples.coco import coco_examples
from paliflow.jobs.examples.example import Example, make_example
from paliflow.jobs.tables import TABLE_SUFFIXES, Columns, table_rows

__all__ = ["Example", "read_examples"]


def read_examples(
    source: ExampleSource, https_hosts: tuple[str, ...], dropped: Counter[str] | None = None
) -> Iterator[Example | str]:
    """The examples of a source; a row that is none is a reason that names no file.

    - a table (.jsonl, .csv, .parquet): one example a row, in the order of the rows; the id is the
      row's number, from 0.
    - COCO's .json: see `coco_examples`.
    - Paliflow's annotations, an output or one run of it: see `annotation_examples`.

    Relative paths of images are relative to `source.images`, or to the file's folder.

    Args:
        source: what to read.
        https_hosts: the hosts that an `https://` source may be at.
        dropped: counts what is left out without being an error, by reason, while this is read.

    Raises:
        SpecError: there is no such source, it is of no kind that is known, or is broken, or has
            no such column.
        OSError: the storage fails in a way that may pass.
    """
    dropped = Counter() if dropped is None else dropped
    try:
        uri = storage.absolute(source.path)
        storage.check_host(uri, https_hosts)
        folder = storage.absolute(source.images) if source.images else posixpath.dirname(uri)
        for found in _reader(uri, source)(uri, source, folder, dropped):
            if found is None:
                dropped["an empty suffix"] += 1
            else:
                yield found
    except SpecError as error:
        raise SpecError(f"path={source.path!r}, {error}") from None
    except (OSError, ValueError) as error:
        if storage.may_pass(error):
            raise
        raise SpecError(f"path={source.path!r}: {error}") from error


_Reader = Callable[[str, ExampleSource, str, Counter[str]], Iterator[Example | str | None]]


def _reader(uri: str, source: ExampleSource) -> _Reader:
    read = _READERS.get(posixpath.splitext(uri)[1].lower())
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


def _table_examples(
    uri: str, source: ExampleSource, folder: str, dropped: Counter[str]
) -> Iterator[Example | str | None]:
    image, prefix, suffix = source.image_column, source.prefix_column, source.suffix_column
    required = {image: f"image_column={image!r}", suffix: f"suffix_column={suffix!r}"}
    if source.prefix is None:
        required[prefix] = f"prefix_column={prefix!r}"
    columns = Columns(required, image, lists=True, optional=[prefix])
    for number, row in enumerate(table_rows(uri, columns)):
        if isinstance(row, ValueError):
            yield "the line is not a JSON object"
            continue
        asked = row.get(prefix) or source.prefix
        yield make_example(
            str(number), row.get(image), asked, row.get(suffix), folder, source.empty
        )


_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(TABLE_SUFFIXES, _table_examples),
    ".json": coco_examples,
}
