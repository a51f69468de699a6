"""Readers of question answering files that are no lists of records."""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paliflow import storage
from paliflow.jobs.examples.benchmarks.files import Record, records, text_lines
from paliflow.jobs.examples.benchmarks.rows import Files, Row
from paliflow.jobs.media.edits import Edit, Label
from paliflow.jobs.media.places import row_place

_LIMIT = 2**24
"""Bytes of the file of a diagram's questions, or of its annotation."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTIONS = re.compile(r"\(a\)(.*)\(b\)(.*)", re.DOTALL)


def ocrvqa(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """OCR-VQA: of each book several questions, with an answer each, one below the other."""
    for book in records(files["books"]):
        if str(book.get("split")) != values["number"]:
            continue
        asked, answers = book.get("questions"), book.get("answers")
        if not isinstance(asked, list) or not isinstance(answers, list):
            yield "a book without lists of questions and answers"
        elif len(asked) != len(answers):
            yield "a book with more questions than answers, or fewer"
        else:
            for number, (question, answer) in enumerate(zip(asked, answers, strict=True)):
                fields = {"book": book["key"], "question": question}
                yield Row(f"{book['key']}-{number}", fields, (str(answer),), {}, {})


def scienceqa(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """ScienceQA: the problems of a split that have an image; an empty hint is `N/A`."""
    problems = {record["key"]: record for record in records(files["problems"])}
    splits = {record["key"]: record["value"] for record in records(files["splits"])}
    for key in splits[values["split"]]:
        problem = problems.get(str(key))
        if problem is None:
            yield "no such problem as the split lists"
        elif problem.get("image"):
            yield _problem(problem)


def countbenchqa(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """CountBenchQA: a Parquet file of images and their numbers, and a list of questions in the same
    order; where the image is null, which is gone, there is no row.

    Raises:
        ValueError: there are not as many questions as rows, or a column lacks.
    """
    questions = list(records(files["questions"]))
    with storage.open_binary(files["images"]) as content:
        try:
            table = pq.ParquetFile(content).read(["number", "image.bytes"])
        except (pa.ArrowException, KeyError) as error:
            raise ValueError(f"the file of images is broken: {error}") from None
        if not {"number", "image"} <= set(table.column_names):
            raise ValueError("the file of images has no columns number and image.bytes")
    if table.num_rows != len(questions):
        raise ValueError(
            f"{len(questions)} questions of {table.num_rows} images: they are joined by their order"
        )
    there = pc.is_valid(pc.struct_field(table["image"], "bytes")).to_pylist()
    numbers = table["number"].to_pylist()
    for row, (record, number, found) in enumerate(zip(questions, numbers, there, strict=True)):
        if not found:
            continue
        if not record.get("question"):
            yield "no question"
            continue
        image = row_place(files["images"], row, "image.bytes")
        own = {"count": [str(number)]}
        yield Row(str(row), record, (str(number),), own, {}, images=(image,))


def _problem(problem: Record) -> Row | str:
    choices, answer = problem.get("choices"), problem.get("answer")
    if not isinstance(choices, list) or len(choices) > len(_LETTERS):
        return "the choices are no list, or more than the alphabet has letters"
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        return "the answer is none of the choices"
    options = ", ".join(f"({_LETTERS[n]}) {choice}" for n, choice in enumerate(choices))
    hint: Any = problem.get("hint") or "N/A"
    fields = {**problem, "hint": hint, "options": options}
    groups = {name: [str(problem[name])] for name in ("subject", "grade") if problem.get(name)}
    return Row(problem["key"], fields, (f"The answer is {_LETTERS[answer]}.",), groups, {})


def mmvp(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """MMVP: a table of questions with two options each; rows 2k - 1 and 2k are a pair."""
    for record in records(files["questions"]):
        found = _OPTIONS.fullmatch(record.get("Options", "").strip())
        answer = record.get("Correct Answer", "").strip().lower()
        number = record.get("Index", "")
        if not found or answer not in ("(a)", "(b)") or not number.isdecimal():
            yield "the options are not `(a) .. (b) ..`, or the answer is none of them"
            continue
        options = [found[1].strip(), found[2].strip()]
        fields = {"question": record["Question"], "options": options, "number": number}
        pair = str((int(number) + 1) // 2)
        yield Row(number, fields, (options[answer == "(b)"],), {}, {"cluster": pair})


def nlvr2(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """NLVR2: lines with an identifier `<split>-<set>-<pair>-<sentence>`, which names two images.

    The pairs of one sentence, which official consistency puts together, share the first two and
    the last of its numbers.
    """
    for record in records(files["rows"], lines=True):
        stem, _, sentence = str(record.get("identifier", "")).rpartition("-")
        group, _, _ = stem.rpartition("-")
        if not group:
            yield "an identifier that is none"
            continue
        folder = values["part"]
        if folder == "train":
            folder = f"images/train/{record.get('directory', '')}"
        fields = {**record, "stem": stem, "folder": folder}
        details = {"key": record["identifier"], "cluster": f"{group}-{sentence}"}
        yield Row(record["identifier"], fields, (str(record.get("label")),), {}, details)


def msvd_qa(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """MSVD-QA: videos by their number, and a list of their names, `<name> vid<number>` a line."""
    names = dict(line.split()[::-1] for line in text_lines(files["names"]))
    for record in records(files["rows"]):
        if (name := names.get(f"vid{record.get('video_id')}")) is None:
            yield "a video that the list of names lacks"
        else:
            fields = {**record, "name": name}
            yield Row(str(record["id"]), fields, (str(record["answer"]),), {}, {})


def ai2d(files: Files, values: Mapping[str, str]) -> Iterator[Row | str]:
    """AI2D: a file of questions for each diagram, and a list of the diagrams of the test.

    Where a question is about letters, these cover the diagram's own labels.
    """
    test = set(text_lines(files["ids"]))
    for entry in sorted(storage.list_files(files["questions"])):
        name = posixpath.basename(entry.uri)
        if not name.endswith(".json") or (name.split(".")[0] in test) != (
            values["split"] == "test"
        ):
            continue
        asked = _object(entry.uri)
        questions = asked.get("questions")
        if not isinstance(questions, dict) or not isinstance(asked.get("imageName"), str):
            yield "a file of questions that is not in the official form"
            continue
        labels = None
        for question, own in questions.items():
            if own.get("abcLabel") and labels is None:
                labels = _labels(_object(f"{files['annotations']}/{name}"))
            try:
                choices = list(map(str, own["answerTexts"]))
                answer = choices[range(len(choices))[own["correctAnswer"]]]
                row_id = str(own["questionId"])
            except (KeyError, IndexError, TypeError):
                yield "a question that is not in the official form"
                continue
            if own.get("abcLabel") and not labels:
                yield "a diagram without the labels that its question is about"
                continue
            fields = {"question": question, "choices": choices, "image": asked["imageName"]}
            groups = {"abc": [str(bool(own.get("abcLabel")))]}
            edit = Edit(labels=labels) if own.get("abcLabel") and labels else None
            yield Row(row_id, fields, (answer,), groups, {}, edit)


def _labels(annotation: Record) -> tuple[Label, ...]:
    """The rectangles of a diagram's texts, with what stands there instead; none if it is broken."""
    try:
        return tuple(
            Label(
                box=(*own["rectangle"][0], *own["rectangle"][1]),
                text=str(own.get("replacementText") or ""),
            )
            for own in annotation["text"].values()
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return ()


def _object(uri: str) -> Record:
    """The object in a file of JSON; empty if there is none."""
    try:
        found = json.loads(storage.read_bytes(uri, limit=_LIMIT))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
