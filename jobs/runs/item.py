"""`Item`: one input of a run, as its plan lists it."""

from typing import NamedTuple


class Item(NamedTuple):
    """One input of a run, and what it is asked."""

    uri: str
    """Becomes `source_uri`; empty where a manifest's row names no image."""
    archive: str | None = None
    """The tar that holds the image, at bytes `offset` to `offset + size`, or another file with a
    place in it: see `media.places`."""
    offset: int | None = None
    size: int | None = None
    version: str | None = None
    """What its storage said of its state when the plan was made; see `storage.Entry`."""
    prompts: tuple[str, ...] | None = None
    """None stands for the spec's prompts."""
    asks: tuple[int, ...] | None = None
    """Which of the spec's prompts each of `prompts` comes from; a number past them is that of
    `prompt_column`. None where the spec's prompts are text, or are known by it."""
    choices: tuple[str | None, ...] | None = None
    """What `choices_column` says for each of `prompts`, as text; None where none has one. Of
    prompts that are text, the one answer whose probability is wanted."""
    id: str | None = None
    metadata: str | None = None
    """JSON object."""
    first: int | None = None
    last: int | None = None
    """Of a video's samples or clips, those from `first` to before `last`; None is no bound."""
    frames: tuple[str, ...] | None = None
    """The images that a video was taken apart into, in order."""
    roots: tuple[str, ...] | None = None
    """Where its file may lie, links resolved: see `storage.within`. None is anywhere, of what the
    spec itself names; then comes the folder of the file that names it, and `allowed_roots`."""
    edit: str | None = None
    """JSON of a `media.edits.Edit`: what is drawn on the image or which part of the video counts;
    None where it is asked about as it is."""
