"""Sources: what each kind of input stands for, in which order, and what is refused."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs.base import SpecError
from paliflow.jobs import storage
from paliflow.jobs.sources import image_uris


def uris(source: object, column: str = "image") -> list[str]:
    return list(image_uris(str(source), column))


def test_an_image_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "any.thing").touch()
    assert uris(tmp_path / "any.thing") == [f"{tmp_path}/any.thing"]


def test_a_folder_is_its_image_files_by_name_and_depth(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ["b.jpg", "a.PNG", "sub/c.webp", "notes.txt", "jpg", "sub/x.json"]:
        (tmp_path / name).touch()
    assert uris(tmp_path) == [f"{tmp_path}/{name}" for name in ("a.PNG", "b.jpg", "sub/c.webp")]


def test_a_relative_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert uris("photos/") == [f"{tmp_path}/photos/a.jpg"]


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos [2019]").mkdir()
    (tmp_path / "photos [2019]" / "a.jpg").touch()
    assert uris(tmp_path / "photos [2019]") == [f"{tmp_path}/photos [2019]/a.jpg"]


def test_a_glob_takes_any_file_it_names(tmp_path: Path) -> None:
    for name in ["b.bin", "a.bin", "c.jpg"]:
        (tmp_path / name).touch()
    assert uris(tmp_path / "*.bin") == [f"{tmp_path}/a.bin", f"{tmp_path}/b.bin"]


PATHS = ["x/a.jpg", "/data/b.jpg", "gs://bucket/c.jpg", "../d.jpg", "https://host/e.jpg", None, ""]


def write_manifest(path: Path, paths: list[str | None]) -> None:
    rows = [{"id": number, "photo": value} for number, value in enumerate(paths)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "photo"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_manifest_names_one_image_a_row_relative_to_itself(tmp_path: Path, suffix: str) -> None:
    manifest = tmp_path / "lists" / f"manifest{suffix}"
    manifest.parent.mkdir()
    write_manifest(manifest, PATHS)
    assert uris(manifest, "photo") == [
        f"{tmp_path}/lists/x/a.jpg",
        "/data/b.jpg",
        "gs://bucket/c.jpg",
        f"{tmp_path}/d.jpg",
        "https://host/e.jpg",
        "",
        "",
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_missing_image_column_is_named_with_those_there_are(tmp_path: Path, suffix: str) -> None:
    write_manifest(tmp_path / f"manifest{suffix}", PATHS)
    with pytest.raises(SpecError, match=r"image_column='picture'.*id, photo"):
        uris(tmp_path / f"manifest{suffix}", "picture")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("m.parquet", b"not Parquet", "Parquet"),
        ("m.jsonl", b'{"image": "a.jpg"}\n{"image": \n', "line 2 is not JSON"),
        ("m.jsonl", b'["a.jpg"]\n', "line 1 is not an object"),
        ("m.csv", b"image\n\xff\xfe.jpg\n", "utf-8"),
        ("m.csv", b"", "no such column"),
    ],
)
def test_a_broken_manifest_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=complaint):
        uris(tmp_path / name)


def test_images_embedded_in_a_manifest_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"x"}]}), tmp_path / "m.parquet")
    with pytest.raises(SpecError, match="not paths"):
        uris(tmp_path / "m.parquet")


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.jpg", "s3://bucket/folder", "empty"])
def test_an_input_without_images_is_refused(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="input="):
        uris(source)


def test_a_bucket_is_listed_globbed_and_holds_manifests(gcs: None) -> None:
    root = "gs://images/sources"
    for name in ["b.jpg", "a.jpg", "sub/c.jpg", "notes.txt"]:
        storage.commit_if_absent(f"{root}/{name}", io.BytesIO(b"x"))
    lines = b'{"image": "../sub/c.jpg"}\n{"image": "gs://other/d.jpg"}\n'
    storage.commit_if_absent(f"{root}/lists/m.jsonl", io.BytesIO(lines))
    assert uris(f"{root}/") == [f"{root}/a.jpg", f"{root}/b.jpg", f"{root}/sub/c.jpg"]
    assert uris(f"{root}/*.jpg") == [f"{root}/a.jpg", f"{root}/b.jpg"]
    assert uris(f"{root}/a.jpg") == [f"{root}/a.jpg"]
    assert uris(f"{root}/lists/m.jsonl") == [f"{root}/sub/c.jpg", "gs://other/d.jpg"]
    with pytest.raises(SpecError, match="no images"):
        uris("gs://images/nowhere")
    with pytest.raises(SpecError, match="nobucket"):
        uris("gs://nobucket/folder")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))))
def test_every_row_of_every_kind_of_manifest_gives_the_same_uris(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for suffix in (".parquet", ".csv", ".jsonl"):
            manifest = Path(folder, f"m{suffix}")
            write_manifest(manifest, [*names, "last.jpg"])
            found.append(uris(manifest, "photo"))
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == len(names) + 1
