"""`Entry`: what a listing says of a file."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A file or an object in a listing."""

    uri: str
    version: str | None
    """Changes when the content does; see `paliflow.storage.version`."""
