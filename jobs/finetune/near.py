"""Training images that are near images of evaluations: found by filter runs, left out, counted."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from rich.console import Console

from paliflow import storage
from paliflow.configs import FilterSpec, FilterSummary
from paliflow.configs.base import SpecError, printable
from paliflow.configs.examples import ExampleSource
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.log_lines import say
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.sources import image_roots, read_examples
from paliflow.jobs.report.page import REPORT
from paliflow.jobs.runs.outputs import read_summary
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.safety.audit import audit_rows
from paliflow.jobs.safety.job import filter as filter_images
from paliflow.jobs.safety.selection import exif_of

TRAINING = "training"
"""The id of the filter run in `_near/` that compares the training images."""
_SHARED = {"https_hosts", "allowed_roots", "max_pixels", "read_timeout", "decoder_memory"}
"""Fields of the spec that hold for the filter runs, too."""


class Near(NamedTuple):
    """What the training images were compared with, and what was found."""

    images: Mapping[tuple[str, str | None], str]
    """Those that are not learnt from, as their files have them or as examples edit them, and
    why."""
    compared: int
    """Pictures of all training sources, as in `_images`."""
    location: str
    """The filter run that compared them; its report shows the pairs."""

    def leave_out(self, example: Example) -> str | None:
        """Why an example is not learnt from; None if it is."""
        keys = ((image, edit) for image in example.images for edit in (None, example.edit))
        return next((self.images[each] for each in keys if each in self.images), None)


def find_near(spec: FineTuneSpec, console: Console) -> Near:
    """Compares the training images with those of `exclude_near`, on the cluster that this process
    is connected to.

    Each source of `exclude_near` is hashed once, by a filter run in `_near/` (one that is named
    itself is taken as it is); the training images are then filtered against them, which is resumed
    like any run of filters. All see images the same way up. Memory holds 8 bytes of each image's
    URI, and 64 of its hash.

    Args:
        spec: with absolute paths.
        console: where progress goes.

    Raises:
        SpecError: a source cannot be read, or too many of its images, or a filter run that is
            named saw its images another way up.
    """
    finished = [_finished(source) for source in spec.exclude_near]
    exif = _exif(spec, finished)
    known = tuple(
        (done or _run(spec, f"index-{number}", (source,), (), exif, console)).location
        for number, (source, done) in enumerate(zip(spec.exclude_near, finished, strict=True))
    )
    summary = _run(spec, TRAINING, spec.train, known, exif, console)
    images = {(row["image"], row["id"]): _reason(row) for row in audit_rows(summary.location)}
    if images:
        say(
            f"{len(images):,} of {summary.inputs:,} training pictures are left out, as they are "
            f"near images of exclude_near, or could not be compared: {printable(summary.location)}"
            f"/{REPORT}",
            "warning",
        )
    return Near(images, summary.inputs, summary.location)


def _reason(row: Mapping[str, Any]) -> str:
    near = row["filter"] == "exclude_near"
    return "an image near one of exclude_near" if near else "an image that could not be compared"


def _finished(source: ExampleSource) -> FilterSummary | None:
    """The finished filter run that a source is, if it is one."""
    location = storage.absolute(source.path)
    if source.benchmark or not storage.is_file(f"{location}/_manifest.json"):
        return None
    try:
        return read_summary(location, FilterSummary)
    except SpecError:  # a run of annotations, whose images are meant
        return None


def _exif(spec: FineTuneSpec, finished: Sequence[FilterSummary | None]) -> str:
    """Whether all images that are compared are seen as EXIF turns them, or as they are stored.

    One photo would have two unrelated hashes otherwise. Of benchmarks they are seen as stored:
    they say where on an image as its file has it something is drawn.

    Raises:
        SpecError: of the filter runs that are named one is otherwise.
    """
    named = {summary.location: exif_of(summary) for summary in finished if summary}
    benchmarks = any(source.benchmark for source in (*spec.train, *spec.exclude_near))
    exif = "ignore" if benchmarks or "ignore" in named.values() else "apply"
    if other := [location for location, theirs in named.items() if theirs != exif]:
        why = "benchmarks are compared so" if benchmarks else "another run of exclude_near is so"
        raise SpecError(
            f"exclude_near: {other[0]} is a filter run with exif: apply, and {why}: with exif: "
            f"ignore. Filter its images again with exif: {exif}, or name them and not the run"
        )
    return exif


def _run(
    spec: FineTuneSpec,
    name: str,
    sources: tuple[ExampleSource, ...],
    known: tuple[str, ...],
    exif: str,
    console: Console,
) -> FilterSummary:
    """A filter run over the pictures of some sources, as `_images` has them."""
    filtering = FilterSpec.parse(
        {
            **spec.model_dump(mode="json", include=_SHARED),
            "input": sources[0].path,
            "output": f"{spec.location}/_near",
            "run_id": name,
            "filters": [] if known else [{"filter": "quality", "action": "label"}],
            "exclude_near": known,
            # What cannot be read is not learnt from: training counts it against its own limits.
            "max_error_fraction": 1.0 if known else spec.max_error_fraction,
            "exif": exif,
        }
    )
    summary = filter_images(filtering, console, list_items=lambda: _images(spec, sources))
    if summary.errors and not known:
        say(
            f"{summary.errors:,} images of {printable(sources[0].path)} cannot be read, so that "
            "nothing is compared with them",
            "warning",
        )
    return summary


def _images(spec: FineTuneSpec, sources: tuple[ExampleSource, ...]) -> Iterator[Item]:
    """Each image once as its file has it, and once each way that examples edit it, which is its id.

    A copy elsewhere may be of the one or of the other.

    Raises:
        SpecError: a source cannot be read.
    """
    seen: set[int] = set()
    for source in sources:
        roots = image_roots(source, spec.allowed_roots)
        for found in read_examples(
            source, spec.https_hosts, spec.allowed_roots, spec.max_error_fraction
        ):
            if not isinstance(found, Example):
                continue
            for image, edit in product(found.images, dict.fromkeys((None, found.edit))):
                if (key := hash((image, edit))) not in seen:
                    seen.add(key)
                    yield image_item(image, roots, edit)._replace(id=edit)
