"""Manifests (`TABLE_SUFFIXES`) to items, one a row, streamed."""

import posixpath
from collections.abc import Iterator

from paliflow import storage
from paliflow.configs.annotate import SourceSpec
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.admission import roots_of
from paliflow.jobs.sources.columns import describe, named_columns, text
from paliflow.jobs.sources.tables import Columns, resolve, table_rows


def manifest_items(manifest: storage.Entry, spec: SourceSpec) -> Iterator[Item]:
    """The rows in their order; one whose image is null or empty has the uri "".

    Raises:
        SpecError: a column that the spec names is not there.
        ValueError: the manifest cannot be read.
    """
    image = spec.image_column
    named = named_columns(spec) | {image: f"image_column={image!r}"}
    folder = posixpath.dirname(manifest.uri)
    roots = roots_of(folder, spec.allowed_roots)
    for row in table_rows(manifest.uri, Columns(named, image)):
        if isinstance(row, ValueError):
            raise row
        yield describe(Item(resolve(text(row, image), folder), roots=roots), row, spec)
