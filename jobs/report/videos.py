"""What the report shows of videos: some of the sampled frames, and a line of the answers' times."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from markupsafe import escape

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.jobs.media.decoding import ChosenFramesTask
from paliflow.jobs.media.readahead import ReadAhead
from paliflow.jobs.media.reader import task_reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.report.answers import COLORS, answer, data_uri, redacted
from paliflow.jobs.runs.outputs import evenly_spaced
from paliflow.jobs.runs.plan import Item, read_plan, read_shard

_FILMS = 6
_BROKEN = 2
_STILLS = 12
"""Pictures a video; a clip is several."""
_PIXELS = 320
_ROWS = 1000
"""Of a video, which is shown up to there."""
_ROWS_A_STILL = 12
_PROBLEMS = 4
_TEXT = 80
"""Characters of an answer on the time line."""
_MAX_BYTES = 700_000
"""Of a video's pictures and answers, which leave off there."""
_TIMEOUT_S = 20.0
_READERS = 4
_SHOWN = [
    *("frame_index", "timestamp_s", "task", "prompt", "text", "detections", "status", "error"),
]


class _Film(NamedTuple):
    """Rows of one video that follow each other."""

    rows: pa.Table
    numbers: list[int]
    """Which of the rows."""
    shards: set[int]
    broken: bool


class _Row(NamedTuple):
    """What the time line needs of a row."""

    frame: int | None
    time: float | None
    prompt: str
    boxes: int | None
    """How many were found; None where none were asked for."""
    text: str
    error: str | None


def films_of(
    summary: RunSummary,
    stretches: Sequence[tuple[pa.Table, list[int]]],
    colors: Mapping[str, str],
    redact: Callable[[bytes], bytes] | None = None,
) -> list[dict[str, Any]]:
    """Sampled videos: each some of its frames with their answers, and when what was answered.

    Args:
        summary: the run's.
        stretches: consecutive rows of the run, and which shard each comes from.
        colors: of the labels.
        redact: changes JPEGs before they are shown.
    """
    good: list[_Film] = []
    bad: list[_Film] = []
    for rows, shards in stretches:
        films = list(_films(rows, shards))
        for broken, into in ((False, good), (True, bad)):
            of_kind = [film for film in films if film.broken == broken]
            into += evenly_spaced(of_kind, -(-_FILMS // len(stretches)))
    bad = evenly_spaced(bad, max(_BROKEN, _FILMS - len(good)))
    films = evenly_spaced(good, _FILMS - len(bad)) + bad
    chosen = [_chosen(film) for film in films]
    frames = _read_frames(summary, films, [_moments(inputs) for inputs in chosen])
    read = [{number: redacted(image, redact) for number, image in own.items()} for own in frames]
    return [_shown(*each, colors) for each in zip(films, chosen, read, strict=True)]


def clock(seconds: float) -> str:
    """A time in a video, e.g. 1:02.50."""
    hundredths = round(abs(seconds) * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 and hundredths else ""
    whole = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{sign}{whole}:{rest // 100:02d}.{rest % 100:02d}"


def _films(rows: pa.Table, shards: list[int]) -> Iterator[_Film]:
    """A stretch's videos: of one that is in several pieces, those that follow each other."""
    columns = (rows[name].to_pylist() for name in ("source_uri", "id", "frame_index"))
    status = rows["status"].to_pylist()

    def film(numbers: list[int]) -> _Film:
        broken = any(status[number] == "error" for number in numbers)
        return _Film(rows, numbers, {shards[number] for number in numbers}, broken)

    before, last = None, -1
    numbers: list[int] = []
    for number, (uri, name, frame) in enumerate(zip(*columns, strict=True)):
        # A manifest may name a video twice.
        if numbers and ((uri, name) != before or (frame is not None and frame < last)):
            yield film(numbers[:_ROWS])
            numbers, last = [], -1
        before = uri, name
        numbers.append(number)
        last = last if frame is None else frame
    if numbers:
        yield film(numbers[:_ROWS])


def _chosen(film: _Film) -> list[list[dict[str, Any]]]:
    """The rows of some frames or clips, evenly spread."""
    frames = film.rows["frame_index"].take(film.numbers).to_pylist()
    inputs: dict[int, list[int]] = {}
    for number, frame in zip(film.numbers, frames, strict=True):
        if frame is not None:
            inputs.setdefault(frame, []).append(number)
    some = evenly_spaced(list(inputs.values()), _STILLS)
    rows = [film.rows.take(numbers[:_ROWS_A_STILL]).to_pylist() for numbers in some]
    longest = max((len(own[0].get("clip_frames") or [0]) for own in rows), default=1)
    return evenly_spaced(rows, max(1, _STILLS // longest))


def _moments(inputs: list[list[dict[str, Any]]]) -> list[list[tuple[int, float]]]:
    """Index and time of each frame to show, by input."""
    found = []
    for rows in inputs:
        frames = evenly_spaced(rows[0].get("clip_frames") or rows[:1], _STILLS)
        found.append([(frame["frame_index"], frame["timestamp_s"]) for frame in frames])
    return found


def _read_frames(
    summary: RunSummary, films: list[_Film], moments: list[list[list[tuple[int, float]]]]
) -> list[dict[int, Input]]:
    """By the frames' indices, those of each video that could be read; at -1 why one could not."""
    limits = {"read_timeout": _TIMEOUT_S, "video_timeout": _TIMEOUT_S}
    spec = AnnotateSpec.parse(summary.spec | limits)
    wanted = [sorted({frame for own in each for frame, _ in own}) for each in moments]
    items = [
        item._replace(id=str(number))  # tells whose frames they are
        for number, item in enumerate(_items(summary, films))
        if wanted[number]
    ]

    def read(item: Item) -> Iterable[Input | None]:
        own = tuple(wanted[int(item.id or 0)])
        return task_reader(ChosenFramesTask(spec=spec, wanted=own, side=_PIXELS), spec)(item)

    found: list[dict[int, Input]] = [{} for _ in films]
    depth = _READERS * (_STILLS + 1)  # so that no reader waits, whose time is limited
    with closing(ReadAhead(read, items, depth, _TIMEOUT_S, _READERS)) as inputs:
        for source in inputs:
            frame = source.moment.frame_index if source.moment else None
            found[int(source.item.id or 0)][-1 if frame is None else frame] = source
    return found


def _items(summary: RunSummary, films: list[_Film]) -> Iterator[Item]:
    """The videos; the plan knows where in a tar one is, and the images that another is made of."""
    shards = sorted(set().union(*(film.shards for film in films)))
    items: dict[str, Item] = {}
    if plan := read_plan(summary.location):
        with ThreadPoolExecutor(8) as pool:
            for planned in pool.map(partial(read_shard, summary.location, plan), shards):
                items |= {item.uri: item for item in planned}
    for film in films:
        uri = film.rows["source_uri"][film.numbers[0]].as_py()
        yield items.get(uri, Item(uri))


def _shown(
    film: _Film,
    inputs: list[list[dict[str, Any]]],
    read: dict[int, Input],
    colors: Mapping[str, str],
) -> dict[str, Any]:
    """What the template shows of one video."""
    rows = _rows(film)
    first = film.rows.slice(film.numbers[0], 1).to_pylist()[0]
    stills: list[dict[str, Any]] = []
    size = 0
    for own, moments in zip(inputs, _moments(inputs), strict=True):
        still = {
            "shots": [_shot(own[0], *moment, read) for moment in moments],
            "answers": [answer(row, colors) for row in own],
        }
        size += len(escape(repr(still)))
        if stills and size > _MAX_BYTES:
            break
        stills.append(still)
    # What concerns no single frame is told once, though each prompt has a row of it.
    problems = dict.fromkeys((row.time, row.error) for row in rows if row.frame is None)
    return {
        "uri": first["source_uri"],
        "id": first["id"],
        "clips": bool(first.get("clip_frames")),
        "inputs": len({row.frame for row in rows if row.frame is not None}),
        "stills": stills,
        "problems": [{"at": at, "error": error or ""} for at, error in islice(problems, _PROBLEMS)],
        **_lines(rows),
    }


def _shot(row: dict[str, Any], frame: int, at: float, read: dict[int, Input]) -> dict[str, Any]:
    """One picture, or why there is none."""
    image, missing = read.get(frame), None
    if image is None:
        missing = read[-1].error if -1 in read else "not there any more"
    elif abs((image.moment.timestamp_s if image.moment else 0) - at) > 1e-3 or (
        (image.width, image.height) != (row["width"], row["height"])
    ):
        missing = "has changed since the run"
    return {
        "at": at,
        "width": row["width"],
        "height": row["height"],
        "missing": missing,
        "image": "" if missing or not image else data_uri("jpeg", image.thumbnail or b""),
    }


def _rows(film: _Film) -> list[_Row]:
    found = []
    for row in film.rows.select(_SHOWN).take(film.numbers).to_pylist():
        boxes = row["task"] in ("detect", "segment")
        found.append(
            _Row(
                row["frame_index"],
                row["timestamp_s"],
                row["prompt"],
                len(row["detections"] or ()) if boxes else None,
                row["text"] or "",
                (row["error"] or "") if row["status"] == "error" else None,
            )
        )
    return found


def _lines(rows: list[_Row]) -> dict[str, Any]:
    """The time line: from when to when it goes, each prompt's parts, and where errors are."""
    timed = [row for row in rows if row.time is not None]
    times = np.unique([row.time for row in timed if row.frame is not None]).tolist()
    breaks = sorted({row.time for row in timed if row.frame is None and row.time is not None})
    if not times:
        return {"start": 0.0, "end": 0.0, "lines": [], "marks": []}
    # An answer holds until the next frame is asked; the last as long as they usually do.
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    until = dict(zip(times, [*times[1:], times[-1] + step], strict=True))
    for at in breaks:  # where frames are missing, it does not hold
        if held := [start for start in times if start <= at]:
            ends = at if at > held[-1] else held[-1] + step
            until[held[-1]] = min(until[held[-1]], ends)
    start: float = min([times[0], *breaks])
    end: float = max([until[times[-1]], *breaks])

    def left(at: float) -> float:
        return 100 * (at - start) / (end - start)

    lines = []
    for prompt in dict.fromkeys(row.prompt for row in timed):
        own = [row for row in timed if row.prompt == prompt and row.frame is not None]
        parts = list(_parts([row for row in own if row.error is None], until))
        for part in parts:
            part |= {"left": left(part["start"]), "width": left(part["end"]) - left(part["start"])}
        boxes = [row.boxes for row in own if row.boxes is not None]
        lines.append({"prompt": prompt, "parts": parts, "most": max(boxes, default=None)})
    marks = {
        (row.time, row.prompt, row.error)
        for row in rows
        if row.time is not None and row.error is not None
    }
    return {
        "start": start,
        "end": end,
        "lines": lines,
        "marks": [
            # A mark at an end stays whole.
            {"at": at, "left": min(max(left(at), 0.2), 99.8), "prompt": prompt, "error": error}
            for at, prompt, error in sorted(marks)
        ],
    }


def _parts(rows: list[_Row], until: Mapping[float, float]) -> Iterator[dict[str, Any]]:
    """The times in which a prompt's answer, or the number of its boxes, stayed the same."""
    most = max((row.boxes or 0 for row in rows), default=0)
    texts = dict.fromkeys(row.text for row in rows if row.boxes is None)
    colors = dict(zip(texts, cycle(COLORS), strict=False))
    part: dict[str, Any] | None = None
    for row in rows:
        assert row.time is not None
        said = row.text if row.boxes is None else row.boxes
        if part and part["said"] == said and part["end"] == row.time:
            part["end"] = until[row.time]
            continue
        if part:
            yield part
        text = row.text if row.boxes is None else str(row.boxes)
        part = {
            "said": said,
            "text": text if len(text) <= _TEXT else text[:_TEXT] + "…",
            "color": colors.get(row.text) if row.boxes is None else None,
            "height": 100.0 if row.boxes is None else 100 * row.boxes / max(most, 1),
            "start": row.time,
            "end": until[row.time],
        }
    if part:
        yield part
