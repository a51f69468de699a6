"""The trained model as files that other programs open, and a card that says what it is."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from paliflow import storage
from paliflow.configs.finetune import FineTuneSpec
from paliflow.model.huggingface import write_huggingface
from paliflow.model.npz import write_npz
from paliflow.model.optimizer import Params
from paliflow.model.train import Trainer, TrainState


def model_folder(run: str) -> str:
    """The folder of a run's weights, their tokenizer and their card."""
    return f"{run}/model"


def model_uri(spec: FineTuneSpec) -> str:
    """What an annotation's `checkpoint` names to use a run's model."""
    return model_folder(spec.location) + ("/model.npz" if spec.export == "npz" else "")


def export(spec: FineTuneSpec, trainer: Trainer, state: TrainState, frozen: Params) -> None:
    """Writes the model in the spec's `export_dtype`; every process has to call it.

    The leaves are gathered one after another; the first process writes them.
    """
    writes = jax.process_index() == 0
    leaves: dict[str, Any] = {}
    for parameter, leaf in trainer.exported(state, frozen, spec.exported_dtype):
        whole = _whole(leaf)
        if writes:
            leaves[parameter] = whole
    if not writes:
        return
    with tempfile.TemporaryDirectory(prefix="paliflow-") as name:
        folder = Path(name)
        params = unflatten_dict(leaves, sep="/")
        if spec.export == "npz":
            write_npz(folder / "model.npz", params)
        else:
            write_huggingface(folder, params, trainer.config)
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                storage.overwrite(f"{model_folder(spec.location)}/{path.name}", file)


def _whole(leaf: jax.Array) -> NDArray[Any]:
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
