"""The scoreboard: figures of benchmarks beside the published ones, several checkpoints at once."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jinja2 import Environment, StrictUndefined

from paliflow import storage
from paliflow.configs import EvaluateSummary
from paliflow.configs.base import SpecError, printable
from paliflow.configs.benchmark import Benchmark, Figure, benchmark
from paliflow.configs.summary import SetSummary
from paliflow.jobs.evaluate.results import Run, paired_parts, read_evaluation
from paliflow.metrics import paired_bootstrap_interval

State = Literal["equal", "different", "incomparable"]
"""Whether the published figure lies in the interval, or why nothing can be said."""


class Gain(NamedTuple):
    """A difference of two checkpoints, in the unit of the published figure."""

    value: float
    low: float
    high: float
    """The bounds of its 95 % interval, by a bootstrap that draws the same images for both."""


class Entry(NamedTuple):
    """One figure of one checkpoint."""

    benchmark: str
    title: str
    figure: str
    checkpoint: str
    resolution: int | None
    measured: float | None
    """In the unit of the published figure; None where coverage is too low."""
    low: float | None
    high: float | None
    published: float | None
    coverage: float
    rows: int
    state: State
    why: str
    """Why it is incomparable; empty of others."""
    run: Run
    """Where its answers are kept."""
    gain: Gain | None = None
    """By how much it differs from the first checkpoint's, if both were asked the same."""

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published


class Line(NamedTuple):
    """A figure of several checkpoints."""

    benchmark: str
    title: str
    figure: str
    published: dict[str, float]
    """By variant."""
    entries: tuple[Entry | None, ...]
    """One of each checkpoint; None where it has not been asked."""


class Scoreboard(NamedTuple):
    """All lines, and the checkpoints that are their columns."""

    checkpoints: tuple[str, ...]
    lines: tuple[Line, ...]


def read_scoreboard(runs: Iterable[str], family: str = "pt") -> Scoreboard:
    """The scoreboard of finished evaluations.

    Args:
        runs: folders of runs, or of outputs whose runs all count.
        family: of the published models that figures are compared with, `pt` or `mix`.

    Raises:
        SpecError: there is no finished evaluation of a benchmark.
    """
    entries = []
    for location in runs:
        for run in _runs_at(storage.absolute(location)):
            summary = read_evaluation(run).summary.model_copy(update={"location": run})
            entries += list(entries_of(summary, family))
    if not entries:
        raise SpecError(f"{', '.join(runs)}: no finished evaluation of a benchmark there")
    board = arranged(entries)
    return board._replace(lines=tuple(map(_with_gains, board.lines)))


def _with_gains(line: Line) -> Line:
    """A line whose entries say how far each is from the first."""
    first, *others = line.entries
    if first is None:
        return line
    return line._replace(entries=(first, *(own and _compared(own, first) for own in others)))


def _compared(own: Entry, first: Entry) -> Entry:
    if own.measured is None or first.measured is None:
        return own
    pair = paired_parts(own.run, first.run, [own.figure]).get(own.figure)
    if not pair:
        return own
    scale = {figure.name: figure.scale for figure in benchmark(own.benchmark).figures}[own.figure]
    low, high = paired_bootstrap_interval(*pair)
    return own._replace(gain=Gain(own.measured - first.measured, low * scale, high * scale))


def entries_of(summary: EvaluateSummary, family: str = "pt") -> Iterator[Entry]:
    """The figures of an evaluation's benchmarks; its `location` is where it lies now."""
    for name, own in summary.sets.items():
        if own.benchmark:
            known = benchmark(own.benchmark)
            for figure in known.figures:
                yield _entry(summary, name, own, known, figure, family)


def arranged(entries: Sequence[Entry]) -> Scoreboard:
    """A line for each figure and a column for each checkpoint; the newest of two entries counts."""
    names = _shortest({entry.checkpoint for entry in entries})

    def column(entry: Entry) -> str:
        name = names[entry.checkpoint]
        return f"{name} at {entry.resolution}" if entry.resolution else name

    columns = tuple(dict.fromkeys(map(column, entries)))
    cells = {(entry.benchmark, entry.figure, column(entry)): entry for entry in entries}
    lines = []
    for name, figure in dict.fromkeys((entry.benchmark, entry.figure) for entry in entries):
        known = benchmark(name)
        published = {
            variant: figures[figure]
            for variant, figures in known.published.items()
            if figure in figures
        }
        own = tuple(cells.get((name, figure, each)) for each in columns)
        lines.append(Line(name, known.title, figure, published, own))
    return Scoreboard(columns, tuple(lines))


def as_markdown(board: Scoreboard) -> str:
    """The scoreboard as a table in Markdown."""
    head = ["benchmark", "figure", "published", *board.checkpoints]
    rows = [head]
    for line in board.lines:
        published = ", ".join(f"{variant} {value:g}" for variant, value in line.published.items())
        rows.append([line.benchmark, line.figure, published or "-", *map(cell, line.entries)])
    told = [[_in_markdown(each) for each in row] for row in rows]
    told.insert(1, ["---"] * len(head))
    return "".join(f"| {' | '.join(row)} |\n" for row in told)


def _in_markdown(text: str) -> str:
    return printable(text).replace("|", r"\|").replace("<", "&lt;")


def as_html(board: Scoreboard) -> str:
    """The scoreboard as a page that needs no other file."""
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template.filters.update(said=said, gained=gained)
    page = Path(__file__).with_name("scoreboard.html.j2").read_text(encoding="utf-8")
    return template.from_string(page).render(board=board)


def said(entry: Entry | None) -> str:
    """An entry in a cell: the figure, its interval, the difference to the published one, and why it
    cannot be compared."""
    if entry is None:
        return "-"
    if entry.measured is None:
        return f"no figure: {entry.why}"
    digits = 3 if entry.measured < 2 and (entry.published or 0) < 2 else 2
    text = f"{entry.measured:.{digits}f}"
    if entry.low is None or entry.high is None:
        text += " by the server"
    else:
        text += f" [{entry.low:.{digits}f}, {entry.high:.{digits}f}]"
    if entry.difference is not None:
        text += f" {entry.difference:+.{digits}f}"
    if entry.why:
        text += f" ({entry.why})"
    return text


def gained(entry: Entry | None) -> str:
    """How far an entry is from the first checkpoint's, and the interval; empty if nobody knows."""
    if entry is None or entry.gain is None or entry.measured is None:
        return ""
    value, low, high = entry.gain
    digits = 3 if entry.measured < 2 and (entry.published or 0) < 2 else 2
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] from the first"


def cell(entry: Entry | None) -> str:
    """All that is said of an entry."""
    return "; ".join(filter(None, (said(entry), gained(entry))))


def _runs_at(location: str) -> list[str]:
    """A run's folder, or the folders of an output's finished runs by their ids."""
    if storage.is_file(f"{location}/_manifest.json"):
        return [location]
    found = storage.match(f"{location}/run_id=*/_manifest.json")
    return sorted(entry.uri.rpartition("/")[0] for entry in found)


def _shortest(paths: Collection[str]) -> dict[str, str]:
    """Of each path as much of its end as tells it from the others: most are called model.npz."""
    parts = {path: path.split("/") for path in paths}
    depth = 1
    while len({tuple(own[-depth:]) for own in parts.values()}) < len(paths):
        depth += 1
    return {path: "/".join(own[-depth:]) for path, own in parts.items()}


def _entry(
    summary: EvaluateSummary,
    name: str,
    own: SetSummary,
    known: Benchmark,
    figure: Figure,
    family: str,
) -> Entry:
    value = summary.figures.get(f"{name}/{figure.name}")
    low, high = own.intervals.get(figure.name, (None, None))
    published = known.published.get(f"{family}-{summary.image_size}", {}).get(figure.name)
    scale = figure.scale
    given = summary.server.get(f"{name}/{figure.name}")
    measured = given if value is None else value * scale
    entry = Entry(
        benchmark=own.benchmark or name,
        title=known.title,
        figure=figure.name,
        checkpoint=summary.checkpoint.rstrip("/"),
        resolution=summary.image_size,
        measured=measured,
        low=None if low is None else low * scale,
        high=None if high is None else high * scale,
        published=published,
        coverage=own.coverage,
        rows=own.rows,
        state="incomparable",
        run=(summary.location, name),
        why=_why_not(own, known, published),
    )
    if entry.why or measured is None:
        return entry
    assert published is not None
    # Of a server's score no interval is known.
    inside = (entry.low or measured) <= published <= (entry.high or measured)
    return entry._replace(state="equal" if inside else "different")


def _why_not(own: SetSummary, known: Benchmark, published: float | None) -> str:
    """Why a figure cannot be compared with the published one; empty if it can."""
    reasons = []
    rows = own.rows if own.split in known.unanswered else own.scored
    if own.note:
        reasons.append(own.note)
    if published is None:
        reasons.append("nothing is published of this")
    elif own.split != known.published_split:
        reasons.append(f"of {own.split}, published of {known.published_split}")
    elif known.published_rows and rows != known.published_rows:
        reasons.append(f"of {rows:,} rows, published of {known.published_rows:,}")
    if own.coverage < 1:
        reasons.append(f"coverage {own.coverage:.1%}")
    return "; ".join(reasons)
