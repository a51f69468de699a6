"""Prompts: the task that a first word names, and what is no part of what is asked."""

import logging
import re
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, Field

_TASKS = {"cap": "caption", "describe": "caption"} | {
    task: task for task in ("caption", "answer", "ocr", "detect", "segment", "question")
}
# The tokenizer puts both before every prompt and a line's end after it: twice, the model has
# never seen them, and answers something else.
_AROUND = re.compile(r"\A(?:\s|<image>|<bos>)+|\s+\Z")


def task_of(prompt: str) -> str:
    """The task that a prompt's first word names, `custom` if none."""
    words = prompt.split(maxsplit=1)
    return _TASKS.get(words[0], "custom") if words else "custom"


def stripped(prompt: str) -> str:
    """The prompt without white space around it and a leading `<image>` or `<bos>`."""
    return _AROUND.sub("", prompt)


def misspelt_task(prompt: str) -> str | None:
    """What is wrong with a first word that would be a task, were its case another."""
    word = next(iter(prompt.split(maxsplit=1)), "")
    if word not in _TASKS and word.lower() in _TASKS:
        return f"the task {word!r} is spelt {word.lower()!r}; as it is, the model does not know it"
    return None


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
