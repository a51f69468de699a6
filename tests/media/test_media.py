"""Films and images, frame by frame beside FFmpeg's command line: `make media`, a few minutes.

FFMPEG names the command where PATH has none. A table of all that was compared is printed at the
end; what differs, and is documented, stands in `KNOWN` with its reason, and anything else fails.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from paliflow.configs import AnnotateSpec
from paliflow.jobs.media.pixels import decode
from paliflow.jobs.media.reading import Stored
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.media.video.damage import FrameGap
from paliflow.jobs.media.video.picture import SMALL, Frame
from paliflow.jobs.media.video.reading import Sample, distance, samples
from paliflow.jobs.runs.item import Item
from paliflow.tests.media.ffmpeg import BINARY, Shown, key_times, shown
from paliflow.tests.media.films import DAMAGED, FILMS, IMAGES

pytestmark = [
    pytest.mark.media,
    pytest.mark.skipif(BINARY is None, reason="FFmpeg's command line is not installed"),
]

POLICIES: dict[str, dict[str, Any]] = {
    "all": {"every_frames": 1},
    "every_s": {"every_s": 0.373},
    "stride": {"every_frames": 9},
    "count": {"count": 8},
    "keyframes": {"keyframes": True},
    "scenes": {"scenes": 0.12},
    "pieces": {"every_s": 0.373, "segment_s": 1},
}
_AVI = "AVI says when frames are decoded: they are counted from the first that is shown"
_NO_KEY = "its only keyframe lies before the cut: the row says that it has none"
_WEBP = "each picture of an animated WebP is read as a whole: all are keyframes"
_WITHIN = "damage within a packet, of which its codec knows nothing"
KNOWN: dict[str, tuple[set[str], str]] = {
    "h264 avi": ({"times"}, _AVI),
    "mpeg4 avi with b": ({"times"}, _AVI),
    "libwebp_anim webp": ({"frames"}, _WEBP),
    "a long still webp": ({"frames"}, _WEBP),
    "alpha webp": ({"frames"}, _WEBP),
    "h263 3gp": ({"reduced"}, "its stripes of colour are finer than those that reduction keeps"),
    "trimmed in a long gop": ({"errors"}, _NO_KEY),
    "trimmed at both ends": ({"errors"}, _NO_KEY),
    "noise in avi": ({"pixels"}, _WITHIN),
    "420.jp2": ({"pixels"}, "JPEG 2000 has full range; FFmpeg writes and reads that of video"),
}
"""By name: what differs of a film, and why that is so."""
_MODEL = 40
"""Pixels of a model's side, small enough that frames are reduced for it."""
_TIME_S = 0.0011
"""Matroska and FLV round to milliseconds."""
_LEVELS, _SHRUNK_LEVELS = 8.0, 3.5
"""Mean difference of two pictures that are the same, as they are, where the edges of colours lie a
little otherwise, and shrunk by four."""
_REDUCED_LEVELS = 6.0
"""That of two pictures which were reduced for a model."""
_SURE = 0.01
"""So near to the threshold of a scene, rounding decides."""


class Row(NamedTuple):
    """What became of a film."""

    frames: int
    differs: dict[str, str]
    """By policy, the first thing that differs; empty where nothing does."""


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Row]]:
    """By name; printed at the end."""
    found: dict[str, Row] = {}
    yield found
    table = Table("film", "frames", *POLICIES, title="Beside FFmpeg's command line")
    for name, row in found.items():
        cells = [_kind(row.differs.get(policy, "·")) for policy in POLICIES]
        table.add_row(name, str(row.frames), *cells)
    console = Console(width=120)
    console.print(table)
    for name, row in found.items():
        if row.differs:
            console.print(f"{name}: {row.differs}", markup=False, highlight=False)
            console.print(f"    known: {KNOWN[name][1]}" if name in KNOWN else "    not known")
    differing = sum(bool(row.differs) for row in found.values())
    known = sum(bool(row.differs) and name in KNOWN for name, row in found.items())
    console.print(f"{len(found)} compared, {differing} differ, {known} of them known")


@pytest.mark.parametrize("name", FILMS)
def test_a_films_samples_are_the_frames_that_ffmpeg_shows(
    name: str, tmp_path: Path, results: dict[str, Row]
) -> None:
    film = FILMS[name]
    path = film.make(tmp_path)
    (tmp_path / "same").mkdir()
    reference = _with_keys(shown(film.same(tmp_path / "same") if film.same else path), path)
    assert reference, "FFmpeg shows nothing"
    differs = {}
    for policy, fields in POLICIES.items():
        try:
            said = _difference(_taken(path, fields), reference, policy)
        except Exception as error:  # a table of all that fails is worth more than the first
            said = f"raises: {type(error).__name__} {error}"
        if said:
            differs[policy] = said
    _judge(name, Row(len(reference), differs), results)


@pytest.mark.parametrize("name", DAMAGED)
def test_of_a_damaged_film_all_that_is_shown_is_right_and_what_is_missing_is_told(
    name: str, tmp_path: Path, results: dict[str, Row]
) -> None:
    film = DAMAGED[name]
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    assert film.whole
    reference = shown(film.whole(tmp_path / "whole"))
    said = _loss(_taken(film.make(tmp_path / "damaged"), POLICIES["all"]), reference)
    _judge(name, Row(len(reference), {"all": said} if said else {}), results)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_what_ffmpeg_shows(name: str, tmp_path: Path, results: dict[str, Row]) -> None:
    path = IMAGES[name](tmp_path)
    (reference,) = shown(path)[:1]
    decoded = decode(path.read_bytes(), 10**8)
    if isinstance(decoded, str):
        said = f"error: {decoded}"
    else:
        said = _apart(np.asarray(decoded.image), reference.pixels)
    _judge(name, Row(1, {"all": said} if said else {}), results)


def _with_keys(reference: list[Shown], path: Path) -> list[Shown]:
    """Frames that know whether they are keyframes, of decoders as well that do not tell."""
    if any(each.key for each in reference):
        return reference
    keys = key_times(path)
    return [
        each._replace(key=any(abs(each.time - time) < _TIME_S for time in keys))
        for each in reference
    ]


def _judge(name: str, row: Row, results: dict[str, Row]) -> None:
    results[name] = row
    kinds = {_kind(said) for said in row.differs.values()}
    allowed, _ = KNOWN.get(name, (set(), ""))
    assert kinds <= allowed, row.differs
    # What a decoder makes of noise is not the same each time.
    assert kinds == allowed or name in DAMAGED, (
        f"no longer differs in {allowed - kinds}: take it out of KNOWN"
    )


def _kind(said: str) -> str:
    return said.partition(":")[0]


def _spec(fields: dict[str, Any]) -> AnnotateSpec:
    base = {"input": "x", "output": "y", "run_id": "z", "prompts": ["ocr"]}
    return AnnotateSpec.parse(base | {"video": fields})


def _taken(path: Path, fields: dict[str, Any]) -> list[Sample | FrameGap]:
    spec = _spec(fields)
    items = list(pieces([Item(str(path))], spec)) if "segment_s" in fields else [Item(str(path))]
    return [
        found._replace(picture=_kept(found.picture))  # decoders use their memory again
        if isinstance(found, Sample)
        else found
        for item in items
        for found in samples(item, Stored(()), spec)
        if found is not None
    ]


class _Kept(NamedTuple):
    """What a `Sample` shows."""

    pixels: NDArray[np.uint8]
    reduced: NDArray[np.uint8]
    """As the model is given it."""


def _kept(picture: Any) -> Any:
    whole = picture.upright()
    reduced = picture.reduced(_MODEL) if isinstance(picture, Frame) else whole
    return _Kept(np.asarray(whole), np.asarray(reduced))


def _difference(found: list[Sample | FrameGap], reference: list[Shown], policy: str) -> str:
    """What differs first; empty where nothing does."""
    ours = [each for each in found if isinstance(each, Sample)]
    reference = _running_on(reference)
    if threshold := POLICIES[policy].get("scenes"):
        wanted, unsure = _scenes(reference, threshold)
        ours = [each for each in ours if each.frame not in unsure]
    else:
        wanted = _wanted(POLICIES[policy], reference)
    indices = [each.frame for each in ours]
    if len(indices) != len(wanted):
        return f"frames: {len(indices)} for {len(wanted)}, {_first_other(indices, wanted)}"
    if any(n not in allowed for n, allowed in zip(indices, wanted, strict=True)):
        return f"frames: {_first_other(indices, wanted)}"
    for each in ours:
        there = reference[each.frame]
        if not abs(each.timestamp_s - there.time) <= _TIME_S:
            return f"times: {each.timestamp_s:.4f} for {there.time:.4f}"
        if said := _unlike(each, there):
            return said
    damages = [each for each in found if isinstance(each, FrameGap)]
    return f"errors: {len(damages)}, {damages[0].reason}" if damages else ""


def _running_on(reference: list[Shown]) -> list[Shown]:
    """Frames whose times go on by a frame where they would fall."""
    times = [each.time for each in reference]
    steps = sorted(b - a for a, b in pairwise(times))
    step = steps[len(steps) // 2] if steps else 0.0
    shift, found = 0.0, reference[:1]
    for each in reference[1:]:
        if each.time + shift < found[-1].time - _TIME_S:
            shift = found[-1].time + step - each.time
        found.append(each._replace(time=each.time + shift))
    return found


def _unlike(sample: Sample, there: Shown) -> str:
    """What differs in a sample's pictures."""
    kept: Any = sample.picture
    if said := _apart(kept.pixels, there.pixels):
        return f"{said} in {sample.frame}"
    height, width, _ = kept.reduced.shape
    levels = _levels(kept.reduced, _shrunk(there.pixels, (width, height)))
    return f"reduced: {levels:.1f} levels in {sample.frame}" if levels > _REDUCED_LEVELS else ""


def _first_other(indices: list[int], wanted: list[set[int]]) -> str:
    for place, (index, allowed) in enumerate(zip(indices, wanted, strict=False)):
        if index not in allowed:
            return f"sample {place} is {index}, not {min(allowed)}"
    return "the last are missing" if len(indices) < len(wanted) else "more at the end"


def _wanted(fields: dict[str, Any], reference: list[Shown]) -> list[set[int]]:
    """Which frames each sample may be, by what FFmpeg shows alone."""
    times = [each.time - reference[0].time for each in reference]
    if stride := fields.get("every_frames"):
        return [{n} for n in range(0, len(times), stride)]
    if every := fields.get("every_s"):
        first: dict[int, int] = {}
        for n, time in enumerate(times):
            first.setdefault(math.floor(time / every), n)
        return [{n} for n in first.values()]
    if fields.get("keyframes"):
        return [{n} for n, each in enumerate(reference) if each.key]
    count = fields["count"]
    step = max((b - a for a, b in pairwise(times)), default=1.0)
    wanted = []
    for k in range(count):  # the end of the last frame is not known for sure
        early, late = (k * end / count for end in (times[-1], times[-1] + step))
        first_there = max(0, bisect_right(times, early - _TIME_S) - 1)
        wanted.append(set(range(first_there, bisect_right(times, late + _TIME_S) + 1)))
    return wanted


def _scenes(reference: list[Shown], threshold: float) -> tuple[list[set[int]], set[int]]:
    """Where scenes begin for sure, and where rounding decides."""
    small = [_shrunk(each.pixels, (SMALL, SMALL)) for each in reference]
    jumps = [distance(a, b) for a, b in pairwise(small)]
    begin = [{n + 1} for n, jump in enumerate(jumps) if jump > threshold + _SURE]
    return [{0}, *begin], {n + 1 for n, jump in enumerate(jumps) if abs(jump - threshold) <= _SURE}


def _shrunk(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _loss(found: list[Sample | FrameGap], reference: list[Shown]) -> str:
    """What is wrong in a damaged film, or missing and not told."""
    damages = [each for each in found if isinstance(each, FrameGap)]
    times = [each.time for each in reference]
    seen = set()
    for each in found:
        if isinstance(each, FrameGap):
            continue
        at = [n for n, time in enumerate(times) if abs(time - each.timestamp_s) < _TIME_S]
        if not at:
            return f"times: none is shown at {each.timestamp_s:.4f}"
        if each.frame != at[0]:
            return f"index: {each.frame} for {at[0]}"
        if said := _unlike(each, reference[at[0]]):
            return said
        seen.add(at[0])
    for n in sorted(set(range(len(reference))) - seen):
        time = reference[n].time
        if not any(d.after < time and (d.until is None or time < d.until) for d in damages):
            return f"untold: {n} is missing"
    return ""


def _apart(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> str:
    if ours.shape != theirs.shape:
        return f"size: {ours.shape[1]} x {ours.shape[0]} for {theirs.shape[1]} x {theirs.shape[0]}"
    small = [_shrunk(each, (each.shape[1] // 4, each.shape[0] // 4)) for each in (ours, theirs)]
    levels, shrunk = _levels(ours, theirs), _levels(*small)
    if levels > _LEVELS or shrunk > _SHRUNK_LEVELS:
        return f"pixels: {levels:.1f} levels, shrunk {shrunk:.1f}"
    return ""


def _levels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())
