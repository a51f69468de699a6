"""Model files that are malformed or hostile: an error that names the file, and little memory."""

import io
import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.cloud.storage import Blob, Client
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from paliflow.model import (
    BUNDLED_CHECKPOINT,
    CheckpointError,
    MaskDecoder,
    PaliGemma,
    Tokenizer,
    local_copy,
)
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.files import _relative_path
from paliflow.model.orbax import write_orbax
from paliflow.model.weights import fitting, infer_config
from paliflow.storage import gs
from paliflow.tests.model.conftest import REFERENCE, reference_params

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 5\n" % 0


def read_all(path: Path) -> None:
    """Reads a checkpoint to its last leaf."""
    leaves, described = read_checkpoint(path)
    config = infer_config({name: leaf.shape for name, leaf in leaves.items()}, **described)
    for leaf in fitting(leaves, config).values():
        leaf.read(np.dtype(np.float32))


def array(shape: tuple[int, ...], content: bytes = b"", descr: str = "<f4", pad: int = 0) -> bytes:
    """An array of .npy, whose header may say what it likes and be of any length."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * pad + b"\n"
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + content


def zipped(compression: int = zipfile.ZIP_STORED, /, **files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, each in files.items():
            archive.writestr(name, each)
    return content.getvalue()


def encrypted(content: bytes) -> bytes:
    """The same with the flag of encryption in both headers of its one file."""
    local, central = content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8
    changed = bytearray(content)
    changed[local] |= 1
    changed[central] |= 1
    return bytes(changed)


BROKEN_NPZ = {
    "encrypted": (encrypted(zipped(**{"a.npy": array((1,), bytes(4))})), "a is encrypted"),
    "no array": (zipped(README=b"hello"), "holds 'README', which is no array"),
    "negative": (zipped(**{"a.npy": array((-1, -1), bytes(4))}), r"header says \(-1, -1\)"),
    "too short": (
        zipped(**{"a.npy": array((2**40,), bytes(4))}),
        r"header says \(1099511627776,\)",
    ),
    "text": (zipped(**{"a.npy": array((1,), bytes(8), "<U2")}), "holds <U2, no numbers"),
    "no magic": (zipped(**{"a.npy": b"PK"}), "magic string"),
    "no header": (zipped(**{"a.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff"}), "header length|EOF"),
    "no dictionary": (zipped(**{"a.npy": array((1,), bytes(4), "<f4'{'")}), "header|descr"),
    "cut": (zipped(**{"a.npy": array((1,), bytes(4))})[:-9], "not a zip file"),
    "bomb": (
        zipped(zipfile.ZIP_DEFLATED, **{"a.npy": array((2**24,), bytes(2**26))}),
        "unpack to 67108",
    ),
    "bomb of a header": (
        zipped(zipfile.ZIP_DEFLATED, **{"a.npy": array((1,), bytes(4), pad=2**26)}),
        "unpack to 67108",
    ),
}


@pytest.mark.parametrize("name", BROKEN_NPZ)
def test_a_malformed_npz_is_refused_with_its_name_and_in_little_memory(
    tmp_path: Path, name: str
) -> None:
    content, said = BROKEN_NPZ[name]
    (tmp_path / "m.npz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=said) as caught:
        read_all(tmp_path / "m.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{tmp_path / 'm.npz'} is not a readable .npz file" in str(caught.value)
    assert str(caught.value).endswith("download or export it again")
    assert peak < 2**23


def test_a_header_is_read_no_further_than_a_header_goes(tmp_path: Path) -> None:
    big = np.random.default_rng(0).bytes(2**20)  # that much does not count as a bomb
    files = {"a.npy": array((1,), bytes(4), pad=2**24), "b.npy": array((2**18,), big)}
    (tmp_path / "m.npz").write_bytes(zipped(zipfile.ZIP_DEFLATED, **files))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="EOF: reading array header"):
        read_checkpoint(tmp_path / "m.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_what_is_said_of_a_checkpoint_is_bounded(tmp_path: Path) -> None:
    names = {f"{n}{'x' * 60_000}.npy": array((1,), bytes(4)) for n in range(20)}
    (tmp_path / "m.npz").write_bytes(zipped(**names))
    with pytest.raises(CheckpointError) as caught:
        read_all(tmp_path / "m.npz")
    assert len(str(caught.value)) < 5000


_SMALL = zipped(**{"params/a.npy": array((2, 2), bytes(16)), "params/b.npy": array((1,), bytes(4))})


@given(
    st.integers(0, len(_SMALL) - 1),
    st.integers(0, 8),
    st.binary(max_size=8),
)
@settings(max_examples=100)
@example(0, 0, b"")
def test_an_npz_with_bytes_changed_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, new: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(_SMALL[:start] + new + _SMALL[start + length :])
    try:
        leaves, _ = read_checkpoint(path)
        for leaf in leaves.values():
            leaf.read(np.dtype(np.float32))
    except CheckpointError:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder to break."""
    copy = tmp_path / "hf"
    copy.mkdir()
    for file in (REFERENCE / "hf_pg1").iterdir():
        if file.is_file():
            shutil.copy(file, copy)
    return copy


def without(path: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            config = config[parent]
        del config[last]

    return change


def set_to(path: str, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            config = config[parent]
        config[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("vision_config"), "vision_config: required and missing"),
        (without("text_config.num_key_value_heads"), "num_key_value_heads: required and missing"),
        (set_to("text_config", [1]), r"text_config=\[1\]"),
        (set_to("vision_config.num_attention_heads", "many"), "num_attention_heads='many'"),
        (set_to("vision_config.num_attention_heads", {}), "num_attention_heads={}"),
        (set_to("vision_config.num_attention_heads", 0), "num_attention_heads=0"),
        (set_to("text_config.num_hidden_layers", 10**9), "num_hidden_layers=1000000000"),
        (set_to("text_config.num_hidden_layers", -1), "num_hidden_layers=-1"),
        (set_to("text_config.query_pre_attn_scalar", "x"), "query_pre_attn_scalar='x'"),
        (set_to("text_config.query_pre_attn_scalar", 1e999), "query_pre_attn_scalar"),
        (set_to("eos_token_id", "</s>"), r"eos_token_id\..*='</s>'"),
        (set_to("padding", "x" * 2**20), "has 1[0-9]{6} bytes, 1000000 are allowed"),
    ],
)
def test_a_config_json_of_other_types_is_refused_with_the_field(
    folder: Path, change: Callable[[Any], None], said: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(folder)
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}}"])
def test_a_config_json_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json is not a readable configuration"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0\0\0\0\0\0\0{}",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        b"\x02\0\0\0\0\0\0\0[]",
        (b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}    '),
    ],
)
def test_a_malformed_safetensors_file_is_refused_with_its_name(
    folder: Path, content: bytes
) -> None:
    if content.startswith(b"{"):
        content = len(content).to_bytes(8, "little") + content + bytes(4)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors"):
        read_checkpoint(folder)


def test_a_safetensors_file_that_is_cut_is_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_checkpoint(folder)


def test_an_orbax_folder_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    write_orbax(tmp_path / "o", reference_params("pg1"))
    files = (tmp_path / "o" / "ocdbt.process_0" / "d").iterdir()
    max(files, key=lambda file: file.stat().st_size).unlink()
    with pytest.raises(CheckpointError, match=f"{tmp_path}/o is not a readable Orbax folder"):
        read_all(tmp_path / "o")
    metadata = tmp_path / "o" / "_METADATA"
    for content in (b"[]", metadata.read_bytes()[:-20]):
        metadata.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{tmp_path}/o is not a readable Orbax folder"):
            read_all(tmp_path / "o")


@pytest.mark.parametrize("shape", [(1, 17, 48), (1, 16, 47), (16, 48), (1, 0, 48), ()])
def test_an_odd_position_embedding_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with np.load(REFERENCE / "pg1.weights.npz") as archive:
        arrays = dict(archive)
    arrays["params/img/pos_embedding"] = np.zeros(shape, np.float32)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(CheckpointError, match="missing or odd"):
        read_all(tmp_path / "m.npz")


TOKENIZER = BUNDLED_CHECKPOINT.with_name("tokenizer.model").read_bytes()


@given(st.integers(0, len(TOKENIZER) - 1), st.integers(0, 64), st.binary(max_size=4))
@settings(max_examples=100)
@example(0, len(TOKENIZER), b"")
@example(len(TOKENIZER), 0, b"\xff\xff\xff\xff")
def test_a_malformed_tokenizer_is_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, new: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "tokenizer.model"
    path.write_bytes(TOKENIZER[:start] + new + TOKENIZER[start + length :])
    said = ""
    try:
        Tokenizer.from_file(path).encode("detect digit")
    except CheckpointError as error:
        said = str(error)
    assert not said or f"{path} is not a readable tokenizer" in said


def test_a_mask_decoder_that_is_misshapen_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    with np.load(REFERENCE / "vae.weights.npz") as archive:
        arrays = dict(archive)
    for name, odd in (("_vq_vae._embedding", (127, 16)), ("decoder.4.weight", (128, 127, 4, 4))):
        np.savez(tmp_path / "vae.npz", **arrays | {name: np.zeros(odd, np.float32)})
        with pytest.raises(CheckpointError, match=r"vae\.npz is not a readable mask decoder"):
            MaskDecoder.from_checkpoint(tmp_path / "vae.npz")
    (tmp_path / "vae.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"vae\.npz is not a readable \.npz file"):
        MaskDecoder.from_checkpoint(tmp_path / "vae.npz")


def test_git_lfs_pointers_say_how_to_get_the_files(tmp_path: Path, folder: Path) -> None:
    for name in ("m.npz", "tokenizer.model"):
        (tmp_path / name).write_bytes(LFS_POINTER)
    (folder / "model.safetensors").write_bytes(LFS_POINTER)
    for read, path in (
        (read_checkpoint, tmp_path / "m.npz"),
        (read_checkpoint, folder),
        (Tokenizer.from_file, tmp_path / "tokenizer.model"),
        (MaskDecoder.from_checkpoint, tmp_path / "m.npz"),
    ):
        with pytest.raises(CheckpointError, match=r"is a Git LFS pointer.*`git lfs pull`"):
            read(path)


def test_a_folder_with_a_lora_adapter_alone_says_to_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"a": np.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"a LoRA adapter alone; merge it .*merge_and_unload"):
        PaliGemma.from_checkpoint(tmp_path)


def test_a_folder_of_an_npz_says_to_give_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.zeros(1))
    with pytest.raises(CheckpointError, match=r"it holds m\.npz: give that file"):
        PaliGemma.from_checkpoint(tmp_path)


@pytest.mark.parametrize("where", ["", "/not/there/"])
def test_a_repository_of_hugging_face_says_to_download_it(where: str) -> None:
    name = "google/paligemma-3b-mix-224"
    with pytest.raises(FileNotFoundError, match=f"`hf download {name} --local-dir FOLDER`"):
        PaliGemma.from_checkpoint(f"{where}{name}")


@given(st.text(max_size=8), st.lists(st.sampled_from(["..", ".", "", "a", "\0", "b" * 256, "é"])))
@example("a/..", [])
@example("", ["", "etc", "passwd"])
def test_no_object_name_leaves_the_folder_of_a_download(prefix: str, parts: list[str]) -> None:
    root = Path("/folder/of/downloads")
    try:
        path = _relative_path(prefix, "/".join([prefix, *parts]))
    except ValueError:
        return
    target = root / path
    assert target.is_relative_to(root)
    assert target != root
    assert ".." not in target.parts
    assert str(target) == f"{root}/{path}"  # nothing of it is dropped, so that no two are one


def test_an_object_whose_name_would_leave_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client.create_anonymous_client()
    out = f"weights/{'../' * 40}{tmp_path}/out"
    blobs = [client.bucket("models").blob(name) for name in ("weights/config.json", out)]
    monkeypatch.setattr(gs, "_client", lambda: client)
    monkeypatch.setattr(gs, "version", lambda _: None)
    monkeypatch.setattr(client, "list_blobs", lambda *_, **__: blobs)
    monkeypatch.setattr(Blob, "download_to_filename", lambda _, to, **__: Path(to).touch())
    with (
        pytest.raises(
            ValueError, match=r"no file can have the name of the object 'gs://models/weights/\.\."
        ),
        local_copy("gs://models/weights"),
    ):
        pass
    assert not (tmp_path / "out").exists()
