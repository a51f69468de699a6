"""Checkpoints of all kinds as named leaves."""

from pathlib import Path
from typing import Any

from paliflow.model.huggingface import read_huggingface
from paliflow.model.npz import read_npz
from paliflow.model.orbax import read_orbax
from paliflow.model.weights import Leaf


def read_checkpoint(path: Path) -> tuple[dict[str, Leaf], dict[str, Any]]:
    """The leaves of a local checkpoint, unread, and what it says that shapes do not.

    Args:
        path: a big_vision `.npz`, a Hugging Face folder, or an Orbax folder.

    Returns:
        Leaves by big_vision's path; overrides for `infer_config`.

    Raises:
        CheckpointError: it is none of the three.
    """
    if path.is_file():
        return read_npz(path), {}
    if any(path.glob("*.safetensors")):
        return read_huggingface(path)
    return read_orbax(path), {}
