"""Hugging Face PaliGemma folders: safetensors under their names, both ways through one table."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import einops
import numpy as np
from flax import traverse_util
from jax.typing import DTypeLike
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors import safe_open
from safetensors.numpy import save_file

from paliflow.configs.base import Spec
from paliflow.model.config import PaliGemmaConfig
from paliflow.model.files import CheckpointError, reading
from paliflow.model.weights import Array, Leaf

# Axes: W vision width, F mlp_dim, D text width, V vocabulary, P patch, h row and w column in
# a patch, C colour, vn vision head, N query head, K key-value head, H head_dim.


class _Entry(NamedTuple):
    path: str
    """Ours; the leaves of layers have a leading layer axis."""
    tensors: tuple[str, ...]
    """Theirs, `{}` standing for the layer; two are stacked after the layer axis."""
    pattern: str
    """einops, from theirs to ours."""


_VISION = "vision_tower.encoder.layers.{}"
_TEXT = "language_model.layers.{}"
_OURS_VISION = "img/Transformer/encoderblock"
_OURS_ATTENTION = f"{_OURS_VISION}/MultiHeadDotProductAttention_0"
_VOCAB_SIZE, _PADDED_ROWS = 257_152, 257_216
_CONFIG_BYTES = 1_000_000


_SpecialId = NonNegativeInt | tuple[NonNegativeInt, ...] | None
"""Some name several end tokens: that says nothing of which was trained."""


class _Tower(Spec):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    num_attention_heads: PositiveInt
    num_hidden_layers: Annotated[int, Field(ge=1, le=1000)]


class _TextTower(_Tower):
    num_key_value_heads: PositiveInt
    model_type: str = "gemma"
    query_pre_attn_scalar: PositiveFloat | None = None
    attn_logit_softcapping: PositiveFloat | None = 50.0
    bos_token_id: _SpecialId = None
    eos_token_id: _SpecialId = None
    pad_token_id: _SpecialId = None


class _ConfigJson(Spec):
    """What is read of config.json."""

    model_config = ConfigDict(extra="ignore")

    vision_config: _Tower
    text_config: _TextTower
    bos_token_id: _SpecialId = None
    eos_token_id: _SpecialId = None
    pad_token_id: _SpecialId = None

    @property
    def special_ids(self) -> dict[str, Any]:
        """The ids that it names, by their names in `TextConfig`."""
        ids: dict[str, Any] = {}
        for said in (self.text_config, self):
            ids |= {
                name: value
                for name in ("bos_id", "eos_id", "pad_id")
                if isinstance(value := getattr(said, f"{name[:3]}_token_id"), int)
            }
        return ids


def _vision_entries() -> Iterator[_Entry]:
    patch = "vision_tower.embeddings.patch_embedding"
    yield _Entry("img/embedding/kernel", (f"{patch}.weight",), "W C h w -> h w C W")
    yield _Entry("img/embedding/bias", (f"{patch}.bias",), "W -> W")
    position = "vision_tower.embeddings.position_embedding.weight"
    yield _Entry("img/pos_embedding", (position,), "P W -> 1 P W")
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        tensor = f"{_VISION}.self_attn.{theirs}"
        path = f"{_OURS_ATTENTION}/{ours}"
        yield _Entry(f"{path}/kernel", (f"{tensor}.weight",), "(vn H) W -> W vn H")
        yield _Entry(f"{path}/bias", (f"{tensor}.bias",), "(vn H) -> vn H")
    tensor = f"{_VISION}.self_attn.out_proj"
    yield _Entry(f"{_OURS_ATTENTION}/out/kernel", (f"{tensor}.weight",), "W (vn H) -> vn H W")
    yield _Entry(f"{_OURS_ATTENTION}/out/bias", (f"{tensor}.bias",), "W -> W")
    for ours, theirs in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
        path = f"{_OURS_VISION}/MlpBlock_0/{ours}"
        yield _Entry(f"{path}/kernel", (f"{_VISION}.mlp.{theirs}.weight",), "F W -> W F")
        yield _Entry(f"{path}/bias", (f"{_VISION}.mlp.{theirs}.bias",), "F -> F")
    norms = [
        (f"{_OURS_VISION}/LayerNorm_0", f"{_VISION}.layer_norm1"),
        (f"{_OURS_VISION}/LayerNorm_1", f"{_VISION}.layer_norm2"),
        ("img/Transformer/encoder_norm", "vision_tower.post_layernorm"),
    ]
    for path, tensor in norms:
        yield _Entry(f"{path}/scale", (f"{tensor}.weight",), "W -> W")
        yield _Entry(f"{path}/bias", (f"{tensor}.bias",), "W -> W")
    yield _Entry("img/head/kernel", ("multi_modal_projector.linear.weight",), "D W -> W D")
    yield _Entry("img/head/bias", ("multi_modal_projector.linear.bias",), "D -> D")


def _text_entries(post_norms: bool) -> Iterator[_Entry]:
    attn, mlp = f"{_TEXT}.self_attn", f"{_TEXT}.mlp"
    layers = "llm/layers"
    query = "(N H) D -> N D H"
    yield _Entry(f"{layers}/attn/q_einsum/w", (f"{attn}.q_proj.weight",), query)
    pair = (f"{attn}.k_proj.weight", f"{attn}.v_proj.weight")
    yield _Entry(f"{layers}/attn/kv_einsum/w", pair, "(K H) D -> K D H")
    output = "D (N H) -> N H D"
    yield _Entry(f"{layers}/attn/attn_vec_einsum/w", (f"{attn}.o_proj.weight",), output)
    gating = (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight")
    yield _Entry(f"{layers}/mlp/gating_einsum", gating, "F D -> D F")
    yield _Entry(f"{layers}/mlp/linear", (f"{mlp}.down_proj.weight",), "D F -> F D")
    norms = {"pre_attention_norm": "input_layernorm"}
    if post_norms:
        norms["post_attention_norm"] = "post_attention_layernorm"
        norms["pre_ffw_norm"] = "pre_feedforward_layernorm"
        norms["post_ffw_norm"] = "post_feedforward_layernorm"
    else:
        norms["pre_ffw_norm"] = "post_attention_layernorm"
    for ours, theirs in norms.items():
        yield _Entry(f"{layers}/{ours}/scale", (f"{_TEXT}.{theirs}.weight",), "D -> D")
    yield _Entry("llm/final_norm/scale", ("language_model.norm.weight",), "D -> D")
    embedding = "language_model.embed_tokens.weight"
    yield _Entry("llm/embedder/input_embedding", (embedding,), "V D -> V D")


def _plain_name(name: str) -> str:
    """One spelling for the published names and those that the library writes today."""
    name = name.removeprefix("model.")
    name = name.replace("vision_tower.vision_model.", "vision_tower.", 1)
    return name.replace("language_model.model.", "language_model.", 1)


def read_huggingface(folder: Path) -> tuple[dict[str, Leaf], dict[str, Any]]:
    """The leaves of a folder, and what its config.json says that shapes do not.

    The rows that the published embeddings are padded with, random ones, are left out. The final
    softcap that config.json names is not taken over: see `TextConfig`.

    Raises:
        CheckpointError: config.json or tensors are missing or unknown.
    """
    with reading(folder / "config.json", "configuration"):
        content = (folder / "config.json").read_bytes()
        if len(content) > _CONFIG_BYTES:
            raise ValueError(f"it has {len(content)} bytes, {_CONFIG_BYTES} are allowed")
        config = _ConfigJson.parse(content.decode())
    vision, text = config.vision_config, config.text_config
    sizes = {
        "vn": vision.num_attention_heads,
        "N": text.num_attention_heads,
        "K": text.num_key_value_heads,
    }
    files, shapes = _tensors(folder)
    post_norms = text.model_type == "gemma2"
    leaves: dict[str, Leaf] = {}
    for entry in (*_vision_entries(), *_text_entries(post_norms)):
        depth = None
        if "{}" in entry.tensors[0]:
            tower = vision if entry.path.startswith("img/") else text
            depth = tower.num_hidden_layers
        leaves[entry.path] = _leaf(entry, depth, sizes, files, shapes)
    if shapes:
        raise CheckpointError(f"{folder} has unexpected tensors: {', '.join(sorted(shapes))}")
    table = leaves["llm/embedder/input_embedding"]
    if table.shape[0] == _PADDED_ROWS:
        leaves["llm/embedder/input_embedding"] = Leaf(
            (_VOCAB_SIZE, table.shape[1]), lambda dtype: table.read(dtype)[:_VOCAB_SIZE]
        )
    overrides = config.special_ids
    if text.query_pre_attn_scalar is not None:
        overrides["query_pre_attn_scalar"] = text.query_pre_attn_scalar
    if post_norms:
        overrides["attn_logits_softcap"] = text.attn_logit_softcapping
    return leaves, overrides


def _tensors(folder: Path) -> tuple[dict[str, tuple[Path, str]], dict[str, tuple[int, ...]]]:
    """File and full name, and shape, of every tensor by its plain name; the tied head left out."""
    files: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with reading(path, "safetensors file"), safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118, not a mapping
                if not name.endswith("lm_head.weight"):
                    files[_plain_name(name)] = path, name
                    shapes[_plain_name(name)] = tuple(file.get_slice(name).get_shape())
    return files, shapes


def _leaf(
    entry: _Entry,
    depth: int | None,
    sizes: Mapping[str, int],
    files: Mapping[str, tuple[Path, str]],
    shapes: dict[str, tuple[int, ...]],
) -> Leaf:
    """Takes the entry's tensors out of `shapes` and describes the leaf they make."""
    known = {axis: size for axis, size in sizes.items() if f"({axis} " in entry.pattern}
    names = [[t.format(layer) for t in entry.tensors] for layer in range(depth or 1)]
    if missing := [name for row in names for name in row if name not in shapes]:
        raise CheckpointError(
            f"tensors are missing: {', '.join(missing[:5])} ({len(missing)}); download all files"
        )
    found = {shapes.pop(name) for row in names for name in row}
    if len(found) > 1:
        raise CheckpointError(f"tensors of {entry.path} differ in shape: {sorted(found)}")
    stacked = (len(entry.tensors),) if len(entry.tensors) > 1 else ()
    try:
        # A shape may be of any size: this one has no memory.
        one = einops.rearrange(np.broadcast_to(False, found.pop()), entry.pattern, **known).shape
    except einops.EinopsError as error:
        raise CheckpointError(f"{entry.tensors[0]} does not fit {entry.path}: {error}") from None

    def layer(names: list[str]) -> Leaf:
        def read(dtype: np.dtype[Any]) -> Array:
            tensors = [
                einops.rearrange(
                    _read(*files[name]).astype(dtype, copy=False), entry.pattern, **known
                )
                for name in names
            ]
            return np.stack(tensors) if stacked else tensors[0]

        return Leaf((*stacked, *one), read)

    layers = tuple(map(layer, names))
    if depth is None:
        return layers[0]
    shape = (depth, *stacked, *one)

    def read(dtype: np.dtype[Any]) -> Array:
        result = np.empty(shape, dtype)
        for slot, each in zip(result, layers, strict=True):
            slot[...] = each.read(dtype)
        return result

    return Leaf(shape, read, layers)


def _read(path: Path, name: str) -> Array:
    with reading(path, "safetensors file"), safe_open(path, "np") as file:
        tensor: Array = file.get_tensor(name)
        return tensor


def write_huggingface(folder: Path, params: Mapping[str, Any], config: PaliGemmaConfig) -> None:
    """Writes a folder that transformers opens, under the tensor names of the published files."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    tensors: dict[str, Array] = {}
    for entry in (*_vision_entries(), *_text_entries(config.text.post_norms)):
        array = np.asarray(flat.pop(entry.path))
        source, target = entry.pattern.split("->")
        for at, template in enumerate(entry.tensors):
            for layer in range(array.shape[0] if "{}" in template else 1):
                piece = array[layer] if "{}" in template else array
                piece = piece[at] if len(entry.tensors) > 1 else piece
                name = _published_name(template.format(layer))
                tensors[name] = np.ascontiguousarray(einops.rearrange(piece, f"{target}->{source}"))
    if flat:
        raise CheckpointError(f"parameters that have no tensor: {', '.join(sorted(flat))}")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = config_json(config, array.dtype)
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")


def _published_name(plain: str) -> str:
    plain = plain.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return plain.replace("language_model.", "language_model.model.", 1)


def config_json(config: PaliGemmaConfig, dtype: DTypeLike) -> dict[str, Any]:
    """What transformers reads the architecture from."""
    vision, text = config.vision, config.text
    described_text: dict[str, Any] = {
        "model_type": "gemma2" if text.post_norms else "gemma",
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.depth,
        "intermediate_size": text.mlp_dim,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "head_dim": text.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "num_image_tokens": vision.num_patches,
    }
    if text.post_norms:
        described_text |= {
            "query_pre_attn_scalar": text.query_pre_attn_scalar,
            "attn_logit_softcapping": text.attn_logits_softcap,
            "final_logit_softcapping": text.final_logits_softcap,
            "layer_types": ["full_attention"] * text.depth,
        }
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "dtype": np.dtype(dtype).name,
        "bos_token_id": text.bos_id,
        "eos_token_id": text.eos_id,
        "pad_token_id": text.pad_id,
        "hidden_size": text.width,
        "projection_dim": text.width,
        "image_token_index": text.vocab_size,
        "tie_word_embeddings": True,
        "text_config": described_text,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.depth,
            "intermediate_size": vision.mlp_dim,
            "num_attention_heads": vision.num_heads,
            "patch_size": vision.patch_size,
            "image_size": config.image_size,
            "num_image_tokens": vision.num_patches,
            "projection_dim": text.width,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "vision_use_head": False,
        },
    }
