"""Small real models: the reference weights, and what the original implementations computed."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from paliflow.model import PaliGemma, PaliGemmaConfig
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.weights import infer_config

REFERENCE = Path(__file__).parent.parent / "data" / "reference"
OVERRIDES: dict[str, dict[str, Any]] = {"pg2_27b": {"query_pre_attn_scalar": 16}}
BIG_VISION = ("pg1", "pg2", "pg2_27b")
HUGGING_FACE = ("hf_pg1", "hf_pg2")


def checkpoint_of(name: str) -> Path:
    """Where one of the reference models is."""
    return REFERENCE / name if name in HUGGING_FACE else REFERENCE / f"{name}.weights.npz"


@cache
def load_reference(name: str, **overrides: Any) -> PaliGemma:
    """One of the reference models, in float32 if not said otherwise; loaded once."""
    options = {"dtype": "float32", **OVERRIDES.get(name, {})} | overrides
    return PaliGemma.from_checkpoint(checkpoint_of(name), **options)


def reference_params(name: str, dtype: str = "float32", layers: int = 3) -> dict[str, Any]:
    """The weights as they are stored, for training; without adapters.

    With fewer than its three layers, decoder and vision tower are another model, which is compiled
    in less time.
    """
    leaves, _ = read_checkpoint(checkpoint_of(name))
    flat = {path: jnp.asarray(leaf.read(np.dtype(dtype))) for path, leaf in leaves.items()}
    flat = {path: x[:layers] if is_stack(path) else x for path, x in flat.items()}
    tree: dict[str, Any] = traverse_util.unflatten_dict(flat, sep="/")
    return tree


def is_stack(path: str) -> bool:
    """Whether a parameter is one of all layers."""
    return path.startswith(("llm/layers/", "img/Transformer/encoderblock/"))


def config_of(params: dict[str, Any]) -> PaliGemmaConfig:
    """The configuration of weights as `reference_params` gives them."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return infer_config({path: leaf.shape for path, leaf in flat.items()})


def held_bytes(arrays: Any) -> int:
    """What a tree of arrays takes of each device."""
    return sum(each.addressable_shards[0].data.nbytes for each in jax.tree.leaves(arrays))


def expected(name: str) -> dict[str, Any]:
    """The original implementation's inputs and outputs."""
    inner = f"{name}/expected.npz" if name in HUGGING_FACE else f"{name}.expected.npz"
    return dict(np.load(REFERENCE / inner))


@pytest.fixture(scope="session", params=BIG_VISION)
def big_vision(request: pytest.FixtureRequest) -> tuple[PaliGemma, dict[str, Any]]:
    """Model and outputs of one of big_vision's references."""
    return load_reference(request.param), expected(request.param)


@pytest.fixture(scope="session", params=HUGGING_FACE)
def hugging_face(request: pytest.FixtureRequest) -> tuple[PaliGemma, dict[str, Any]]:
    """Model and outputs of one of transformers' references; its final softcap applied if any."""
    overrides = {"final_logits_softcap": 30.0} if request.param == "hf_pg2" else {}
    return load_reference(request.param, **overrides), expected(request.param)
