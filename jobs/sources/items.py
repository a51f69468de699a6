"""What a spec's `input` stands for: its items, streamed in a fixed order."""

import glob
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from paliflow import storage
from paliflow.configs import AnnotateSpec, PromptSpec
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


def items(spec: AnnotateSpec, passed_over: Counter[str] | None = None) -> Iterator[Item]:
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
    return group_frames(found, spec.video) if spec.video and spec.video.frame_rate else found


def _listed(spec: AnnotateSpec, passed_over: Counter[str]) -> Iterator[Item]:
    where, found = spec.input, None
    suffixes = VIDEO_SUFFIXES if spec.video and not spec.video.frame_rate else IMAGE_SUFFIXES
    choice = Choice(suffixes, spec.sniff, passed_over)
    try:
        uri = storage.absolute(spec.input)
        storage.check_host(uri, spec.https_hosts)
        readers = dict.fromkeys(TABLE_SUFFIXES, manifest_items)
        readers[".tar"] = partial(tar_items, choice=choice)
        read = readers.get(ending := suffix(uri))
        root: str | None = None
        if storage.is_file(uri):
            files = iter([storage.Entry(uri, storage.version(uri))])
        elif _is_glob(uri):
            files = matched(uri, passed_over)
            root = posixpath.dirname(re.split(r"[*?[]", uri)[0]) or "/"
        else:
            root = uri
            read = None
            files = choice.files(storage.list_files(uri), uri)
        if uri.lower().endswith(_COMPRESSED_TARS):
            raise ValueError("a compressed tar cannot be read from its middle; make it a .tar")
        if ending.endswith((*_UNREAD, ".gz")) and not read and not Path(uri).is_dir():
            known = ", ".join(TABLE_SUFFIXES)
            raise ValueError(f"{ending} is neither an image nor a manifest, which end in {known}")
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
        kind = "images" if suffixes is IMAGE_SUFFIXES else "videos"
        if read is manifest_items:
            raise SpecError(f"input={spec.input!r}: the manifest has no rows")
        passed = f" (passed over: {passed_over_said(passed_over)})" if passed_over else ""
        raise SpecError(
            f"input={spec.input!r}: no {kind} there{passed}; a folder's {kind} are its files that "
            f"end in {' '.join(suffixes)}, a glob or a manifest may name any file"
        )


def _is_glob(uri: str) -> bool:
    # A folder may well be called "photos [2019]".
    return glob.has_magic(uri) and not Path(uri).is_dir()


def _refuse_columns(spec: AnnotateSpec) -> None:
    if spec.video and spec.video.group_column:
        raise SpecError("video.group_column: only the rows of a manifest have columns")
    given = {
        name: getattr(spec, name) for name in ("prompt_column", "id_column", "metadata_columns")
    }
    own = (p.choices_column for p in spec.prompts if isinstance(p, PromptSpec))
    for field, value in (given | {"choices_column": next(filter(None, own), None)}).items():
        if value:
            raise SpecError(
                f"{field}={value!r}: only the rows of a manifest ({', '.join(TABLE_SUFFIXES)}) "
                "and the samples of a .tar have columns"
            )
