"""Listing: files that are not the user's, images of any name, and what is said of the others."""

import io
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import passed_over_said
from paliflow.jobs.annotate.job import _plan, annotate
from paliflow.jobs.cli.printing import print_rows
from paliflow.jobs.media.pixels import decode
from paliflow.jobs.registry.checkpoints import digests_of
from paliflow.jobs.report.page import REPORT
from paliflow.jobs.sources.items import IMAGE_SUFFIXES, items
from paliflow.jobs.sources.listing import Choice, is_hidden
from paliflow.model.images import has_image_magic
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.outputs import commit_parts
from paliflow.tests.jobs.sources.test_tars import tar_of

JPEG = encode("RGB", "JPEG")
HIDDEN = ["._a.jpg", "__MACOSX/a.jpg", "__MACOSX/._a.jpg", ".cache/a.jpg", ".DS_Store", "Thumbs.db"]


def psd() -> bytes:
    """Three channels of 4 x 2 pixels, each of one value."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 2, 4, 8, 3)
    return header + bytes(12) + struct.pack(">H", 0) + b"".join(bytes([v]) * 8 for v in (9, 8, 7))


def mpo() -> bytes:
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    return file.getvalue()


IMAGES = {
    "b.HEIC": JPEG,
    "c.jp2": encode("RGB", "JPEG2000"),
    "d.tga": encode("RGB", "TGA"),
    "e.mpo": mpo(),
    "f.psd": psd(),
    "g": encode("RGB", "PNG"),
    "h.tga": encode("L", "TGA", compression="tga_rle"),
    "i.tga": encode("P", "TGA"),
    "j.dat": encode("RGB", "BMP"),
    "k.dat": encode("RGB", "PPM"),
    "l.dat": encode("RGB", "WEBP"),
}
TEXTS = {
    "m.txt": b"Python is a text, and PPM begins with P",
    "n": b"BMW is none, either: BMP begins with BM",
    "o.csv": b"a,b,c\n1,2,3\n" * 20,
    "p.json": b'{"image": "b.HEIC"}' * 20,
    "q.bin": bytes(200),
    "r.bin": b"\x00\x01\x02" * 60,
    "s": b"",
}


def listed(source: Path, **fields: object) -> tuple[list[str], Counter[str]]:
    """Names of inputs, and what was passed over."""
    spec = {"input": str(source), "output": "/nowhere", "run_id": "test", "prompts": ["ocr"]}
    passed_over: Counter[str] = Counter()
    found = list(items(AnnotateSpec.parse(spec | fields), passed_over))
    return [item.uri.removeprefix(str(source)).lstrip("/#") for item in found], passed_over


def as_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "in" / name).write_bytes(content)
    return path / "in"


def as_tar(path: Path, files: dict[str, bytes]) -> Path:
    (path / "in.tar").write_bytes(tar_of(files))
    return path / "in.tar"


KINDS = pytest.mark.parametrize("write", [as_folder, as_tar])
Write = Callable[[Path, dict[str, bytes]], Path]


@KINDS
def test_files_that_are_not_the_users_are_passed_over_and_counted(
    write: Write, tmp_path: Path
) -> None:
    files = dict.fromkeys(["a.jpg", "sub/b.png", "notes.TXT", "x.json", "Makefile", *HIDDEN], JPEG)
    names, passed_over = listed(write(tmp_path, files))
    assert names == ["a.jpg", "sub/b.png"]
    assert passed_over == {"hidden": 6, ".txt": 1, ".json": 1, "no suffix": 1}


def test_a_glob_matches_no_hidden_file_unless_it_names_one(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, dict.fromkeys(["a.jpg", *HIDDEN], JPEG))
    names, passed_over = listed(folder / "**" / "*")
    assert [Path(name).name for name in names] == ["a.jpg"]
    assert passed_over == {"hidden": 2}  # by Python's glob, which knows names that begin with a dot
    assert len(listed(folder / "._*")[0]) == 1


def test_a_folder_that_is_hidden_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.jpg").write_bytes(JPEG)
    assert listed(tmp_path / ".hidden")[0] == ["a.jpg"]


@KINDS
def test_sniffing_finds_readable_images_whatever_their_name(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path, IMAGES | TEXTS)
    assert listed(source)[0] == ["b.HEIC", "c.jp2"]
    names, passed_over = listed(source, sniff=True)
    assert names == list(IMAGES)
    assert passed_over == {".txt": 1, "no suffix": 2, ".csv": 1, ".json": 1, ".bin": 2}


@pytest.mark.parametrize("name", IMAGES)
def test_what_sniffing_finds_is_decoded(name: str) -> None:
    decoded = decode(IMAGES[name], 10**6)
    assert not isinstance(decoded, str), decoded
    if name == "f.psd":
        assert decoded.image.size == (4, 2)
        assert decoded.image.getpixel((0, 0)) == (9, 8, 7)


def test_what_no_one_can_look_into_becomes_a_row_that_says_so() -> None:
    passed_over: Counter[str] = Counter()

    def head() -> bytes:
        raise PermissionError(13, "no access")

    assert Choice((".jpg",), True, passed_over).takes("a", head)
    assert not passed_over


def test_heic_is_read_with_its_extra_and_without_it_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = encode("RGB", "HEIF", size=(64, 48))
    decoded = decode(content, 10**6)
    assert not isinstance(decoded, str), decoded
    assert (decoded.width, decoded.height) == (64, 48)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    said = decode(content, 10**6)
    assert said == (
        "unsupported image: HEIC is read with pillow-heif; install paliflow[heif] where actors run"
    )
    avif = decode(encode("RGB", "AVIF", size=(64, 48)), 10**6)
    assert not isinstance(avif, str), avif


def test_a_git_lfs_pointer_is_no_image_and_says_what_to_do() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    said = "not an image, but a Git LFS pointer: `git lfs pull` fetches the file"
    assert decode(pointer, 10**6) == said


def test_suffixes_without_end_are_counted_together() -> None:
    choice = Choice((".jpg",), False, Counter())
    for number in range(1000):
        assert not choice.takes(f"film.{number}", bytes)
        assert not choice.takes(f"film.a rather long and \x1b[31m red one {number}", bytes)
    assert len(choice.passed_over) <= 51
    assert choice.passed_over.total() == 2000
    assert "\x1b" not in passed_over_said(choice.passed_over)


def test_an_input_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    folder = as_folder(tmp_path, {"a.tga": IMAGES["d.tga"], "b.tga": b"", ".DS_Store": b""})
    with pytest.raises(SpecError, match=r"no images there \(passed over: 2 \.tga, 1 hidden\)"):
        listed(folder)


def test_the_manual_names_every_suffix() -> None:
    manual = Path(__file__, "../../../../docs/input.md").resolve().read_text()
    assert f"`{' '.join(IMAGE_SUFFIXES)}`" in manual
    for suffix in (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".jsonl.gz", ".tar"):
        assert f"`{suffix}`" in manual


def test_sniffing_is_for_images() -> None:
    with pytest.raises(SpecError, match="sniff finds images"):
        AnnotateSpec.parse(
            {"input": "in", "output": "out", "run_id": "r", "prompts": ["ocr"], "sniff": True}
            | {"video": {"fps": 1}}
        )


def test_what_was_passed_over_is_said_at_the_start_in_the_manifest_and_in_the_report(
    make_spec: SpecFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_folder(tmp_path, {"a.jpg": JPEG, "b.txt": b"", "c.txt": b"", "._a.jpg": b""})
    spec = make_spec(input=str(folder), report=True)
    _plan(spec.location, spec, digests_of, items)
    commit_parts(spec, items(spec), [0])
    summary = annotate(spec, Console(force_terminal=False))
    assert summary.passed_over == {".txt": 2, "hidden": 1}
    assert "passed over in the input: 2 .txt, 1 hidden\n" in capsys.readouterr().out
    page = storage.read_bytes(f"{summary.location}/{REPORT}").decode()
    assert "<h2>Passed over <small>files of the input</small></h2>" in page
    assert '<span class="name">.txt</span><span class="count">2</span>' in page


def test_answers_that_were_cut_are_counted_in_the_manifest_the_report_and_the_terminal(
    make_spec: SpecFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_folder(tmp_path, {f"{n}.jpg": JPEG for n in range(3)})
    spec = make_spec(input=str(folder), report=True)
    commit_parts(spec, items(spec), [0], finished=lambda prompt: prompt != "caption en")
    summary = annotate(spec, Console(force_terminal=False))
    assert (summary.rows, summary.cut) == (6, 3)
    page = storage.read_bytes(f"{summary.location}/{REPORT}").decode()
    assert "<dt>Cut</dt><dd>3 <small>by max_new_tokens</small></dd>" in page
    print_rows(Console(force_terminal=False), summary)
    assert "6 rows, 0 of them errors, 3 cut by max_new_tokens, from 3" in capsys.readouterr().out


@given(st.binary(max_size=80))
def test_any_head_is_an_image_or_not(head: bytes) -> None:
    assert has_image_magic(head) in (True, False)


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), min_size=1))
def test_a_name_is_hidden_if_any_part_of_it_is(parts: list[str]) -> None:
    assert is_hidden("/".join(parts)) == any(is_hidden(part) for part in parts)
