"""Prompts: the task that a first word names, what is no part of what is asked, fixed choices."""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from paliflow.configs.base import Spec

_TASKS = {"cap": "caption", "describe": "caption"} | {
    task: task for task in ("caption", "answer", "ocr", "detect", "segment", "question")
}
# The tokenizer puts both before every prompt and a line's end after it: twice, the model has
# never seen them, and answers something else.
_LANGUAGE = re.compile(
    "ar|bn|cs|da|de|el|en|es|fa|fil?|fr|he|hi|hr|hu|id|it|iw|ja|ko|mi|nl|no|pl|pt|quz|ro|ru|sv|sw"
    "|te|th|tr|uk|vi|zh",
    re.I,
)
"""What may follow `caption` and `answer`: the codes of Crossmodal-3600 and COCO-35L."""
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01", "\u061f")
_AROUND = re.compile(r"\A(?:\s|<image>|<bos>)+|\s+\Z")


def task_of(prompt: str) -> str:
    """The task that a prompt's first word names, `custom` if none."""
    words = prompt.split(maxsplit=1)
    return _TASKS.get(words[0], "custom") if words else "custom"


def stripped(prompt: str) -> str:
    """The prompt without white space around it and a leading `<image>` or `<bos>`."""
    return _AROUND.sub("", prompt)


def misspelt_task(prompt: str) -> str | None:
    """What is wrong with a first word that would be a task, were its case another.

    Nothing is in ordinary language, such as `Describe the damage` or `Detect any damage?`: there a
    task that has a language is followed by something else, and others end as sentences do.
    """
    word, *rest = prompt.split(maxsplit=2) or [""]
    task = _TASKS.get(word.lower())
    if task is None or word in _TASKS:
        return None
    if task in ("caption", "answer", "question"):
        meant = not rest or bool(_LANGUAGE.fullmatch(rest[0]))
    else:
        meant = not prompt.rstrip().endswith(_SENTENCE_ENDS)
    if not meant:
        return None
    return f"the task {word!r} is spelt {word.lower()!r}; as it is, the model does not know it"


@cache
def say_stripped(what: str) -> None:
    """Logs once a process that something was taken off."""
    logging.getLogger(__name__).warning(
        "%s: white space around it and a leading <image> or <bos> are taken off", what
    )


def _prompt(value: str) -> str:
    prompt = stripped(value)
    if not prompt:
        raise ValueError("it asks nothing")
    if prompt != value:
        say_stripped(repr(value))
    if said := misspelt_task(prompt):
        raise ValueError(said)
    return prompt


Prompt = Annotated[str, Field(min_length=1), AfterValidator(_prompt)]
"""What a model is asked."""

MOST_CHOICES = 10_000
"""Of a prompt."""
_RANGE = re.compile(r"(\d{1,5})\.\.(\d{1,5})")


def expanded(choices: Iterable[str]) -> tuple[str, ...]:
    """A list of choices as it is meant: of the one choice `yes/no` both, of `0..20` all numbers.

    Raises:
        ValueError: there are fewer than two, too many, one is empty or one is there twice.
    """
    found = tuple(choices)
    if len(found) == 1:
        if found[0] == "yes/no":
            found = ("yes", "no")
        elif matched := _RANGE.fullmatch(found[0]):
            found = tuple(map(str, range(int(matched[1]), int(matched[2]) + 1)))
    if not 2 <= len(found) <= MOST_CHOICES:
        raise ValueError(
            f"it has {len(found)} choices; give 2 to {MOST_CHOICES}, or `yes/no`, or a range such "
            "as `0..20`"
        )
    for choice in found:
        if choice != choice.strip() or not choice:
            raise ValueError(f"the choice {choice!r} is empty, or has white space around it")
    if len(set(found)) < len(found):
        twice = next(choice for choice in found if found.count(choice) > 1)
        raise ValueError(f"the choice {twice!r} is there twice")
    return found


def labels_of(prompt: str) -> tuple[str, ...]:
    """The labels that a prompt of `detect` or `segment` asks for, joined by ` ; `."""
    _, _, asked = prompt.partition(" ")
    return tuple(dict.fromkeys(filter(None, (label.strip() for label in asked.split(";")))))


class PromptSpec(Spec):
    """A prompt whose answer is one of a list, or has labels of a list: see docs/choices.md."""

    ask: Prompt
    """What the model is asked, as in a prompt of text alone."""
    choices: tuple[str, ...] = ()
    """The answers that it may give. `yes/no` stands for these two, `0..20` for the numbers."""
    choices_column: str | None = None
    """Instead of `choices`, the manifest's column with each row's own: a list, or text that is a
    list in JSON, `yes/no` or a range."""
    choices_file: Annotated[str, Field(min_length=1)] | None = None
    """Instead of `choices`, a text file with one a line, local or `gs://`. It is read when the run
    is started, and the spec that the run keeps has its lines."""
    top_choices: PositiveInt | None = None
    """The output's `choices` keeps the likeliest of them only; all if not given."""
    closed: bool = False
    """Of `detect` and `segment`: the answer is whole boxes of the labels that are asked for, and
    nothing else."""
    name: str | None = None
    """Goes to the output's `name`, to tell answers apart."""

    @field_validator("choices")
    @classmethod
    def _are_choices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return expanded(value) if value else value

    @model_validator(mode="after")
    def _has_choices(self) -> "PromptSpec":
        given = (self.choices, self.choices_column, self.choices_file, self.closed)
        if sum(map(bool, given)) != 1:
            raise ValueError(
                f"ask={self.ask!r}: give one of choices, choices_column, choices_file and closed"
            )
        if self.closed and self.top_choices:
            raise ValueError(f"ask={self.ask!r}: top_choices is for choices, not for closed")
        if self.closed and (
            task_of(self.ask) not in ("detect", "segment") or not labels_of(self.ask)
        ):
            raise ValueError(
                f"ask={self.ask!r}: closed is for `detect` and `segment` with labels, such as "
                "`detect cat ; dog`"
            )
        return self


def _kind(value: object) -> str:
    return "(object)" if isinstance(value, dict | PromptSpec) else "(text)"


AnyPrompt = Annotated[
    Annotated[Prompt, Tag("(text)")] | Annotated[PromptSpec, Tag("(object)")], Discriminator(_kind)
]
"""A prompt as text alone, or with what its answer may be."""


def text_of(prompt: str | PromptSpec) -> str:
    """What the model is asked."""
    return prompt if isinstance(prompt, str) else prompt.ask


def require_distinct(prompts: Sequence[str | PromptSpec]) -> None:
    """
    Raises:
        ValueError: a prompt is there twice.
    """
    if len(set(map(text_of, prompts))) < len(prompts):
        raise ValueError("the same prompt twice would double its rows")


def require_no_closed(prompts: Sequence[str | PromptSpec], beams: int) -> None:
    """
    Raises:
        ValueError: a prompt is closed, and a beam search wanted.
    """
    closed = (p.ask for p in prompts if isinstance(p, PromptSpec) and p.closed)
    if beams > 1 and (ask := next(closed, None)):
        raise ValueError(
            f"beams={beams}: {ask!r} is closed, whose answers are decoded greedily; leave out one"
        )
