"""What an input is asked: its prompts, each with what the spec says of it."""

from typing import NamedTuple

from paliflow.configs import AnnotateSpec, PromptSpec
from paliflow.configs.prompts import labels_of
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.labels import choices_of_row


class Question(NamedTuple):
    """A prompt, as one input is asked it."""

    prompt: str
    name: str | None = None
    choices: tuple[str, ...] | None = None
    """The answers that it may have; None for any."""
    top_choices: int | None = None
    labels: tuple[str, ...] | None = None
    """Of closed detection, those that boxes may have; None for any."""
    error: str | None = None
    """Why it cannot be asked."""


def questions(item: Item, spec: AnnotateSpec) -> list[Question]:
    """What an item is asked, in order."""
    if item.prompts is None:
        return [_question(prompt, prompt) for prompt in spec.prompts]
    known = dict(zip(spec.texts, spec.prompts, strict=True))
    found = []
    for place, text in enumerate(item.prompts):
        asked = known.get(text, text)
        if item.asks:
            number = item.asks[place]
            asked = spec.prompts[number] if number < len(spec.prompts) else text
        own = item.choices[place] if item.choices else None
        found.append(_question(text, asked, own))
    return found


def _question(text: str | PromptSpec, asked: str | PromptSpec, own: str | None = None) -> Question:
    prompt = text if isinstance(text, str) else text.ask
    if isinstance(asked, str):
        # A plan may have a text of its own to be scored, such as what is right.
        return Question(prompt, choices=(own,) if own else None)
    if asked.closed:
        return Question(prompt, asked.name, labels=labels_of(prompt))
    question = Question(prompt, asked.name, asked.choices, asked.top_choices)
    if not asked.choices_column:
        return question
    try:
        return question._replace(choices=choices_of_row(own or ""))
    except ValueError as error:
        return question._replace(error=f"choices_column={asked.choices_column!r}: {error}")
