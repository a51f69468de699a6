"""What a spec's `input` stands for: its items, streamed in a fixed order."""

import glob
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from paliflow import storage
from paliflow.configs import PromptSpec
from paliflow.configs.annotate import SourceSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import passed_over_said
from paliflow.jobs.media.video.container import VIDEO_SUFFIXES
from paliflow.jobs.media.video.stills import group_frames
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.admission import Admission, roots_of
from paliflow.jobs.sources.listing import Choice, matched
from paliflow.jobs.sources.manifests import manifest_items
from paliflow.jobs.sources.tables import TABLE_SUFFIXES, suffix
from paliflow.jobs.sources.tars import tar_items

# fmt: off
IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)
# fmt: on
"""Of the files that are inputs in a folder or a tar; a glob or a manifest names its own."""
_COMPRESSED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
# fmt: off
_UNREAD = (
    ".arrow", ".avro", ".feather", ".html", ".json", ".pdf", ".txt", ".xls", ".xlsx", ".xml",
    ".yaml", ".yml", ".zip",
)
# fmt: on
"""What people have their lists in, and what is no list that is read."""
_Read = Callable[[storage.Entry, SourceSpec], Iterator[Item]]


def items(spec: SourceSpec, passed_over: Counter[str] | None = None) -> Iterator[Item]:
    """The inputs of a run, with absolute URIs; with `video` they are videos instead of images,
    and with its `frame_rate` those images put together to videos.

    - a manifest (`TABLE_SUFFIXES`): one image a row, in the order of the rows; relative
      paths are relative to the manifest, and a row without a path gives "".
    - a tar (.tar): its images, in its order.
    - any other file: itself.
    - a folder: the files below it whose names end like an image's, in the order of their names.
    - a glob that ends like a manifest or a tar (`shards-*.tar`): all that is in the files it
      matches, in the order of their names.
    - any other glob: the files it matches, whatever they are called, in the same order.

    Files in folders and tars that are neither images nor what describes them are passed over and
    counted in `passed_over`, by suffix.

    Rows of manifests and samples of tars have columns, which templates, `prompt_column`,
    `id_column` and `metadata_columns` name; elsewhere a prompt's braces are literal.

    What a folder's or a glob's files are linked to, and what a manifest's rows name, is read if
    it lies below the same folder, or the manifest's, or one of `allowed_roots`.

    Raises:
        SpecError: there is no such input, or nothing in it, or no such column, or a manifest is
            broken, or much of it lies outside.
        OSError: the storage fails in a way that may pass.
    """
    found = _listed(spec, Counter() if passed_over is None else passed_over)
    if spec.video and spec.video.frame_rate:
        return group_frames(found, by_id=spec.video.group_column is not None)
    return found


def _listed(spec: SourceSpec, passed_over: Counter[str]) -> Iterator[Item]:
    where, found = spec.input, None
    suffixes = VIDEO_SUFFIXES if spec.video and not spec.video.frame_rate else IMAGE_SUFFIXES
    choice = Choice(suffixes, spec.sniff, passed_over)
    try:
        uri = storage.absolute(spec.input)
        storage.check_host(uri, spec.https_hosts)
        files, root, read = _files(uri, choice)
        _require_readable(uri, is_read=read is not None)
        if not read:
            _refuse_columns(spec)
        # Links are local.
        roots = None if root is None or "://" in uri else roots_of(root, spec.allowed_roots)
        admission = Admission(spec.max_error_fraction)
        for file in files:
            where = file.uri
            if read:
                storage.within(file.uri, roots)
            for found in read(file, spec) if read else [Item(file.uri, version=file.version)]:
                if found.roots is None:
                    found = found._replace(roots=roots)
                admission.admits(found.archive or found.uri, found.roots)
                yield found
        where = spec.input
        admission.judge()
    except SpecError as error:
        raise SpecError(f"input={where!r}, {error}") from None
    except (OSError, ValueError) as error:
        if storage.is_transient(error):
            raise
        raise SpecError(f"input={where!r}: {error}") from error
    if found is None:
        if read is manifest_items:
            raise SpecError(f"input={spec.input!r}: the manifest has no rows")
        raise SpecError(f"input={spec.input!r}: {_nothing_there(choice)}")


def _files(uri: str, choice: Choice) -> tuple[Iterator[storage.Entry], str | None, _Read | None]:
    """The files of an input, the folder that links must stay below, and what reads a file's items;
    None where a folder is not looked for, or a file is itself the item."""
    read = _reader(uri, choice)
    if storage.is_file(uri):
        return iter([storage.Entry(uri, storage.version(uri))]), None, read
    if _is_glob(uri):
        folder = posixpath.dirname(re.split(r"[*?[]", uri)[0]) or "/"
        return matched(uri, choice.passed_over), folder, read
    return choice.files(storage.list_files(uri), uri), uri, None


def _reader(uri: str, choice: Choice) -> _Read | None:
    """What reads the items of files whose names end like this."""
    readers: dict[str, _Read] = dict.fromkeys(TABLE_SUFFIXES, manifest_items)
    readers[".tar"] = partial(tar_items, choice=choice)
    return readers.get(suffix(uri))


def _require_readable(uri: str, *, is_read: bool) -> None:
    """
    Raises:
        ValueError: the input's name is one of what people have their lists in, and no manifest's.
    """
    if uri.lower().endswith(_COMPRESSED_TARS):
        raise ValueError("a compressed tar cannot be read from its middle; make it a .tar")
    ending = suffix(uri)
    if ending.endswith((*_UNREAD, ".gz")) and not is_read and not Path(uri).is_dir():
        known = ", ".join(TABLE_SUFFIXES)
        raise ValueError(f"{ending} is neither an image nor a manifest, which end in {known}")


def _nothing_there(choice: Choice) -> str:
    kind = "images" if choice.suffixes is IMAGE_SUFFIXES else "videos"
    passed_over = choice.passed_over
    passed = f" (passed over: {passed_over_said(passed_over)})" if passed_over else ""
    return (
        f"no {kind} there{passed}; a folder's {kind} are its files that end in "
        f"{' '.join(choice.suffixes)}, a glob or a manifest may name any file"
    )


def _is_glob(uri: str) -> bool:
    # A folder may well be called "photos [2019]".
    return glob.has_magic(uri) and not Path(uri).is_dir()


def _refuse_columns(spec: SourceSpec) -> None:
    if spec.video and spec.video.group_column:
        raise SpecError("video.group_column: only the rows of a manifest have columns")
    names = ("prompt_column", "id_column", "metadata_columns")
    given = {name: getattr(spec, name, None) for name in names}
    for prompt in getattr(spec, "prompts", ()):
        if isinstance(prompt, PromptSpec) and prompt.choices_column:
            given["choices_column"] = prompt.choices_column
    for field, value in given.items():
        if value:
            raise SpecError(
                f"{field}={value!r}: only the rows of a manifest ({', '.join(TABLE_SUFFIXES)}) "
                "and the samples of a .tar have columns"
            )
