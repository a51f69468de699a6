"""Output rows: what was read and what was answered, by the columns of the schema."""

from dataclasses import asdict
from typing import Any

from paliflow.configs.base import brief
from paliflow.configs.prompts import task_of
from paliflow.jobs.media.reading import Input
from paliflow.model import Detection


def error_row(source: Input, prompt: str, error: str, name: str | None = None) -> dict[str, Any]:
    """The row of a prompt that could not be asked."""
    return {**_question(source, prompt, name), "status": "error", "error": brief(error)}


def answer_row(
    source: Input,
    prompt: str,
    text: str,
    detections: list[Detection] | None,
    *,
    logprob: float,
    token_count: int,
    finished: bool,
    min_logprob: float | None = None,
    name: str | None = None,
    choices: list[dict[str, Any]] | None = None,
    choices_mass: float | None = None,
) -> dict[str, Any]:
    """The row of an answer; `detections` and `choices` are None where none were asked for."""
    return {
        **_question(source, prompt, name),
        "text": text,
        "detections": detections and [asdict(detection) for detection in detections],
        "logprob": logprob,
        "token_count": token_count,
        "finished": finished,
        "mean_logprob": logprob / token_count if token_count else None,
        "min_logprob": min_logprob,
        "choices": choices,
        "choices_mass": choices_mass,
        "status": "ok",
    }


def _question(source: Input, prompt: str, name: str | None) -> dict[str, Any]:
    return {
        "source_uri": source.item.uri,
        "source_sha256": source.sha256,
        "source_version": source.item.version,
        "width": source.width,
        "height": source.height,
        "task": task_of(prompt),
        "prompt": prompt,
        "name": name,
        "metadata": source.item.metadata,
        "id": source.item.id,
        "image_thumbnail": source.thumbnail,
        **_moment(source),
    }


def _moment(source: Input) -> dict[str, Any]:
    if not (moment := source.moment):
        return {}
    names = ("frame_index", "timestamp_s")
    clip = moment.clip_frames and [
        dict(zip(names, each, strict=True)) for each in moment.clip_frames
    ]
    note = moment.note and brief(moment.note)
    return moment._asdict() | {"clip_frames": clip, "note": note}
