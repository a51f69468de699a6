"""Checkpoints of all kinds as named leaves."""

from pathlib import Path
from typing import Any

from paliflow.model.files import CheckpointError
from paliflow.model.huggingface import read_huggingface
from paliflow.model.npz import read_npz
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
    names = {file.name for file in path.iterdir()}
    tensors = {name for name in names if name.endswith(".safetensors")}
    if "adapter_config.json" in names and all(name.startswith("adapter_") for name in tensors):
        raise CheckpointError(
            f"{path} holds a LoRA adapter alone; merge it into its base, in Python with peft's "
            "merge_and_unload().save_pretrained(FOLDER), and give FOLDER"
        )
    if tensors:
        return read_huggingface(path)
    if "_METADATA" in names:
        # Orbax takes longer to import than most checkpoints take to read.
        from paliflow.model.orbax import read_orbax

        return read_orbax(path), {}
    given = next((name for name in sorted(names) if name.endswith(".npz")), None)
    hint = f"; it holds {given}: give that file" if given else ""
    raise CheckpointError(f"{path} is neither safetensors nor Orbax{hint}")
