"""The examples of a run, written once before it starts: a resumed run draws the same ones."""

import tempfile
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate, islice
from typing import Any, BinaryIO, Literal, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from paliflow import storage
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.examples import EvaluationSet, ExampleSource
from paliflow.configs.finetune import FineTuneSpec
from paliflow.configs.run import InputsSpec
from paliflow.configs.schema import EXAMPLES
from paliflow.jobs.examples.example import Example
from paliflow.jobs.examples.sources import image_roots, read_examples
from paliflow.jobs.runs.error_limits import ErrorLimits
from paliflow.jobs.runs.outputs import evenly_spaced
from paliflow.jobs.runs.parts import REASONS
from paliflow.jobs.runs.plan import plan_uri
from paliflow.jobs.runs.records import commit_spec, find_spec

_ROWS_AT_ONCE = 8192


class PlannedSource(Spec):
    """One source of a plan."""

    name: str
    examples: int
    """At least one."""
    weight: float
    errors: int
    """Rows that are no examples."""
    reasons: dict[str, int]
    """Why not, and how many: the most common."""
    roots: tuple[str, ...] | None = None
    """See `image_roots`."""
    found: int | None = None
    """The examples of which `max_examples` were taken."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """What was left out without being an error, and how many."""


class ExamplePlan(Spec):
    """`_plan/plan.json`: written when all sources are."""

    kind: Literal["evaluate", "finetune"]
    spec: dict[str, Any]
    """The run's spec as JSON."""
    folder: str
    """The folder of the plan's Parquet files, one a source, in `_plan/`."""
    sources: tuple[PlannedSource, ...]

    def source(self, name: str) -> PlannedSource:
        """
        Raises:
            KeyError: there is none of this name.
        """
        return self.sources[self.number(name)]

    def dropped(self) -> list[str]:
        """What each source has left out without its being an error, in a line each."""
        return [
            f"{source.name}: {count} x {reason} left out"
            for source in self.sources
            for reason, count in source.dropped.items()
        ]

    def number(self, name: str) -> int:
        """Where in `sources` the one of this name is.

        Raises:
            KeyError: there is none.
        """
        for number, source in enumerate(self.sources):
            if source.name == name:
                return number
        raise KeyError(name)


def training_name(number: int) -> str:
    """What a plan calls the source `train[number]` of a spec."""
    return f"train/{number}"


def sources_of(spec: FineTuneSpec) -> dict[str, ExampleSource]:
    """All sources of a spec by their names in its plan; validation sets keep theirs."""
    train = {training_name(number): source for number, source in enumerate(spec.train)}
    return {**train, **spec.validation}


LeaveOut = Callable[[Example], str | None]
"""Why an example is none of the plan; None if it is."""


def write_examples(
    run: str,
    sources: Mapping[str, ExampleSource],
    spec: InputsSpec,
    leave_out: LeaveOut | None = None,
) -> ExamplePlan:
    """Reads all sources and writes what they hold, unless that is done.

    Of two that plan the same run, the first to finish decides for both. Nothing is written before
    all is read.

    Args:
        run: the run's folder.
        sources: streamed, by the names that the plan gives them; of an `EvaluationSet`,
            `max_examples` of them are taken, evenly spread.
        spec: its error limits count the rows of all sources together.
        leave_out: of sources that are learnt from.

    Raises:
        SpecError: a source cannot be read, or has no example in it.
        ErrorLimitError: too many rows are no examples.
        OSError: a storage fails in a way that may pass.
    """
    if plan := read_plan(run):
        return plan
    limits = ErrorLimits(spec)
    planned, files = [], []
    with ExitStack() as stack:
        for name, source in sources.items():
            file = stack.enter_context(tempfile.TemporaryFile())
            wanted = None if isinstance(source, EvaluationSet) else leave_out
            found = _write_source(file, name, source, spec, limits, wanted)
            most = source.max_examples if isinstance(source, EvaluationSet) else None
            if most is not None and most < found.examples:
                fewer = stack.enter_context(tempfile.TemporaryFile())
                _spread_rows(file, fewer, most)
                counts = {"examples": most, "found": found.examples}
                file, found = fewer, found.model_copy(update=counts)
            planned.append(found)
            files.append(file)
        limits.check()
        written = spec.model_dump(mode="json")
        plan = ExamplePlan(
            kind=written["kind"],
            spec=written,
            folder=uuid.uuid4().hex,
            sources=tuple(planned),
        )
        for number, file in enumerate(files):
            storage.commit_if_absent(_file_uri(run, plan, number), file)
    settled = commit_spec(plan_uri(run), plan)
    if settled is not plan:
        for number in range(len(files)):
            storage.delete(_file_uri(run, plan, number))
    return settled


def read_plan(run: str) -> ExamplePlan | None:
    """A run's plan, None while there is none."""
    return find_spec(plan_uri(run), ExamplePlan)


def open_examples(run: str, plan: ExamplePlan, name: str) -> Sequence[Example]:
    """One source's examples in order; what is not looked at stays in a temporary file.

    Raises:
        KeyError: the plan has no such source.
    """
    with tempfile.NamedTemporaryFile() as file:
        with storage.open_binary(_file_uri(run, plan, plan.number(name))) as content:
            table = pq.ParquetFile(content)
            with pa.ipc.new_file(file, table.schema_arrow) as out:
                for batch in table.iter_batches(_ROWS_AT_ONCE):
                    out.write_batch(batch)
        file.flush()
        # The map outlives the file's name.
        return _Examples(pa.ipc.open_file(pa.memory_map(file.name)))


class _Examples(Sequence[Example]):
    def __init__(self, file: pa.ipc.RecordBatchFileReader) -> None:
        self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        self._ends: list[int] = list(accumulate(batch.num_rows for batch in self._batches))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Example]:
        for batch in self._batches:
            yield from map(_example, batch.to_pylist())

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        batch = self._batches[number]
        (row,) = batch.slice(index - self._ends[number] + batch.num_rows, 1).to_pylist()
        return _example(row)


def _example(row: Mapping[str, Any]) -> Example:
    size = row.get("size")  # which a plan of an older version has not, nor what follows
    return Example(
        row["id"],
        tuple(row["images"]),
        row["prefix"],
        tuple(row["suffixes"]),
        (size[0], size[1]) if size else None,
        row.get("details"),
        row.get("edit"),
    )


def _write_source(
    file: BinaryIO,
    name: str,
    source: ExampleSource,
    spec: InputsSpec,
    limits: ErrorLimits,
    leave_out: LeaveOut | None,
) -> PlannedSource:
    examples, reasons, dropped = 0, Counter[str](), Counter[str]()
    rows = read_examples(
        source, spec.https_hosts, spec.allowed_roots, spec.max_error_fraction, dropped
    )
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), EXAMPLES, compression="zstd") as out:
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            good = [row for row in chunk if isinstance(row, Example)]
            bad = Counter(row for row in chunk if isinstance(row, str))
            examples, reasons = examples + len(good), reasons + bad
            limits.add(len(chunk), bad.total(), bad)
            if leave_out:
                unwanted = [leave_out(example) for example in good]
                dropped.update(filter(None, unwanted))
                good = [each for each, reason in zip(good, unwanted, strict=True) if not reason]
                examples -= len(unwanted) - len(good)
            if good:
                columns = map(list, zip(*good, strict=True))
                out.write_table(pa.table(list(columns), schema=EXAMPLES))
    common = dict(reasons.most_common(REASONS))
    if not examples:
        why = "; ".join(f"{count} x {reason}" for reason, count in (common | dropped).items())
        raise SpecError(f"path={source.path!r}: no example in it ({why or 'nothing there'})")
    return PlannedSource(
        name=name,
        examples=examples,
        weight=source.weight,
        errors=reasons.total(),
        reasons=common,
        roots=image_roots(source, spec.allowed_roots),
        dropped=dict(dropped.most_common()),
    )


def _spread_rows(file: BinaryIO, target: BinaryIO, count: int) -> None:
    """Copies so many of a Parquet file's rows, evenly spaced."""
    table = pq.ParquetFile(file)
    chosen = iter(evenly_spaced(range(table.metadata.num_rows), count))
    wanted = next(chosen, None)
    with pq.ParquetWriter(pa.PythonFile(target, mode="w"), EXAMPLES, compression="zstd") as out:
        start = 0
        for batch in table.iter_batches(_ROWS_AT_ONCE):
            own = []
            while wanted is not None and wanted < start + batch.num_rows:
                own.append(wanted - start)
                wanted = next(chosen, None)
            out.write_batch(batch.take(pa.array(own, pa.int64())))
            start += batch.num_rows


def _file_uri(run: str, plan: ExamplePlan, number: int) -> str:
    return f"{run}/_plan/{plan.folder}/{number:05d}.parquet"
