"""Choices that a spec takes from a file, or a row gives in a column."""

import json

from paliflow import storage
from paliflow.configs import AnnotateSpec, PromptSpec
from paliflow.configs.base import SpecError
from paliflow.configs.prompts import expanded

_FILE_BYTES = 2**23


def with_labels(spec: AnnotateSpec) -> AnnotateSpec:
    """The spec with the lines of each `choices_file` as its choices, so that they stay what they
    were when the run was started; lines without text are passed over.

    Raises:
        SpecError: a file cannot be read, or its lines are no choices.
        OSError: the storage fails in a way that may pass.
    """
    prompts = tuple(
        _with_lines(prompt) if isinstance(prompt, PromptSpec) and prompt.choices_file else prompt
        for prompt in spec.prompts
    )
    return spec if prompts == spec.prompts else spec.model_copy(update={"prompts": prompts})


def _with_lines(prompt: PromptSpec) -> PromptSpec:
    file = prompt.choices_file
    assert file
    try:
        content = storage.read_bytes(storage.absolute(file), limit=_FILE_BYTES)
        lines = (line.strip() for line in content.decode("utf-8-sig").splitlines())
        return prompt.model_copy(
            update={"choices": expanded(filter(None, lines)), "choices_file": None}
        )
    except UnicodeDecodeError:
        raise SpecError(f"choices_file={file!r}: it is not UTF-8; give one choice a line") from None
    except (OSError, ValueError) as error:
        if storage.is_transient(error):
            raise
        said = getattr(error, "strerror", None) or error
        raise SpecError(f"choices_file={file!r}: {said}") from None


def choices_of_row(text: str) -> tuple[str, ...]:
    """The choices that a cell of `choices_column` gives.

    Raises:
        ValueError: it gives none.
    """
    if not text.startswith("["):
        return expanded((text,))
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no list in JSON") from None
    if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in given):
        raise ValueError("choices are text or whole numbers")
    return expanded(map(str, given))
