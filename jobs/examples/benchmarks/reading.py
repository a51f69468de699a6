"""A benchmark's files to examples: parts and splits, templates, what is right."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import Benchmark, Prepared, benchmark
from paliflow.configs.examples import EvaluationSet, ExampleSource
from paliflow.configs.log_lines import say
from paliflow.jobs.examples.benchmarks import captions, faces, questions, regions
from paliflow.jobs.examples.benchmarks.files import Data
from paliflow.jobs.examples.benchmarks.prepared import is_prepared
from paliflow.jobs.examples.benchmarks.rows import Files, Row, read_rows
from paliflow.jobs.examples.benchmarks.templates import fill, fill_known
from paliflow.jobs.examples.example import Example, utf8
from paliflow.jobs.media.places import is_place
from paliflow.jobs.sources.columns import CELL

Read = Callable[[Files, Mapping[str, str]], Iterator[Row | str]]
"""Takes the URIs of a part's files and what templates may name there."""
READERS: Mapping[str, Read] = {
    "activitynet_cap": captions.activitynet_cap,
    "ai2d": questions.ai2d,
    "coco35l": captions.coco35l,
    "countbenchqa": questions.countbenchqa,
    "fairface": faces.fairface,
    "mmvp": questions.mmvp,
    "msvd_qa": questions.msvd_qa,
    "nlvr2": questions.nlvr2,
    "ocrvqa": questions.ocrvqa,
    "refcoco": regions.refcoco,
    "scicap": captions.scicap,
    "scienceqa": questions.scienceqa,
    "screen2words": captions.screen2words,
    "widgets": captions.widgets,
    "xm3600": captions.xm3600,
}
"""Readers of forms that `records` cannot read, by name."""


class Part(NamedTuple):
    """A split of a benchmark, or its part in one language, from one list of files."""

    split: str
    values: Mapping[str, str]
    """What templates may name besides a row's own fields."""
    group: Mapping[str, list[str]]
    """The group that all of its rows are in."""
    answered: bool
    """Whether its files say what is right."""


def parts_of(known: Benchmark, splits: str | None) -> list[Part]:
    """The parts of some splits.

    Args:
        known: the benchmark.
        splits: names with `+` between them; the evaluated one if not given.

    Raises:
        SpecError: there is no such split.
    """
    parts, names = [], (splits or known.split).split("+")
    several = len(names) > 1
    for split in names:
        if split not in known.splits:
            raise SpecError(f"split={splits!r}: there are {', '.join(known.splits)}")
        values = {"split": split, **known.splits[split]}
        answered = split not in known.unanswered and not known.scorer
        group = {"split": [split]} if several else {}
        if not known.parts:
            parts.append(Part(split, values, group, answered))
        for name, members in known.parts.items():
            for member in members:
                own = {**values, name: member}
                parts.append(Part(split, own, {**group, name: [member]}, answered))
    return parts


def locate(known: Benchmark, part: Part, data: Data) -> tuple[dict[str, str], dict[str, str]]:
    """The files of a part: the URIs of those that are there, and the paths of those that lack.

    Raises:
        ValueError: what describes a prepared folder is broken.
        OSError: a folder or an archive cannot be read.
    """
    found, missing = {}, {}
    unneeded: set[str] = set()
    turned = known.rows.turned if known.rows else None
    if known.rows and not part.answered:
        unneeded = {join.file for join in known.rows.join} - {known.rows.file}
    for role, paths in known.files.items():
        if role in unneeded:
            continue
        filled = [fill(path, part.values) for path in _listed(paths)]
        if uri := data.find(filled):
            found[role] = uri
        elif turned and role == turned.file:
            say(f"no image is turned: {data.folder} lacks {' or '.join(filled)}", "warning")
        else:
            missing[role] = " or ".join(filled)
    for role, path in known.folders.items():
        folder = fill(path, part.values)
        if uri := data.find_folder(folder):
            found[role] = uri
        else:
            missing[role] = f"{folder}/"
    if missing and known.prepared and (uri := data.find_prepared(known.prepared, part.values)):
        return {known.prepared.rows.file: uri}, {}
    return found, missing


def benchmark_examples(source: ExampleSource) -> Iterator[Example | str]:
    """The examples of a benchmark's split; a record that is none is a reason.

    Ids are those of the benchmark, below the names of splits and parts where there are several.

    Args:
        source: its `path` is the data's folder.

    Raises:
        SpecError: a file is missing, or there is no such split.
        ValueError: a file is not in its official form, or an archive is broken.
        OSError: a file cannot be read.
    """
    assert source.benchmark
    known = benchmark(source.benchmark)
    data, parts = Data(source.path, source.benchmark), parts_of(known, source.split)
    seen: set[str] = set()
    for part in parts:
        found, missing = locate(known, part, data)
        if data.broken:  # what lacks may be in it
            raise ValueError("; ".join(data.broken))
        if missing:
            raise SpecError(
                f"benchmark {source.benchmark!r}, split {part.split!r}: {data.folder} lacks "
                f"{', '.join(missing.values())}; `paliflow benchmarks check` says all that lacks"
            )
        rows = _rows(known, found, part)
        images = [data.images(fill_known(image, part.values)) for image in _listed(known.images)]
        names = [value for own in part.group.values() for value in own]
        for row in rows:
            if isinstance(row, str):
                yield row
                continue
            example = _example(row, "/".join([*names, row.id]), known, part, images, source, data)
            if isinstance(example, Example) and example.id in seen:
                yield "a row whose id another has"
                continue
            if isinstance(example, Example):
                seen.add(example.id)
            yield example


def _example(
    row: Row,
    name: str,
    known: Benchmark,
    part: Part,
    images: list[str],
    source: ExampleSource,
    data: Data,
) -> Example | str:
    fields = {**part.values, **row.fields}
    try:
        prefix = fill(known.prefix, fields, known.joined)
        named = [fill(image, fields) for image in (() if row.images else images)]
    except ValueError as error:
        return str(error)
    if any(".." in path.split("/") or is_place(path) for path in named):
        return "an image's path leads out of its folder"
    paths = row.images or tuple(map(data.image, named))
    # Blank answers are none of big_vision's either. All else stays as it was written.
    answers = tuple(answer for answer in row.answers if answer)
    if part.answered and not answers:
        return "no answer"
    edit = row.edit.model_dump_json(exclude_defaults=True) if row.edit else None
    if any(len(each) > CELL for each in (prefix, *paths, *answers, edit or "")):
        return f"a text of more than {CELL} characters"
    if known.lower and not isinstance(source, EvaluationSet):
        answers = tuple(answer.lower() for answer in answers)
    details = {"groups": {**part.group, **row.groups}, **row.details}
    return Example(
        utf8(name),
        tuple(map(utf8, paths)),
        utf8(prefix),
        tuple(map(utf8, answers)) if part.answered else (),
        details=json.dumps(details, ensure_ascii=True),
        edit=edit,
    )


def _rows(known: Benchmark, files: Files, part: Part) -> Iterator[Row | str]:
    if (how := known.prepared) and is_prepared(files.get(how.rows.file, "")):
        for row in read_rows(how.rows, files, part.values, answered=part.answered):
            yield row if isinstance(row, str) else _with_image(row, how)
    elif known.rows:
        yield from read_rows(known.rows, files, part.values, answered=part.answered)
    else:
        yield from READERS[known.reader](files, part.values)


def _with_image(row: Row, how: Prepared) -> Row | str:
    """A row of a prepared record, with the names that the prompt knows."""
    images = tuple(row.fields[how.image])
    if not images:
        return "no image"
    known = {new: row.fields.get(old, []) for new, old in how.names.items()}
    return row._replace(fields={**row.fields, **known}, images=images)


def _listed(paths: str | tuple[str, ...]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else paths
