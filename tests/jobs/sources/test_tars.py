"""WebDataset tars: samples to items, what breaks off, and bytes found at the place they have."""

import contextlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.here import annotate_here

SAMPLES = {
    "000.jpg": b"first",
    "000.json": json.dumps({"question": "who?", "key": 7}).encode(),
    "000.txt": b"passed over",
    "sub/001.json": json.dumps({"question": "where?"}).encode(),
    "sub/001.left.PNG": b"left",
    "sub/001.right.png": b"right!",
    "002.webp": b"without",
}


def tar_of(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def found(source: object, **fields: Any) -> list[Item]:
    given = {"input": str(source), "output": "/nowhere", "run_id": "test"} | fields
    return list(items(AnnotateSpec.parse({"prompts": ["caption en"]} | given)))


def content(item: Item) -> bytes:
    assert item.archive
    return storage.read_bytes(item.archive, item.offset or 0, item.size)


def names(found: list[Item]) -> list[str]:
    return [item.uri.partition("#")[2] for item in found]


def test_the_images_of_a_tar_are_items_at_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of(SAMPLES))
    images = found(path)
    assert [(item.uri, item.id) for item in images] == [
        (f"{path}#000.jpg", "000"),
        (f"{path}#sub/001.left.PNG", "sub/001"),
        (f"{path}#sub/001.right.png", "sub/001"),
        (f"{path}#002.webp", "002"),
    ]
    assert list(map(content, images)) == [b"first", b"left", b"right!", b"without"]
    assert {item.version for item in images} == {storage.version(str(path))}
    assert {item.prompts for item in images} == {None}


def test_a_samples_json_gives_its_columns(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(SAMPLES))
    images = found(
        tmp_path / "x.tar",
        prompts=["answer en {question}"],
        id_column="key",
        metadata_columns=["key"],
    )
    assert [(item.prompts, item.id, item.metadata) for item in images] == [
        (("answer en who?",), "7", '{"key": 7}'),
        (("answer en where?",), None, '{"key": null}'),
        (("answer en where?",), None, '{"key": null}'),
        (("",), None, '{"key": null}'),
    ]


def test_a_column_that_the_first_sample_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(SAMPLES))
    with pytest.raises(SpecError, match=r"x\.tar.*prompt_column='q'.*there are question, key"):
        found(tmp_path / "x.tar", prompt_column="q")
    (tmp_path / "y.tar").write_bytes(tar_of({"0.jpg": b"x", "1.json": b"{}"}))
    with pytest.raises(SpecError, match="there are none"):
        found(tmp_path / "y.tar", prompt_column="q")


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"\xff"])
def test_a_sample_whose_json_is_broken_is_refused_by_name(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(SAMPLES | {"002.json": broken}))
    assert len(found(tmp_path / "x.tar")) == 4
    with pytest.raises(SpecError, match=r"x\.tar.*'002\.json' is not"):
        found(tmp_path / "x.tar", prompt_column="question")


def test_a_glob_of_tars_is_all_their_images(tmp_path: Path) -> None:
    for name in ["b", "a"]:
        (tmp_path / f"{name}.tar").write_bytes(tar_of({f"{name}.jpg": b""}))
    (tmp_path / "c.jpg").touch()
    assert [item.uri for item in found(tmp_path / "*.tar")] == [
        f"{tmp_path}/a.tar#a.jpg",
        f"{tmp_path}/b.tar#b.jpg",
    ]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names_keep_their_images(tmp_path: Path, form: int) -> None:
    odd = {f"{'d' * 90}/{'n' * 90}.jpg": b"long", "ü #?%.jpg": b"odd", "no dot": b""}
    (tmp_path / "x.tar").write_bytes(tar_of(odd, form))
    images = found(tmp_path / "x.tar")
    assert names(images) == list(odd)[:2]
    assert list(map(content, images)) == [b"long", b"odd"]


def test_a_name_that_is_no_utf8_and_a_link_are_items_and_a_folder_is_not(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in [("a\udcff.jpg", tarfile.REGTYPE), ("b.jpg", tarfile.SYMTYPE)]:
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
        folder = tarfile.TarInfo("c.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    images = found(tmp_path / "x.tar")
    assert names(images) == ["a\\xff.jpg", "b.jpg"]
    assert [item.size for item in images] == [0, 0]


WHOLE = tar_of({f"{n}.jpg": bytes([n]) * 700 for n in range(3)})
"""Each image takes a block of header and two of content."""


@pytest.mark.parametrize(
    ("size", "whole_images", "images"),
    [
        (0, 0, []),
        (100, 0, []),
        (512 + 100, 0, ["0.jpg"]),
        (1536, 1, ["0.jpg"]),
        (1536 + 100, 1, ["0.jpg"]),
        (2 * 1536 + 512 + 100, 2, ["0.jpg", "1.jpg", "2.jpg"]),
        (3 * 1536, 3, ["0.jpg", "1.jpg", "2.jpg"]),
    ],
)
def test_what_follows_where_a_tar_breaks_off_is_one_item_that_cannot_be_read(
    tmp_path: Path, size: int, whole_images: int, images: list[str]
) -> None:
    (tmp_path / "x.tar").write_bytes(WHOLE[:size])
    present = found(tmp_path / "x.tar")
    assert names(present) == [*images, ""]
    whole = [item for item in present if len(content(item)) == item.size]
    assert len(whole) == whole_images


def test_what_follows_a_header_of_nonsense_is_one_item(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(WHOLE[:1536] + b"\x7f" * 512 + WHOLE[2048:])
    present = found(tmp_path / "x.tar")
    assert names(present) == ["0.jpg", ""]
    assert content(present[1]) == b""


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x-*.tar.gz"])
def test_compressed_tars_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SpecError, match="compressed tar"):
        found(tmp_path / name)


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"0.txt": b"x"}))
    with pytest.raises(SpecError, match="no images"):
        found(tmp_path / "x.tar")


def test_tars_in_a_bucket_give_the_same_items(gcs: None, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of(SAMPLES))
    storage.commit_if_absent("gs://images/tars/x.tar", io.BytesIO(tar_of(SAMPLES)))
    here = found(tmp_path / "x.tar", prompts=["{question}"])
    there = found("gs://images/tars/*.tar", prompts=["{question}"])
    assert [item[2:4] + item[5:] for item in here] == [item[2:4] + item[5:] for item in there]
    assert list(map(content, here)) == list(map(content, there))
    assert there[0].archive == "gs://images/tars/x.tar"
    assert there[0].version == storage.version("gs://images/tars/x.tar")


def test_a_run_over_a_broken_tar_answers_what_it_holds_and_says_what_it_does_not(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    image = encode("RGB", "PNG")
    ask = json.dumps({"question": "who?"}).encode()
    whole = tar_of({"0.png": image, "0.json": ask, "1.png": image, "2.png": image, "2.json": ask})
    (tmp_path / "x.tar").write_bytes(whole[: whole.index(b"2.json") + 100])
    spec = make_spec(
        input=str(tmp_path / "x.tar"), prompts=["answer en {question}"], max_error_fraction=1.0
    )
    summary = annotate_here(spec)
    rows = pq.read_table(f"{summary.location}/part-00000.parquet").to_pylist()
    found = [(row["source_uri"].partition("#")[2], row["prompt"], row["error"]) for row in rows]
    assert found == [
        ("0.png", "answer en who?", None),
        ("1.png", "", "prompt: the row gives none"),
        ("2.png", "", "prompt: the row gives none"),
        ("", "", "cannot be read: the archive ends before it"),
    ]


@settings(deadline=2000)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_a_damaged_tar_never_fails_but_by_a_spec_error(damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for place, value in damage:
        damaged[place] = value
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.tar").write_bytes(damaged)
        with contextlib.suppress(SpecError):
            assert found(Path(folder, "x.tar"))
