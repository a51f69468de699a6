"""Runs made without a model: plan, parts and manifest as the job leaves them."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from paliflow.configs import AnnotateSpec, RunSummary
from paliflow.configs.prompts import task_of
from paliflow.jobs.annotate.rows import answer_row, error_row
from paliflow.jobs.media.reading import Input, read_input
from paliflow.jobs.runs.outputs import write_manifest
from paliflow.jobs.runs.parts import commit_part, read_parts
from paliflow.jobs.runs.plan import Item, write_plan
from paliflow.model import Detection

Answer = Callable[[Input, str], tuple[str, list[Detection]]]
"""What is said, and seen, given an input and a prompt."""


def briefly(source: Input, prompt: str) -> tuple[str, list[Detection]]:
    """An answer of a few words that tells inputs apart, or a box."""
    if task_of(prompt) == "detect":
        return "<loc0000><loc0000><loc0512><loc0512> cat", [
            Detection("cat", 0, 0, 15, 20, score=0.75)
        ]
    return f"{prompt} of {source.item.uri.rpartition('/')[2]}", []


def commit_parts(
    spec: AnnotateSpec,
    items: Iterable[Item],
    shards: Iterable[int],
    answer: Answer = briefly,
    finished: Callable[[str], bool] = bool,
) -> str:
    """Plans a run and does some of its shards; returns its folder.

    `finished` says of which prompts the answers ended by themselves: all, if not given.
    """
    run = f"{spec.output}/run_id={spec.run_id}"
    read = partial(read_input, size=1, max_pixels=spec.max_pixels, https_hosts=())
    items = list(items)
    write_plan(run, items, spec.model_dump(mode="json"))
    for shard in shards:
        first = shard * spec.shard_size
        rows: list[dict[str, Any]] = []
        failed = 0
        inputs = list(islice(items, first, first + spec.shard_size))
        for item in inputs:
            source = read(item, thumbnail=spec.thumbnail)
            failed += source.error is not None
            for prompt in spec.texts:
                if source.error is not None:
                    rows.append(error_row(source, prompt, source.error))
                    continue
                text, found = answer(source, prompt)
                rows.append(
                    answer_row(
                        *(source, prompt, text),
                        found if task_of(prompt) in ("detect", "segment") else None,
                        logprob=-0.1 * len(text.split()),
                        token_count=len(text.split()),
                        finished=finished(prompt),
                    )
                )
        about = {
            "spec": spec.model_dump_json(),
            "checkpoint_sha256": "5" * 64,
            "version": "0.1.0",
            "inputs": str(len(inputs)),
            "failed": str(failed),
        }
        commit_part(run, shard, rows, about)
    return run


def finish(
    spec: AnnotateSpec, items: Iterable[Item], answer: Answer = briefly, **fields: Any
) -> RunSummary:
    """A finished run; `fields` of its manifest may be given."""
    items = list(items)
    shards = -(-len(items) // spec.shard_size)
    run = commit_parts(spec, items, range(shards), answer)
    parts = list(read_parts(run, range(shards)))
    reasons: dict[str, int] = {}
    for part in parts:
        for reason, count in part.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    rows, errors = sum(part.rows for part in parts), sum(part.errors for part in parts)
    defaults = {
        "run_id": spec.run_id,
        "location": run,
        "spec": spec.model_dump(mode="json"),
        "inputs": len(items),
        "rows": rows,
        "ok": rows - errors,
        "errors": errors,
        "error_reasons": reasons,
        "shards": shards,
        "checkpoint": "gs://models/paligemma.npz",
        "checkpoint_sha256": "5" * 64,
        "started": parts[0].committed if parts else datetime.now(UTC),
        "finished": datetime.now(UTC),
        "seconds": 3.5,
        "images_per_second": len(items) / 3.5,
        "versions": {"paliflow": "0.1.0"},
    }
    summary = RunSummary.parse(defaults | fields)
    write_manifest(summary)
    return summary
