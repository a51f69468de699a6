"""Official files become rows: joined, grouped, with missing and broken ones counted."""

import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from string import Formatter
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from pycocotools import mask as coco_mask

from paliflow.configs import EvaluationSet
from paliflow.configs.base import SpecError
from paliflow.configs.benchmark import benchmark, benchmark_names
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.benchmarks.archives import Archives, open_file
from paliflow.jobs.examples.benchmarks.checking import check
from paliflow.jobs.examples.benchmarks.files import records
from paliflow.jobs.examples.benchmarks.reading import parts_of
from paliflow.jobs.examples.benchmarks.templates import fill, fill_known, static_folder
from paliflow.jobs.examples.example import Example, image_item
from paliflow.jobs.examples.sources import read_examples
from paliflow.jobs.media import places
from paliflow.jobs.media.edits import Edit, Label, Outline
from paliflow.jobs.media.places import is_place
from paliflow.jobs.media.reading import read_content
from paliflow.tests.jobs.benchmark_files import COUNT, WRITERS, write_all


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_all(folder)
    return folder


def rows(data: Path, name: str, **fields: Any) -> list[Example | str]:
    return list(read_examples(EvaluationSet(path=str(data), benchmark=name, **fields), ()))


def examples(data: Path, name: str, **fields: Any) -> list[Example]:
    return [row for row in rows(data, name, **fields) if isinstance(row, Example)]


def test_every_benchmark_has_official_files_in_these_tests() -> None:
    assert set(WRITERS) == set(benchmark_names())


@pytest.mark.parametrize("name", benchmark_names())
def test_rows_of_official_files_have_images_prompts_and_unique_ids(data: Path, name: str) -> None:
    found = examples(data, name)
    assert len({row.id for row in found}) == len(found) > 0
    images = [image for row in found for image in row.images if not is_place(image)]
    lost = [image for image in images if not Path(image).exists()]
    assert len(lost) == (name in ("vqav2", "okvqa", "nlvr2"))
    assert all(row.prefix and all(row.suffixes) for row in found)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("aokvqa_mc", f"answer en  {COUNT} choose from: 3 \t 2 \t none \t many"),
        ("scienceqa", "Question: which?\nContext: N/A\nOptions: (A) this, (B) that\nAnswer:"),
        ("docvqa", f"answer en {COUNT}"),  # as the file has it, with nothing before it
        ("pope", "answer en is it?"),
        ("rsvqa_lr", f"answer en {COUNT.upper()}"),
    ],
)
def test_a_prompt_is_the_template_with_the_rows_texts_as_they_are(
    data: Path, name: str, prefix: str
) -> None:
    assert examples(data, name)[0].prefix == prefix


def test_expressions_have_the_mask_and_the_box_of_their_object(data: Path) -> None:
    found = rows(data, "refcoco")
    assert found.count("no annotation of COCO has its ann_id and image_id") == 2 * 3
    kept = [row for row in found if isinstance(row, Example)]
    assert [row.id for row in kept[:2]] == ["refcoco/2", "refcoco/3"]
    assert {row.id.partition("/")[0] for row in kept} == {"refcoco", "refcoco+", "refcocog"}
    assert kept[1].prefix == "the 1 one"
    assert kept[0].suffixes == ("<loc0256><loc0256><loc0512><loc0767>",)
    for row, box, inside in (
        (kept[0], [0.25, 0.25, 0.5, 0.75], np.s_[10:20, 10:30]),
        (kept[5], [0, 0.5, 1, 0.75], np.s_[:, 20:30]),
    ):
        details = json.loads(row.details or "")
        assert details["box"] == box
        mask = np.zeros((40, 40))
        mask[inside] = 1
        assert np.array_equal(coco_mask.decode(details["mask"]), mask)


def test_a_pickle_that_holds_more_than_plain_data_is_refused(data: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    folder = tmp_path / "refcoco"
    shutil.copytree(data / "refcoco", folder)
    for content, why in (
        (pickle.dumps([Attack()]), "it holds posix.mkdir"),
        (pickle.dumps([{"ann_id": 1}]), "refs is no list of references"),
        (b"not a pickle", "refs is no pickle of plain data"),
    ):
        (folder / "refcoco" / "refs(unc).p").write_bytes(content)
        with pytest.raises(ValueError, match=why):
            rows(tmp_path, "refcoco")
    assert not (tmp_path / "made").exists()


def test_an_image_inside_of_a_parquet_file_is_read_from_its_row(data: Path, tmp_path: Path) -> None:
    found = examples(data, "countbenchqa")
    assert [row.id for row in found] == ["0", "2", "3"]  # of the second the image is gone
    for row in found:
        item = image_item(row.images[0], (str(data),))
        assert read_content(item, ()) == (data / "pictures" / f"{row.id}.png").read_bytes()
        with pytest.raises(OSError, match="outside"):
            read_content(item._replace(roots=(str(tmp_path),)), ())
    assert check("countbenchqa", str(data)).ready
    folder = shutil.copytree(data / "countbenchqa", tmp_path / "countbenchqa")
    (folder / "countbench_paired_questions.json").write_text('[{"question": "how many?"}]')
    with pytest.raises(SpecError, match="1 questions of 4 images: they are joined by their order"):
        rows(tmp_path, "countbenchqa")


def packed(data: Path, name: str, folder: Path, kind: str) -> None:
    """A benchmark's files in one archive, as it is downloaded."""
    folder.mkdir(parents=True)
    files = sorted(path for path in (data / name).rglob("*") if path.is_file())
    if kind == "tar":
        with tarfile.open(folder / "all.tar", "w") as tar:
            for file in files:
                tar.add(file, f"./{file.relative_to(data / name)}")
        return
    with zipfile.ZipFile(folder / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(files):
            how = zipfile.ZIP_STORED if number % 2 else None
            archive.write(file, str(file.relative_to(data / name)), how)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_are_read_in_place_as_their_folders_would_be(
    data: Path, tmp_path: Path, kind: str
) -> None:
    for name in ("vqav2", "refcoco", "xm3600"):
        folder = tmp_path / name
        packed(data, name, folder, kind)
        unpacked, found = examples(data, name), examples(tmp_path, name)
        assert [row[2:] for row in found] == [row[2:] for row in unpacked]
        there = [row for row in unpacked if Path(row.images[0]).exists()]
        assert len(there) == len(unpacked) - (name == "vqav2")
        for row, own in zip(unpacked, found, strict=True):
            item = image_item(own.images[0], (str(tmp_path),))
            if row not in there:
                assert not is_place(own.images[0])
                continue
            assert read_content(item, ()) == Path(row.images[0]).read_bytes()
        assert check(name, str(tmp_path)).missing_images == (name == "vqav2")


def example_record(values: dict[str, Any]) -> bytes:
    """A `tf.train.Example` of lists of bytes, texts or whole numbers."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        value %= 2**64
        low, high = value & 127, value >> 7
        return bytes([low | 128]) + varint(high) if high else bytes([low])

    entries = b""
    for name, own in values.items():
        if isinstance(own[0], int):
            kind, content = 3, field(1, b"".join(map(varint, own)))
        else:
            texts = (each.encode() if isinstance(each, str) else each for each in own)
            kind, content = 1, b"".join(field(1, each) for each in texts)
        feature = field(kind, content)
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def prepare(folder: Path, split: str, records: list[bytes], kind: str) -> list[Path]:
    """Two shards of records, as TFDS writes them; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [records[: len(records) // 2], records[len(records) // 2 :]]
    files = [folder / f"data-{split}.{kind}-{n:05d}-of-00002" for n in range(2)]
    for file, own in zip(files, shards, strict=True):
        if kind == "parquet":
            pq.write_table(pa.table({"data": pa.array(own, pa.binary())}), file, row_group_size=1)
        elif kind == "array_record":
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for record in own:
                writer.write(record)
            writer.close()
        else:
            file.write_bytes(b"".join(map(tfrecord, own)))
    lengths = [str(len(own)) for own in shards]
    splits = [{"name": split, "shardLengths": lengths}, {"name": "other", "shardLengths": []}]
    about = {"name": "data", "fileFormat": kind, "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    return files


def tfrecord(record: bytes) -> bytes:
    size = len(record).to_bytes(8, "little")
    return size + masked(size) + record + masked(record)


def masked(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32).to_bytes(4, "little")


@pytest.mark.parametrize("kind", ["tfrecord", "array_record", "parquet"])
def test_folders_of_tfds_are_read_without_tensorflow(data: Path, tmp_path: Path, kind: str) -> None:
    pictures = [(data / "pictures" / f"{n}.png").read_bytes() for n in range(4)]
    records = [
        example_record(
            {
                **{
                    "question_id": [n - 1],
                    "question_text": [f"q{n}"],
                    "answers": ["a", "b\n", "ü"],
                },
                **{"image": [picture], "answer_type": ["other"], "mask": [b"\xff"]},
            }
        )
        for n, picture in enumerate(pictures)
    ]
    prepare(tmp_path / "vqa" / "2.9.0", "validation", records[:2], kind)
    files = prepare(tmp_path / "vqa" / "2.10.0", "validation", records, kind)
    found = examples(tmp_path, "vqav2")
    assert [(row.id, row.prefix) for row in found] == [
        (str(n - 1), f"answer en q{n}") for n in range(4)
    ]
    assert {row.suffixes for row in found} == {("a", "b\n", "ü")}
    details = {"groups": {"answer_type": ["other"], "question_type": []}, "key": -1}
    assert json.loads(found[0].details or "") == details
    for row, picture in zip(found, pictures, strict=True):
        item = image_item(row.images[0], (str(tmp_path),))
        assert read_content(item, ()) == picture
        with pytest.raises(OSError, match="outside"):
            read_content(item._replace(roots=("/elsewhere",)), ())
    assert check("vqav2", str(tmp_path)).ready
    with pytest.raises(SpecError, match="lacks v2_OpenEnded_mscoco_train2014"):
        rows(tmp_path, "vqav2", split="train")
    content = files[1].read_bytes()
    files[1].write_bytes(content[:-20])
    places._array_record.cache_clear()
    with pytest.raises(SpecError, match=rf"{files[1].name} (has 0 records|breaks off|is broken)"):
        rows(tmp_path, "vqav2")
    if kind == "array_record":
        files[1].write_bytes(content[:200] + b"broken" + content[206:])
        places._array_record.cache_clear()
        with pytest.raises(SpecError, match=rf"{files[1].name} is broken: Corrupted"):
            rows(tmp_path, "vqav2")
    if kind == "parquet":
        pq.write_table(pa.table({"other": [b"", b""]}), files[1])
        with pytest.raises(SpecError, match=rf"{files[1].name} has no column 'data'"):
            rows(tmp_path, "vqav2")
    if kind == "tfrecord":
        for broken in (content[:30] + b"?" + content[31:], content[: len(content) // 2]):
            files[1].write_bytes(broken)
            with pytest.raises(SpecError, match=r"is broken|has 1 records, and not 2"):
                rows(tmp_path, "vqav2")


PREPARED = {
    "cococap": "coco_captions/2014",
    "countbenchqa": "countbench_qa",
    "docvqa": "doc_vqa",
    "gqa": "gqa",
    "infovqa": "infovqa",
    "okvqa": "ok_vqa",
    "textcaps": "text_caps",
    "vqav2": "vqa",
    "xgqa": "xgqa",
    "xm3600": "xm3600",
}
"""Where TFDS writes what its builder or big_vision's prepares, as the builders' classes and configs
are called; below it are the versions."""


@pytest.mark.parametrize("name", [name for name in benchmark_names() if benchmark(name).prepared])
def test_prepared_rows_have_what_the_benchmark_names(data: Path, tmp_path: Path, name: str) -> None:
    known = benchmark(name)
    how = known.prepared
    assert how
    picture = (data / "pictures" / "0.png").read_bytes()
    asked = [part[1] for part in Formatter().parse(known.prefix) if part[1]]
    fields = {path for path in asked if path not in known.parts}
    fields = {how.names.get(path, path) for path in fields}
    fields |= {str(how.rows.answers), *how.rows.groups.values()} | ({how.rows.key or ""} - {""})
    fields |= {part[1] for part in Formatter().parse(how.rows.id) if part[1]}
    record = example_record({**{path: ["7"] for path in fields}, how.image: [picture]})
    for number, part in enumerate(parts_of(known, None)):
        split = fill(how.splits.get(part.split, how.split), part.values)
        prepare(tmp_path / PREPARED[name] / f"1.0.{number}", split, [record] * 2, "tfrecord")
    found = rows(tmp_path, name)
    assert found.count("a row whose id another has") == len(found) / 2
    for row in (each for each in found if isinstance(each, Example)):
        assert read_content(image_item(row.images[0], None), ()) == picture
        assert row.suffixes == ("7",)


def test_a_broken_archive_is_an_error_and_what_is_broken_in_one_an_error_row(
    data: Path, tmp_path: Path
) -> None:
    packed(data, "gqa", tmp_path / "gqa", "zip")
    archive = tmp_path / "gqa" / "all.zip"
    found = examples(tmp_path, "gqa")
    content = archive.read_bytes()
    places = [image_item(row.images[0], None) for row in found]
    for item in places:
        at = (item.offset or 0) + 60  # within the pixels
        archive.write_bytes(content[:at] + b"broken" + content[at + 6 :])
        with pytest.raises(ValueError, match="the zip's entry is broken"):
            read_content(item, ())
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(SpecError, match=r"all\.zip is broken"):
        rows(tmp_path, "gqa")


@pytest.mark.parametrize("name", ["all.tar", "annotations.tar", "all.zip", "annotations.zip"])
def test_a_list_is_read_from_the_member_that_was_found_whatever_else_has_its_name(
    tmp_path: Path, name: str
) -> None:
    wanted, other = b'[{"is": "wanted"}]', b'[{"is": "another"}]'
    members = [("test.json", other), ("./annotations/test.json", wanted)]
    if name.endswith(".tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            link = tarfile.TarInfo("annotations/test.json")
            link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(link)
            for member, content in members:
                header = tarfile.TarInfo(member)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in members:
                archive.writestr(member, content)
    found = Archives([str(tmp_path)]).find_file("annotations/test.json")
    assert found
    assert list(records(found)) == [{"is": "wanted"}]


def test_an_archive_that_breaks_off_and_a_wrong_description_are_said_of_their_benchmarks(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data / "gqa", tmp_path / "gqa")
    packed(data, "docvqa", tmp_path / "docvqa", "zip")
    (whole,) = (tmp_path / "docvqa").iterdir()
    whole.write_bytes(whole.read_bytes()[:-30])
    found = check("docvqa", str(tmp_path))
    assert (found.ready, found.missing != ()) == (False, True)
    assert found.broken == ("all.zip is broken: File is not a zip file",)
    assert check("gqa", str(tmp_path)).ready
    shutil.copy(whole, tmp_path / "common.zip")  # whatever may be in it
    found = check("gqa", str(tmp_path))
    assert (found.ready, found.missing, len(found.broken)) == (False, (), 1)
    with pytest.raises(SpecError, match=r"common\.zip is broken"):
        rows(tmp_path, "gqa")
    info = prepare(tmp_path / "vqa" / "1.0.0", "validation", [], "tfrecord")[0].parent
    for content, said in (
        ("[", "Invalid JSON"),
        ('{"splits": [7]}', "splits.0=7: Input should be"),
        ('{"splits": [{"name": "validation", "shardLengths": null}]}', "shardLengths=None"),
        ('{"fileFormat": "riegeli"}', "fileFormat='riegeli': Input should be 'tfrecord'"),
    ):
        (info / "dataset_info.json").write_text(content)
        with pytest.raises(SpecError, match=rf"vqa/1\.0\.0/dataset_info\.json is broken: .*{said}"):
            check("vqav2", str(tmp_path))


def test_a_place_inside_of_a_file_is_for_readers_alone_to_say(data: Path, tmp_path: Path) -> None:
    packed(data, "gqa", tmp_path / "gqa", "zip")
    place = examples(tmp_path, "gqa")[0].images[0]
    stolen = {"image": place, "prefix": "ocr", "suffix": "x"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(stolen))
    source = ExampleSource(path=str(tmp_path / "labels.jsonl"))
    assert list(read_examples(source, ())) == ["an image's name has #place= in it"]
    row = {"image": "a.zip#place=0+9", "image_id": 1, "question_id": 1, "question": "q"}
    (tmp_path / "test.json").write_text(json.dumps([row | {"answer": 1}]))
    assert rows(tmp_path, "tallyqa") == ["an image's path leads out of its folder"]


def test_joined_records_belong_to_each_other_whatever_their_order(data: Path) -> None:
    found = examples(data, "vqav2")
    assert [row.id for row in found] == ["0", "10", "20", "30", "40"]
    assert [row.suffixes.count(row.suffixes[0]) for row in found] == [3, 4, 5, 6, 7]
    details = json.loads(found[0].details or "")
    groups = {"answer_type": ["number"], "question_type": ["how many"]}
    assert details == {"key": 0, "groups": groups}  # the key is a number, as the server's is


def test_records_of_one_screen_are_one_row_and_those_without_answers_are_counted(
    data: Path,
) -> None:
    *found, lost = rows(data, "screen2words")
    assert lost == "a screen without summaries"
    assert [row.id for row in found if isinstance(row, Example)] == ["0", "2", "3"]
    assert isinstance(found[0], Example)
    assert found[0].suffixes == ('digits, "0" of them\non a page', "some digits")


def test_captions_of_one_image_are_its_right_answers(data: Path) -> None:
    found = examples(data, "cococap")
    assert [(row.id, len(row.suffixes)) for row in found] == [("0", 5), ("1", 6), ("2", 5)]
    assert found[1].suffixes[2] == 'a page with 1 digits, "2".'
    found = examples(data, "nocaps")
    assert found[1].suffixes == ("caption 1 of a page", "caption 5 of a page")
    assert found[1].images[0].endswith("validation/0001.jpg")
    assert json.loads(found[1].details or "")["groups"] == {"domain": ["out-domain"]}
    assert examples(data, "textcaps")[0].suffixes == ("The Page 0", "The Page 4")


def test_captions_of_many_languages_are_rows_of_each(data: Path) -> None:
    found = {row.id: row for row in examples(data, "coco35l")}
    assert len(found) == 2 * 35
    assert found["sw/1"].prefix == "caption sw"
    assert found["sw/1"].suffixes == ("sw 1", "sw 1")
    # English is what German was translated from.
    assert found["en/1"].suffixes == (
        "a page with 1 digits , take 0",
        "a page with 1 digits , take 1",
    )
    xm3600 = examples(data, "xm3600")
    assert (len(xm3600), xm3600[-1].suffixes) == (2 * 36, ("zh 1\u2028digits",))


def test_scientific_captions_are_whole_and_a_missing_one_is_counted(data: Path) -> None:
    *found, lost = rows(data, "scicap")
    assert lost == "a figure without a caption"
    assert isinstance(found[1], Example)
    assert found[1].suffixes == ("a figure of 1 digits . and more of it",)


def test_a_widget_is_outlined_where_its_screens_tree_has_it(data: Path) -> None:
    found = rows(data, "widgetcap")
    assert found.count("a widget that its screen's tree lacks") == 2
    kept = [row for row in found if isinstance(row, Example)]
    assert [row.id for row in kept][:4] == ["0_0.1.0", "0_0.0", "2_0.1.0", "2_0.0"]
    assert kept[2].suffixes == ("digit 2", "a, digit", "another")
    edit = Edit.model_validate_json(kept[2].edit or "")
    assert edit == Edit(outline=Outline(box=(0, 1280, 640, 2559), canvas_height=2560))


def test_letters_cover_the_labels_of_a_diagram_where_the_question_is_about_them(data: Path) -> None:
    found = rows(data, "ai2d")
    assert found[-1] == "a diagram without the labels that its question is about"
    kept = [row for row in found if isinstance(row, Example)]
    assert [row.id for row in kept] == [
        "0.png-0",
        "0.png-1",
        "2.png-0",
        "2.png-1",
        "3.png-0",
    ]
    assert kept[0].prefix.startswith(f"answer en  {COUNT} choose from: none \t ")
    assert kept[0].edit is None
    label = Label(box=(4, 8, 24, 28), text="A")
    assert Edit.model_validate_json(kept[1].edit or "") == Edit(labels=(label,))
    assert [row.id for row in examples(data, "ai2d", split="train")] == ["1.png-0", "1.png-1"]


def test_images_are_turned_by_a_table_where_there_is_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = ['{"turns":1}', None, '{"turns":2}']
    assert [row.edit for row in examples(data, "textvqa")] == [None, *turned]
    assert "turned" not in capsys.readouterr().out
    shutil.copytree(data / "textvqa", tmp_path / "textvqa")
    table = tmp_path / "textvqa" / "train-images-boxable-with-rotation.csv"
    table.write_text("ImageID,Rotation\na1,45\n")
    with pytest.raises(SpecError, match="Rotation=45 is no multiple of 90"):
        rows(tmp_path, "textvqa")
    table.unlink()
    assert [row.edit for row in examples(tmp_path, "textvqa")] == [None] * 4
    said = capsys.readouterr().out
    assert "no image is turned: " in said
    assert check("textvqa", str(tmp_path)).ready


def test_each_segment_of_a_video_is_a_row_of_its_own(data: Path) -> None:
    *found, lost = rows(data, "activitynet_cap")
    assert lost == "a segment that ends before it begins"
    kept = [row for row in found if isinstance(row, Example)]
    assert [(row.id, row.edit) for row in kept] == [
        ("v_a-b[0-0.05]", '{"segment":[0.0,0.05]}'),
        ("v_a-b[0.08-99.5]", '{"segment":[0.08,99.5]}'),
        ("v_a-b[0.08-99.5]-2", '{"segment":[0.08,99.5]}'),
    ]
    assert {row.images for row in kept} == {kept[0].images}


def test_two_images_and_all_pairs_of_a_sentence_belong_together(data: Path) -> None:
    found = examples(data, "nlvr2")
    assert [Path(image).name for image in found[2].images] == [
        "test1-1-0-img0.png",
        "test1-1-0-img1.png",
    ]
    assert [json.loads(row.details or "")["cluster"] for row in found] == [
        *["test1-0-0"] * 2,
        *["test1-1-0"] * 2,
    ]
    marvl = examples(data, "marvl")
    assert [row.suffixes for row in marvl] == [("True",), *[("False",)] * 4]
    assert all(len(row.images) == 2 for row in marvl)


def test_videos_are_found_by_their_names_whatever_their_suffix(data: Path) -> None:
    names = ("activitynet_qa", "msvd_qa", "msrvtt_cap", "vatex")
    assert [Path(examples(data, name)[0].images[0]).name for name in names] == [
        "v_a-b.mkv",
        "abc_1_2.avi",
        "video0.mp4",
        "abc_000001_000011.mp4",
    ]
    (only,) = examples(data, "msrvtt_cap")
    assert only.suffixes == ("digits 0", "digits 1", "digits 2")


def test_questions_of_a_pair_are_put_together(data: Path) -> None:
    details = [json.loads(row.details or "") for row in examples(data, "mmvp")]
    assert [own["cluster"] for own in details] == ["1", "1", "2", "2"]


def test_parts_and_splits_are_groups_and_stand_in_ids(data: Path) -> None:
    assert [row.id for row in examples(data, "chartqa")][3:5] == ["human/3", "augmented/0"]
    found = examples(data, "rsvqa_hr")
    assert [row.id for row in found] == [
        f"{s}/{n}" for s in ("test", "test_phili") for n in range(4)
    ]
    assert json.loads(found[4].details or "")["groups"] == {
        "split": ["test_phili"],
        "type": ["count"],
    }
    alone = examples(data, "rsvqa_hr", split="test_phili")
    assert [row.id for row in alone] == ["0", "1", "2", "3"]


def test_empty_answers_are_none_and_training_answers_may_be_lower_case(data: Path) -> None:
    assert "" not in examples(data, "vizwiz")[0].suffixes
    learnt = read_examples(ExampleSource(path=str(data), benchmark="stvqa"), ())
    assert [row.suffixes[1] for row in learnt if isinstance(row, Example)] == ["two"] * 4
    assert examples(data, "stvqa")[0].suffixes[1] == "Two"


def test_files_may_lie_in_the_folder_itself_and_a_missing_one_is_named(
    data: Path, tmp_path: Path
) -> None:
    assert rows(data / "gqa", "gqa") == rows(data, "gqa")
    with pytest.raises(SpecError, match=r"split 'val': .* lacks v2_OpenEnded_mscoco_val2014_ques"):
        rows(tmp_path, "vqav2")


def test_what_is_not_in_the_official_form_is_an_error_or_a_counted_row(tmp_path: Path) -> None:
    file = tmp_path / "aokvqa_v1p0_val.json"
    good = {"question_id": "a", "image_id": 1, "question": "q", "direct_answers": ["x"]}
    bad = [{**good, "question_id": "b", "direct_answers": []}, {"question_id": "c"}, good]
    file.write_text(json.dumps([good, *bad]))
    found = rows(tmp_path, "aokvqa_da")
    assert [row for row in found if isinstance(row, str)] == [
        "no answer",
        "no field 'question'",
        "a row whose id another has",
    ]
    file.write_text(json.dumps([{**good, "image_id": "../../1"}]))
    (said,) = rows(tmp_path, "aokvqa_da")
    assert isinstance(said, str)  # no number, which the path needs
    for content, expected in (("[1", "is broken"), ('"a"', "no list of records")):
        file.write_text(content)
        with pytest.raises(SpecError, match=expected):
            rows(tmp_path, "aokvqa_da")


def test_a_path_that_leads_out_of_the_data_is_no_row(tmp_path: Path) -> None:
    row = {"image": "../a.jpg", "image_id": 1, "question_id": 1, "question": "q", "answer": 1}
    (tmp_path / "test.json").write_text(json.dumps([row]))
    assert rows(tmp_path, "tallyqa") == ["an image's path leads out of its folder"]


def test_checking_counts_rows_and_says_what_lacks(data: Path, tmp_path: Path) -> None:
    found = check("vqav2", str(data))
    assert (found.rows, found.images, found.missing_images, found.ready) == (5, 5, 1, False)
    assert (found.example or "").endswith("COCO_val2014_000000000005.jpg")
    assert check("gqa", str(data)).ready
    assert check("screen2words", str(data)).reasons == {"a screen without summaries": 1}
    lacks = check("docvqa", str(tmp_path)).missing
    assert lacks == ("val_v1.0_withQT.json or val/val_v1.0.json or val_v1.0.json",)


def test_a_template_takes_fields_by_their_path_and_no_attributes() -> None:
    record = {"a": {"b": [1, 2]}, "id": "7", "x.y": "dotted"}
    assert fill("{a.b}-{id:03d}-{x.y}", record, "+") == "1+2-007-dotted"
    assert fill(fill_known("{part}/{{}}{id:03d}", {"part": "p"}), record) == "p/{}007"
    assert [static_folder(each) for each in ("a/b/c_{x}.jpg", "{x}/a.jpg", "a.jpg")] == [
        "a/b",
        "",
        "",
    ]
    with pytest.raises(ValueError, match=r"no field 'a\.__class__'"):
        fill("{a.__class__}", record)


def test_who_reads_a_file_in_an_archive_keeps_its_own_errors(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("list.txt", b"line\n" * 1000)
    found = Archives([str(tmp_path)]).find_file("list.txt")
    assert found
    with open_file(found) as file:
        assert file.readline() == b"line\n"
    with pytest.raises(RuntimeError, match=r"^of the reader$"), open_file(found):
        raise RuntimeError("of the reader")
    whole = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(whole[:40] + b"\xff" * 8 + whole[48:])
    with pytest.raises(ValueError, match=r"all\.zip is broken"), open_file(found) as file:
        file.read()
