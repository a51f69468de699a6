"""Weight files open, are written back, and say loudly what is wrong with them."""

import dataclasses
import json
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.ndimage import zoom

from paliflow.model import CheckpointError, PaliGemma, checkpoint_sha256, local_copy
from paliflow.model.files import checkpoint_digests
from paliflow.model.huggingface import write_huggingface
from paliflow.model.network import Network, apply
from paliflow.model.npz import write_npz
from paliflow.model.orbax import write_orbax
from paliflow.model.weights import resize_positions
from paliflow.tests import gcs
from paliflow.tests.model.conftest import (
    OVERRIDES,
    REFERENCE,
    expected,
    load_reference,
    reference_params,
)


def _assert_same(first: PaliGemma, second: PaliGemma) -> None:
    assert first.config == second.config
    one, other = (jax.tree.leaves_with_path(model.params) for model in (first, second))
    for (path, leaf), (other_path, other_leaf) in zip(one, other, strict=True):
        assert path == other_path
        assert leaf.dtype == other_leaf.dtype
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other_leaf), err_msg=str(path))


_VARIATIONS = [
    (name, dtype) for name in ("pg1", "pg2", "pg2_27b") for dtype in ("bfloat16", "float32")
][1:-1]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("pg1", "bfloat16"), ("pg2_27b", "float32")),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in _VARIATIONS),
    ],
)
@pytest.mark.parametrize("form", ["npz", "huggingface", "orbax"])
def test_every_leaf_survives_a_round_trip(tmp_path: Path, name: str, dtype: str, form: str) -> None:
    overrides = OVERRIDES.get(name, {})
    model, params = load_reference(name, dtype=dtype), reference_params(name, dtype)
    target = tmp_path / ("model.npz" if form == "npz" else "model")
    if form == "npz":
        write_npz(target, params)
    elif form == "huggingface":
        write_huggingface(target, params, model.config)
        overrides = {}  # config.json says it
    else:
        write_orbax(target, params)
    _assert_same(model, PaliGemma.from_checkpoint(target, dtype=dtype, **overrides))


def test_bfloat16_npz_is_stored_as_the_published_files_are(tmp_path: Path) -> None:
    write_npz(tmp_path / "model.npz", reference_params("pg1", "bfloat16"))
    with np.load(tmp_path / "model.npz") as archive:
        assert all(name.startswith("params/") for name in archive)
        assert {archive[name].dtype.str for name in archive} == {"|V2"}


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_npz_opens_under_every_prefix_in_use(tmp_path: Path, prefix: str) -> None:
    with np.load(REFERENCE / "pg1.weights.npz") as archive:
        arrays = {name.removeprefix("params/"): archive[name] for name in archive}
    np.savez(tmp_path / "m.npz", **{prefix + name: array for name, array in arrays.items()})
    _assert_same(
        load_reference("pg1"), PaliGemma.from_checkpoint(tmp_path / "m.npz", dtype="float32")
    )


def test_sharded_safetensors_open(tmp_path: Path) -> None:
    shutil.copy(REFERENCE / "hf_pg2" / "config.json", tmp_path)
    tensors = load_file(REFERENCE / "hf_pg2" / "model.safetensors")
    names = sorted(tensors)
    shards = {f"model-0000{n + 1}-of-00003.safetensors": names[n::3] for n in range(3)}
    for file, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, tmp_path / file)
    weight_map = {name: file for file, inside in shards.items() for name in inside}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _assert_same(load_reference("hf_pg2"), PaliGemma.from_checkpoint(tmp_path, dtype="float32"))


@pytest.mark.parametrize("style", ["published", "today", "in memory"])
def test_all_spellings_of_tensor_names_open(tmp_path: Path, style: str) -> None:
    shutil.copy(REFERENCE / "hf_pg1" / "config.json", tmp_path)
    tensors = load_file(REFERENCE / "hf_pg1" / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        if style != "published":
            name = name.replace("vision_tower.vision_model.", "vision_tower.")
        if style == "in memory":
            name = "model." + name.replace("language_model.model.", "language_model.")
        renamed[name] = tensor
    renamed["lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"]
    save_file(renamed, tmp_path / "model.safetensors")
    _assert_same(load_reference("hf_pg1"), PaliGemma.from_checkpoint(tmp_path, dtype="float32"))


def _npz_with(tmp_path: Path, change: Any) -> Path:
    with np.load(REFERENCE / "pg1.weights.npz") as archive:
        arrays = {name: archive[name] for name in archive}
    change(arrays)
    np.savez(tmp_path / "changed.npz", **arrays)
    return tmp_path / "changed.npz"


def test_missing_unexpected_and_misshapen_parameters_are_all_listed(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        del arrays["params/img/head/bias"]
        arrays["params/llm/layers/extra"] = np.zeros(3)
        arrays["params/llm/final_norm/scale"] = np.zeros(63)

    with pytest.raises(CheckpointError) as caught:
        PaliGemma.from_checkpoint(_npz_with(tmp_path, change))
    message = str(caught.value)
    assert "missing img/head/bias (64,)" in message
    assert "unexpected llm/layers/extra (3,)" in message
    assert "misshapen llm/final_norm/scale: (63,) in the file, (64,) expected" in message


def test_a_file_that_is_no_paligemma_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(CheckpointError, match="not a PaliGemma checkpoint"):
        PaliGemma.from_checkpoint(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(CheckpointError, match=r"not a readable \.npz"):
        PaliGemma.from_checkpoint(tmp_path / "text.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither safetensors nor Orbax"):
        PaliGemma.from_checkpoint(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        PaliGemma.from_checkpoint(tmp_path / "nowhere.npz")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["params/llm/final_norm/scale"] = np.array([{"a": 1}], dtype=object)

    with pytest.raises(CheckpointError, match="pickled"):
        PaliGemma.from_checkpoint(_npz_with(tmp_path, change))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    shutil.copy(REFERENCE / "hf_pg1" / "config.json", tmp_path)
    tensors = load_file(REFERENCE / "hf_pg1" / "model.safetensors")
    del tensors["language_model.model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.2\.mlp\.up_proj\.weight"):
        PaliGemma.from_checkpoint(tmp_path)


def test_an_unknown_override_names_those_there_are() -> None:
    with pytest.raises(TypeError, match="no such override: heads; there are image_size"):
        load_reference("pg1", heads=3)


def test_another_resolution_resizes_the_position_embedding_as_the_reference_does() -> None:
    model = load_reference("pg1", image_size=84)
    assert model.config.vision.num_patches == 36
    before = np.load(REFERENCE / "pg1.weights.npz")["params/img/pos_embedding"]
    wanted = zoom(before.reshape(4, 4, -1), (1.5, 1.5, 1), order=1).reshape(1, 36, -1)
    np.testing.assert_allclose(model.params["img"]["pos_embedding"], wanted, atol=1e-6)
    images = np.zeros((1, 84, 84, 3), np.float32)
    assert model.encode_images(images).shape == (1, 36, 64)


def test_resizing_keeps_the_corners() -> None:
    grid = np.random.default_rng(0).normal(size=(1, 16, 3)).astype(np.float32)
    resized = resize_positions(grid, 64)
    np.testing.assert_allclose(resized[0, [0, 7, 56, 63]], grid[0, [0, 3, 12, 15]], rtol=1e-6)


def test_padded_rows_of_published_embeddings_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paliflow.model import huggingface

    monkeypatch.setattr(huggingface, "_PADDED_ROWS", 520)
    monkeypatch.setattr(huggingface, "_VOCAB_SIZE", 512)
    model = PaliGemma.from_checkpoint(REFERENCE / "hf_pg1", dtype="float32")
    want = expected("hf_pg1")
    assert model.config.text.vocab_size == 512
    full = load_file(REFERENCE / "hf_pg1" / "model.safetensors")
    table = full["language_model.model.embed_tokens.weight"]
    np.testing.assert_array_equal(
        model.params["llm"]["embedder"]["input_embedding"].weight, table[:512]
    )
    assert want["logits"].shape[-1] == 520


def test_bfloat16_loses_little_more_than_rounding_the_weights_does() -> None:
    want = expected("pg1")
    model = PaliGemma.from_checkpoint(REFERENCE / "pg1.weights.npz")
    assert model.params["llm"]["final_norm"]["scale"].dtype == jnp.bfloat16
    inputs = want["image"], want["text"], want["mask_ar"]
    network = Network(model.config, dtype="float32")
    compute = jax.jit(lambda params, *inputs: apply(network, params, "__call__", *inputs))
    rounded = compute(model.params, *inputs)
    logits = model.logits(*inputs)
    assert logits.dtype == jnp.float32
    unavoidable, found = (np.square(x - want["logits"]).mean() ** 0.5 for x in (rounded, logits))
    assert found < 2 * unavoidable


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = checkpoint_sha256(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = checkpoint_sha256(tmp_path / "a")
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, checkpoint_sha256(tmp_path / "a")}) == 3


def test_a_local_path_is_its_own_copy(tmp_path: Path) -> None:
    with local_copy(tmp_path) as path:
        assert path == tmp_path


def test_processes_of_a_host_download_once_and_the_last_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.cloud import storage

    downloads = []
    download = storage.Blob.download_to_filename

    def counted(blob: storage.Blob, target: str, **options: Any) -> None:
        downloads.append(target)
        time.sleep(0.2)
        download(blob, target, **options)

    with gcs.serve() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(storage.Blob, "download_to_filename", counted)
        bucket = storage.Client.create_anonymous_client().create_bucket("models")
        bucket.blob("a/weights/x").upload_from_string("1")
        bucket.blob("a/weights/y/z").upload_from_string("2")
        bucket.blob("a/weights-2").upload_from_string("3")
        all_read = threading.Barrier(4)

        def read(_: int) -> Path:
            with local_copy("gs://models/a/weights") as path:
                all_read.wait()
                assert [(path / name).read_text() for name in ("x", "y/z")] == ["1", "2"]
                assert len(list(path.rglob("*"))) == 3
                return path

        # Locks are of an opened file: threads stand for processes.
        with ThreadPoolExecutor(4) as pool:
            (path,) = set(pool.map(read, range(4)))
        assert len(downloads) == 2
        assert not path.exists()
        bucket.blob("a/weights/x").upload_from_string("new")
        with local_copy("gs://models/a/weights") as path:
            assert (path / "x").read_text() == "new"


def test_checkpoints_load_from_gcs(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import storage

    with gcs.serve() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        bucket = storage.Client.create_anonymous_client().create_bucket("models")
        bucket.blob("pg1.npz").upload_from_filename(str(REFERENCE / "pg1.weights.npz"))
        for path in (REFERENCE / "hf_pg1").iterdir():
            bucket.blob(f"hf/{path.name}").upload_from_filename(str(path))
        bucket.blob("hf_other/config.json").upload_from_string("{}")
        _assert_same(
            load_reference("pg1"), PaliGemma.from_checkpoint("gs://models/pg1.npz", dtype="float32")
        )
        _assert_same(
            load_reference("hf_pg1"), PaliGemma.from_checkpoint("gs://models/hf/", dtype="float32")
        )
        with pytest.raises(FileNotFoundError, match="no such object or prefix"):
            PaliGemma.from_checkpoint("gs://models/nothing.npz")


def test_config_json_says_which_special_tokens_were_trained(tmp_path: Path) -> None:
    assert load_reference("hf_pg1").config.text.eos_id == 1
    model, params = load_reference("pg1"), reference_params("pg1")
    text = dataclasses.replace(model.config.text, bos_id=1, eos_id=2, pad_id=3)
    write_huggingface(tmp_path, params, dataclasses.replace(model.config, text=text))
    assert PaliGemma.from_checkpoint(tmp_path).config.text == text
    config = json.loads((tmp_path / "config.json").read_text())
    config["eos_token_id"] = [1, 107]  # of several nothing is known
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert PaliGemma.from_checkpoint(tmp_path).config.text.eos_id == 1


def test_the_digest_of_a_file_covers_the_tokenizer_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_text("1")
    alone = checkpoint_sha256(tmp_path / "model.npz")
    (tmp_path / "tokenizer.model").write_text("a b")
    first = checkpoint_digests(tmp_path / "model.npz")
    (tmp_path / "tokenizer.model").write_text("b a")
    second = checkpoint_digests(tmp_path / "model.npz")
    assert first[1] == second[1] == alone
    assert len({alone, first[0], second[0]}) == 3
    (tmp_path / "other.model").write_text("a b")
    assert checkpoint_digests(tmp_path / "model.npz", tmp_path / "other.model") == first
