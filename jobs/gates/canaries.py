"""Canaries: labelled examples that every actor is asked, and how well each has answered."""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.gate import Canaries
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.objects import objects_of
from paliflow.jobs.examples.sources import image_roots, read_examples
from paliflow.jobs.runs.outputs import evenly_spaced
from paliflow.jobs.runs.plan import Item
from paliflow.metrics import METRICS, Answers

FOLDER = "_canaries"
"""Readers of Parquet folders skip names that start with an underscore."""
_PLAN = f"{FOLDER}/examples.json"


def plan_canaries(run: str, spec: AnnotateSpec, canaries: Canaries) -> None:
    """Writes a run's canaries down, unless they are.

    Raises:
        SpecError: there are none, one has several images, or the metric needs more than texts or
            falls as answers get better.
    """
    metric = METRICS[canaries.metric]
    if not metric.of_texts:
        raise SpecError(
            f"gate.canaries.metric={canaries.metric!r} needs more than answers and what is right"
        )
    if metric.lower_is_better:
        raise SpecError(
            f"gate.canaries.metric={canaries.metric!r} falls as answers get better, and at_least "
            "is what it has to reach; take one that rises, such as anls"
        )
    read = read_examples(canaries, spec.https_hosts, spec.allowed_roots)
    found = [example for example in read if isinstance(example, Example)]
    if not found:
        raise SpecError(f"gate.canaries: no example in {canaries.path!r}")
    if any(len(example.images) > 1 for example in found):
        raise SpecError(f"gate.canaries: an example of {canaries.path!r} has several images")
    roots = image_roots(canaries, spec.allowed_roots)
    chosen = [
        {**example._asdict(), "roots": roots}
        for example in evenly_spaced(found, canaries.max_examples)
    ]
    storage.commit_if_absent(f"{run}/{_PLAN}", io.BytesIO(json.dumps(chosen).encode()))


def canary_items(run: str) -> list[Item]:
    """What an actor is asked of a run's canaries; empty if there are none."""
    return [
        image_item(
            each["images"][0], each["roots"] and tuple(each["roots"]), each.get("edit")
        )._replace(prompts=(each["prefix"],), id=each["id"])
        for each in _planned(run)
    ]


def commit_canaries(run: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keeps what one actor has answered."""
    texts = [row.get("text") if row["status"] != "error" else None for row in rows]
    uri = f"{run}/{FOLDER}/{uuid.uuid4().hex}.json"
    storage.commit_if_absent(uri, io.BytesIO(json.dumps(texts).encode()))


def worst_figure(run: str, canaries: Canaries) -> float | None:
    """The metric of the actor that has answered worst; None if no actor was asked."""
    planned = _planned(run)
    prefixes = [each["prefix"] for each in planned]
    right = [each["suffixes"] for each in planned]
    figures = []
    for entry in storage.list_files(f"{run}/{FOLDER}"):
        if entry.uri.endswith(_PLAN):
            continue
        texts = [text or "" for text in json.loads(storage.read_bytes(entry.uri))]
        answers = Answers(prefixes, right, texts, objects_of, lambda _, text: objects_of(text))
        figures.append(METRICS[canaries.metric].score(answers).figure)
    return min(figures, default=None)


def _planned(run: str) -> list[dict[str, Any]]:
    try:
        planned: list[dict[str, Any]] = json.loads(storage.read_bytes(f"{run}/{_PLAN}"))
    except FileNotFoundError:
        return []
    return planned
