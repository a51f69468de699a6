"""Sources: what each kind of input stands for, in which order, and what is refused."""

import gzip
import io
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.items import items
from paliflow.tests.jobs.files import write_rows

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def found(source: object, **fields: Any) -> list[Item]:
    given = {"input": str(source), "output": "/nowhere", "run_id": "test"} | fields
    return list(items(AnnotateSpec.parse({"prompts": ["caption en"]} | given)))


def uris(source: object, column: str = "image", **fields: Any) -> list[str]:
    return [item.uri for item in found(source, image_column=column, **fields)]


def test_an_image_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "any.thing").touch()
    assert uris(tmp_path / "any.thing") == [f"{tmp_path}/any.thing"]


def test_a_folder_is_its_image_files_by_name_and_depth(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ["b.jpg", "a.PNG", "sub/c.webp", "notes.txt", "jpg", "sub/x.json"]:
        (tmp_path / name).touch()
    assert uris(tmp_path) == [f"{tmp_path}/{name}" for name in ("a.PNG", "b.jpg", "sub/c.webp")]


def test_files_come_with_the_version_that_their_storage_gives(tmp_path: Path) -> None:
    for name in ["a.jpg", "b.jpg"]:
        (tmp_path / name).write_bytes(name.encode())
    expected = [
        Item(f"{tmp_path}/{n}.jpg", version=storage.version(f"{tmp_path}/{n}.jpg"), roots=roots)
        for n in "ab"
        for roots in [(str(tmp_path),)]
    ]
    assert found(tmp_path) == found(tmp_path / "*.jpg") == expected
    assert found(tmp_path / "a.jpg") == [expected[0]._replace(roots=None)]
    assert expected[0].version


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
    write_rows(path, [{"id": number, "photo": value} for number, value in enumerate(paths)])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_manifest_names_one_image_a_row_relative_to_itself(tmp_path: Path, suffix: str) -> None:
    manifest = tmp_path / "lists" / f"manifest{suffix}"
    manifest.parent.mkdir()
    write_manifest(manifest, PATHS)
    assert uris(manifest, "photo", allowed_roots=["/", "gs://bucket"]) == [
        f"{tmp_path}/lists/x/a.jpg",
        "/data/b.jpg",
        "gs://bucket/c.jpg",
        f"{tmp_path}/d.jpg",
        "https://host/e.jpg",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.tsv", b"image\tnote\na.jpg\tx, y\nb.jpg\t\n"),
        ("m.ndjson", b'{"image": "a.jpg"}\n{"image": "b.jpg"}\n'),
        ("m.csv.gz", gzip.compress(b"image\na.jpg\nb.jpg\n", mtime=0)),
        ("m.TSV.gz", gzip.compress(b"image\tnote\na.jpg\t\nb.jpg\t\n", mtime=0)),
        (
            "m.jsonl.gz",
            gzip.compress(b'{"image": "a.jpg"}\n', mtime=0)
            + gzip.compress(b'{"image": "b.jpg"}', mtime=0),
        ),
    ],
)
def test_tabs_and_gzip_are_read_as_well(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert uris(tmp_path / name) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert uris(tmp_path / f"*{name[1:]}") == uris(tmp_path / name)


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
        ("m.csv", b"image\n\xff\xfe.jpg\n", "it is not UTF-8: save it as UTF-8"),
        ("m.csv", b"", "it is empty"),
        ("m.csv", b"x" * 200_000, "line 1 is not CSV"),
        ("m.csv", b"image\n", "the manifest has no rows"),
        ("m.jsonl", b"", "the manifest has no rows"),
        ("m.csv", "image\nä.jpg\n".encode("latin-1"), "it is not UTF-8: save it as UTF-8"),
        ("m.csv", "image\n".encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        ("m.tsv", "image\n".encode("utf-16-le"), "as UTF-16 does: save it as UTF-8"),
        ("m.jsonl", '{"image": "ä"}'.encode("latin-1"), "line 1 is not UTF-8: save it as UTF-8"),
        ("m.jsonl", '{"image": "a"}'.encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        ("m.csv", LFS_POINTER, "a Git LFS pointer: `git lfs pull`"),
        ("m.parquet", LFS_POINTER, "a Git LFS pointer: `git lfs pull`"),
        ("m.tar", LFS_POINTER, "a Git LFS pointer: `git lfs pull`"),
        ("m.tar", gzip.compress(b"x", mtime=0), "it is gzip: unpack it"),
        ("m.tar", b"PK\3\4and so on", "it is a zip: unpack it"),
        ("m.csv", gzip.compress(b"image\n", mtime=0), "it is gzip: unpack it"),
        ("m.csv.gz", b"image\na.jpg\n", "it is not gzip, or breaks off"),
        (
            "m.jsonl.gz",
            gzip.compress(b'{"image": "a"}\n' * 99, mtime=0)[:-9],
            "not gzip, or breaks off",
        ),
        ("m.json", b"[]", r"\.json is neither an image nor a manifest, .* \.tsv, \.jsonl"),
        ("m.txt", b"a.jpg", r"\.txt is neither an image nor a manifest, which end in \.parquet"),
        ("m.txt.gz", b"", r"\.txt\.gz is neither an image nor a manifest"),
        ("m.jsonl", b"[" * 100_000, "line 1 is not JSON"),
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


ROWS = [
    {"image": "a.jpg", "question": "who?", "key": "x", "note": "n"},
    {"image": "b.jpg", "question": "", "key": "y", "note": ""},
    {"image": "c.jpg", "question": "caption en", "key": "z", "note": "{key}"},
]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_prompts_id_and_metadata_come_from_columns(tmp_path: Path, suffix: str) -> None:
    manifest = write_rows(tmp_path / f"m{suffix}", ROWS)
    rows = found(
        manifest,
        prompts=["caption en", "answer en {question}"],
        prompt_column="question",
        id_column="key",
        metadata_columns=["note", "key"],
    )
    assert [row.prompts for row in rows] == [
        ("caption en", "answer en who?", "who?"),
        ("caption en",),
        ("caption en", "answer en caption en"),
    ]
    assert [row.id for row in rows] == ["x", "y", "z"]
    assert [json.loads(row.metadata or "") for row in rows] == [
        {"note": "n", "key": "x"},
        {"note": "", "key": "y"},
        {"note": "{key}", "key": "z"},
    ]


def test_a_row_that_asks_nothing_keeps_its_place_with_an_empty_prompt(tmp_path: Path) -> None:
    rows = found(write_rows(tmp_path / "m.csv", ROWS), prompts=[], prompt_column="note")
    assert [row.prompts for row in rows] == [("n",), ("",), ("{key}",)]


def test_what_surrounds_a_rows_prompt_is_taken_off(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "ask": ask} for ask in ("<image>detect digit", "ocr\n", " <bos> ")]
    manifest = write_rows(tmp_path / "m.jsonl", rows)
    asked = [row.prompts for row in found(manifest, prompts=["{ask}"], prompt_column="ask")]
    assert asked == [("detect digit",), ("ocr",), ("",)]


def test_doubled_braces_are_literal_in_a_manifest_and_all_braces_elsewhere(tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "m.csv", ROWS)
    assert found(manifest, prompts=["say {{key}} {key}"])[0].prompts == ("say {key} x",)
    (tmp_path / "a.jpg").touch()
    assert found(tmp_path / "a.jpg", prompts=["say {{key}} {key} {"])[0].prompts is None


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompts": ["a {b}"]}, r"prompts='a \{b\}'.*'b'; there are image, question, key, note"),
        ({"prompt_column": "b"}, "prompt_column='b'.*there are image"),
        ({"id_column": "b"}, "id_column='b'.*there are image"),
        ({"metadata_columns": ["key", "b"]}, "metadata_columns='b'.*there are image"),
        ({"prompts": ["a {key.real}"]}, "no such column as 'key.real'"),
        ({"prompts": ["a {key[0]}"]}, r"no such column as 'key\[0\]'"),
        ({"prompts": ["a {key!r}"]}, "nothing else"),
        ({"prompts": ["a {key:>9}"]}, "nothing else"),
        ({"prompts": ["a {}"]}, "nothing else"),
        ({"prompts": ["a {key"]}, "literal brace is written twice"),
        ({"prompts": ["a }"]}, "literal brace is written twice"),
    ],
)
def test_columns_that_are_not_there_are_refused_by_name(
    tmp_path: Path, suffix: str, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        found(write_rows(tmp_path / f"m{suffix}", ROWS), **fields)


@pytest.mark.parametrize(
    "fields", [{"prompt_column": "x"}, {"id_column": "x"}, {"metadata_columns": ["x"]}]
)
def test_columns_of_what_has_none_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SpecError, match=f"{next(iter(fields))}=.*only the rows of a manifest"):
        found(tmp_path, **fields)


def test_choices_of_a_column_are_refused_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    prompts = [{"ask": "which?", "choices_column": "options"}]
    with pytest.raises(SpecError, match=r"choices_column='options': only the rows of a manifest"):
        found(tmp_path, prompts=prompts)
    manifest = write_rows(tmp_path / "m.jsonl", [{"image": "a.jpg"}])
    with pytest.raises(SpecError, match="choices_column='options': no such column as 'options'"):
        found(manifest, prompts=prompts)


def test_what_a_later_line_lacks_is_null(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"image": "a.jpg", "n": 1}\n\n{"n": 2}\n{"image": "b.jpg"}')
    rows = found(tmp_path / "m.jsonl", metadata_columns=["n"], prompts=["count {n}"])
    roots = (str(tmp_path),)
    assert rows == [
        Item(f"{tmp_path}/a.jpg", prompts=("count 1",), metadata='{"n": 1}', roots=roots),
        Item("", prompts=("count 2",), metadata='{"n": 2}', roots=roots),
        Item(f"{tmp_path}/b.jpg", prompts=("",), metadata='{"n": null}', roots=roots),
    ]


def test_metadata_keeps_what_json_can_say(tmp_path: Path) -> None:
    values = {
        "number": 1.5,
        "nan": float("nan"),
        "day": date(2024, 2, 29),
        "nested": {"tags": ["ä", None]},
    }
    manifest = write_rows(tmp_path / "m.parquet", [{"image": "a.jpg"} | values])
    (row,) = found(manifest, metadata_columns=list(values), prompts=["on {day}: {number}"])
    expected = values | {"nan": None, "day": "2024-02-29"}
    assert row.metadata == json.dumps(expected, ensure_ascii=False)
    assert row.prompts == ("on 2024-02-29: 1.5",)


@pytest.mark.parametrize("field", ["id_column", "prompt_column", "metadata_columns"])
def test_bytes_are_refused_by_column(tmp_path: Path, field: str) -> None:
    manifest = write_rows(tmp_path / "m.parquet", [{"image": "a.jpg", "raw": b"x"}])
    with pytest.raises(SpecError, match="column 'raw' holds bytes"):
        found(manifest, **{field: ["raw"] if field == "metadata_columns" else "raw"})


def test_a_glob_of_manifests_is_all_their_rows(tmp_path: Path) -> None:
    for name in "ba":
        write_rows(tmp_path / f"{name}.parquet", [{"image": f"{name}{n}.jpg"} for n in range(2)])
    assert uris(tmp_path / "*.parquet") == [f"{tmp_path}/{n}.jpg" for n in ("a0", "a1", "b0", "b1")]
    write_rows(tmp_path / "c.parquet", [{"photo": "c.jpg"}])
    with pytest.raises(SpecError, match=r"c\.parquet.*image_column='image'.*photo"):
        uris(tmp_path / "*.parquet")


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
    roots = ["gs://images/sources", "gs://other"]
    assert uris(f"{root}/lists/m.jsonl", allowed_roots=roots) == [
        f"{root}/sub/c.jpg",
        "gs://other/d.jpg",
    ]
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
            found.append(uris(manifest, "photo", allowed_roots=["/"]))
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == len(names) + 1
