"""Roots: a file of names leads to what lies below its folder or is allowed, and nowhere else."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow import storage
from paliflow.configs import AnnotateSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.examples import ExampleSource
from paliflow.jobs.examples.example import image_item
from paliflow.jobs.examples.sources import Example, read_examples
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import read_content, read_input
from paliflow.jobs.runs.paths import with_absolute_paths
from paliflow.jobs.runs.plan import Item
from paliflow.jobs.sources.items import items
from paliflow.jobs.sources.tables import resolve
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode, write_rows
from paliflow.tests.jobs.outputs import finish

PNG = encode("RGB", "PNG")
OUTSIDE = "no access: it lies outside of its manifest's folder and of allowed_roots"


def spec_of(source: object, **fields: Any) -> AnnotateSpec:
    given = {"input": str(source), "output": "/nowhere", "run_id": "test", "prompts": ["ocr"]}
    return AnnotateSpec.parse(given | fields)


def errors(source: object, **fields: Any) -> list[str | None]:
    """What becomes of each input; None of one that is read."""
    read = (
        read_input(item, size=8, max_pixels=9999, thumbnail=None, https_hosts=())
        for item in items(spec_of(source, **fields))
    )
    return [each.error for each in read]


def line_of(refused: pytest.ExceptionInfo[SpecError]) -> list[str]:
    """The roots that an error says to add."""
    (found,) = re.findall(r"allowed_roots=(\[.*?\])", str(refused.value))
    roots: list[str] = json.loads(found)
    return roots


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder `in` with twenty images, beside `in2`, `secret.png` and a link `linked` to `in`."""
    for name in ("in", "in2"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    return tmp_path


GOOD = [{"image": f"{number}.png"} for number in range(20)]


@pytest.mark.parametrize(
    "row",
    [
        *(
            "/etc/passwd",
            "/proc/self/environ",
            "../secret.png",
            "../in2/0.png",
            "x/../../in2/0.png",
        ),
        *("//etc/passwd", "{data}/in2/0.png", "{data}/in/../secret.png", "gs://bucket/0.png"),
        *("s3://bucket/0.png", r"\x2e\x2e/secret.png", "./../secret.png", "out/secret.png"),
        *("leads out.png", "..", "/"),
    ],
)
def test_a_row_that_leads_out_of_the_manifests_folder_is_an_error_row(data: Path, row: str) -> None:
    (data / "in" / "out").symlink_to(data)
    (data / "in" / "leads out.png").symlink_to("../secret.png")
    rows = [*GOOD, {"image": row.format(data=data)}]
    *good, bad = errors(write_rows(data / "in" / "m.jsonl", rows))
    assert good == [None] * 20
    assert bad == (OUTSIDE if "x2e" not in row else "not found")


def test_allowed_roots_let_in_what_lies_below_them(data: Path) -> None:
    rows = [*GOOD, {"image": "../in2/0.png"}, {"image": "../secret.png"}, {"image": "../in/1.png"}]
    manifest = write_rows(data / "in" / "m.csv", rows)
    assert errors(manifest, allowed_roots=[f"{data}/in2/"]) == [None] * 21 + [OUTSIDE, None]
    (data / "in" / "a.png").symlink_to("../in2/0.png")
    manifest = write_rows(data / "in" / "m.csv", [*GOOD, {"image": "a.png"}])
    assert errors(manifest) == [None] * 20 + [OUTSIDE]
    assert errors(manifest, allowed_roots=[f"{data}/in2"]) == [None] * 21


def test_a_folder_that_is_a_link_is_the_folder_it_leads_to(data: Path) -> None:
    write_rows(data / "in" / "m.csv", GOOD)
    assert errors(data / "linked" / "m.csv") == errors(data / "linked") == [None] * 20


@pytest.mark.parametrize("source", ["in", "in/*.png", "linked"])
def test_a_link_that_leads_out_of_a_folder_or_a_glob_is_an_error_row(
    data: Path, source: str
) -> None:
    (data / "in" / "9.png").unlink()
    (data / "in" / "9.png").symlink_to("../secret.png")
    (data / "in" / "8.png").unlink()
    (data / "in" / "8.png").symlink_to("7.png")
    assert errors(data / source).count(OUTSIDE) == 1
    assert errors(data / source).count(None) == 19
    assert errors(data / source, allowed_roots=[str(data)]) == [None] * 20


def test_a_single_file_is_the_users_own_word(data: Path) -> None:
    (data / "in" / "link.png").symlink_to("../secret.png")
    assert errors(data / "in" / "link.png") == [None]


def test_manifests_and_tars_of_a_glob_that_lead_out_are_refused(data: Path) -> None:
    with tarfile.open(data / "secret.tar", "w") as tar:
        tar.add(data / "secret.png", "a.png")
    write_rows(data / "secret.csv", GOOD)
    for suffix in ("tar", "csv"):
        (data / "in" / f"a.{suffix}").symlink_to(f"../secret.{suffix}")
        with pytest.raises(SpecError, match=rf"in/a\.{suffix}'.*lies outside"):
            errors(data / "in" / f"*.{suffix}")
    assert errors(data / "in" / "*.tar", allowed_roots=[str(data)]) == [None]


def test_a_link_that_is_made_after_planning_leads_nowhere(data: Path) -> None:
    (first, *_) = items(spec_of(write_rows(data / "in" / "m.csv", GOOD)))
    (data / "in" / "0.png").unlink()
    (data / "in" / "0.png").symlink_to("../secret.png")
    with pytest.raises(storage.OutsideError):
        read_content(first, ())


def test_many_rows_outside_end_planning_with_the_line_to_add(data: Path) -> None:
    rows = [{"image": f"{data}/in2/{n % 20}.png"} for n in range(150)]
    rows += [{"image": "gs://shop/a/1.png"}, {"image": "gs://shop/b/2.png"}]
    manifest = write_rows(data / "in" / "many.csv", rows[1:])
    with pytest.raises(SpecError, match=r"100 of 100 inputs lie outside of .*in'") as refused:
        errors(manifest)
    assert line_of(refused) == [f"{data}/in2"]
    with pytest.raises(SpecError, match="3 of 3 inputs lie outside") as refused:
        errors(write_rows(data / "in" / "m.csv", rows[-3:]))
    roots = line_of(refused)
    assert roots == [f"{data}/in2", "gs://shop"]
    assert len(list(items(spec_of(manifest, allowed_roots=roots)))) == 151
    # No more than the run may have errors: some are taken.
    some = write_rows(data / "in" / "m.csv", [*GOOD, *rows[:2], *GOOD])
    assert errors(some, max_error_fraction=0.05).count(OUTSIDE) == 2
    with pytest.raises(SpecError, match="2 of 42 inputs lie outside"):
        errors(some, max_error_fraction=0.04)


def test_many_links_that_lead_out_end_planning_with_the_line_to_add(data: Path) -> None:
    (data / "links").mkdir()
    for number in range(20):
        (data / "links" / f"{number}.png").symlink_to(f"../in2/{number}.png")
    with pytest.raises(SpecError, match="20 of 20 inputs lie outside") as refused:
        errors(data / "links")
    assert line_of(refused) == [f"{data}/in2"]
    assert errors(data / "links", allowed_roots=line_of(refused)) == [None] * 20


def test_a_remote_manifest_never_names_a_local_file(gcs: None, data: Path) -> None:
    names = ["0.png"] * 3 + ["/etc/passwd", f"{data}/in/0.png", "gs://images/elsewhere/0.png"]
    lines = "".join(json.dumps({"image": name}) + "\n" for name in names)
    for name, content in {
        "far/0.png": PNG,
        "elsewhere/0.png": PNG,
        "far/m.jsonl": lines.encode(),
    }.items():
        storage.overwrite(f"gs://images/{name}", io.BytesIO(content))
    roots = ["/", str(data), "gs://images/elsewhere"]
    far: dict[str, Any] = {"source": "gs://images/far/m.jsonl", "max_error_fraction": 1}
    assert errors(**far) == [None] * 3 + [OUTSIDE] * 3
    assert errors(**far, allowed_roots=roots) == [None] * 3 + [OUTSIDE] * 2 + [None]
    storage.overwrite("gs://images/far/m.jsonl", io.BytesIO(b'{"image": "/etc/passwd"}\n'))
    with pytest.raises(SpecError, match="No root allows that: a remote file names no local one"):
        errors(**far, allowed_roots=roots)


def test_a_place_in_a_file_is_the_planners_to_say(data: Path) -> None:
    names = [f"{number}.png#bytes=0-{number}" for number in range(2)]
    manifest = write_rows(data / "in" / "m.csv", [*GOOD, *({"image": name} for name in names)])
    assert [error and error[:30] for error in errors(manifest)[20:]] == [
        "cannot be read: #bytes= is for"
    ] * 2
    rows = [{"image": name, "prefix": "ocr", "suffix": "x"} for name in names]
    source = ExampleSource(path=str(write_rows(data / "in" / "t.jsonl", rows)))
    for example in read_examples(source, ()):
        assert isinstance(example, Example)
        assert image_item(example.images[0], (str(data / "in"),)).archive is None


@pytest.mark.parametrize("root", ["gs://bucket/prefix", "gs://bucket", "s3://bucket/a b", "/data"])
@given(
    prefix=st.sampled_from(["", "/", "-evil", "2", "%2f", "/..", "//"]),
    parts=st.lists(
        st.sampled_from(["..", ".", "%2e%2e", "%2E.", "a", "", "..%2f..", "\\..", "b%2Fc", "..."])
        | st.text(max_size=4)
    ),
)
def test_nothing_beside_a_root_passes_for_below_it(
    root: str, prefix: str, parts: list[str]
) -> None:
    uri = root + prefix + "/".join(parts)
    if storage.lies_below(uri, root):
        rest = uri.removeprefix(root)
        assert rest == "" or rest.startswith("/")
        assert not re.search(r"(?i)(^|/|%2f)(\.|%2e){1,2}(/|%2f|$)", rest)


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `in` among others, with links; only what is below `in` says so."""
    root = tmp_path_factory.mktemp("maze")
    for name in ("in/a", "in/a/b", "in2/a", "in/..a"):
        (root / name).mkdir(parents=True)
    for folder in [root, *root.rglob("*")]:
        if folder.is_dir():
            inside = folder == root / "in" or root / "in" in folder.parents
            (folder / "x").write_text("inside" if inside else "secret")
    (root / "in" / "up").symlink_to("..")
    (root / "in" / "same").symlink_to("a/b")
    (root / "in2" / "back").symlink_to(root / "in")
    (root / "in" / "etc").symlink_to("/etc")
    return root


_STEPS = ["..", ".", "in", "in2", "a", "b", "x", "up", "same", "back", "etc", "passwd", "..a", ""]
_STEPS += ["%2e%2e", r"\x2e\x2e", r"\x2f", "{root}", "passwd\0", "/", "file://", "gs:", "\\"]


@given(steps=st.lists(st.sampled_from(_STEPS), max_size=7))
def test_no_row_leads_to_a_secret(maze: Path, steps: list[str]) -> None:
    path = "/".join(steps).replace("{root}", str(maze))
    folder = str(maze / "in")
    item = Item(resolve(path, folder), roots=(folder,))
    try:
        content = read_content(item, ())
    except (OSError, ValueError):
        return
    assert content == b"inside"


def labelled(path: Path, images: list[Any]) -> Path:
    return write_rows(path, [{"image": i, "prefix": "ocr", "suffix": "x"} for i in images])


def coco(path: Path, images: list[Any]) -> Path:
    listed = [{"id": n, "file_name": name} for n, name in enumerate(images)]
    notes = [{"image_id": n, "caption": "x"} for n in range(len(images))]
    path.write_text(json.dumps({"images": listed, "annotations": notes}))
    return path


def examples(path: Path, *roots: str, **fields: Any) -> Iterator[Example | str]:
    return read_examples(ExampleSource.parse({"path": str(path)} | fields), (), roots)


@pytest.mark.parametrize(
    ("write", "name"), [(labelled, "t.jsonl"), (labelled, "t.csv"), (coco, "c.json")]
)
def test_examples_lead_no_further_than_manifests(data: Path, write: Any, name: str) -> None:
    (data / "in" / "link.png").symlink_to("../secret.png")
    good = [f"{number}.png" for number in range(40)]
    bad = ["../secret.png", "/etc/passwd", "gs://bucket/a.png", "link.png"]
    found = [*examples(write(data / "in" / name, [*good, *bad]))]
    assert [isinstance(each, Example) for each in found] == [True] * 40 + [False] * 4
    assert set(found[40:]) == {
        "an image outside of the file's folder, of images and of allowed_roots"
    }
    beside = write(data / "in" / name, [f"../in2/{number}.png" for number in range(20)])
    with pytest.raises(SpecError, match="20 of 20 inputs lie outside") as refused:
        list(examples(beside))
    assert all(isinstance(each, Example) for each in examples(beside, *line_of(refused)))
    # The folder of images is its author's word.
    here = write(data / "in" / name, good[:20])
    assert all(isinstance(each, Example) for each in examples(here, images=str(data / "in2")))


def test_annotations_of_ones_own_are_trusted_and_their_metadata_is_not(
    make_spec: SpecFactory, data: Path
) -> None:
    with tarfile.open(data / "a.tar", "w") as tar:
        tar.add(data / "secret.png", "a.png")
    spec = make_spec(input=str(data / "a.tar"), prompts=["ocr"])
    stolen = json.dumps({"stolen": "/etc/passwd"})
    finish(spec, [item._replace(metadata=stolen) for item in items(spec)])
    (example,) = read_examples(ExampleSource(path=spec.output), ())
    assert isinstance(example, Example)
    assert read_content(image_item(example.images[0], None), ()) == PNG
    with pytest.raises(SpecError, match="1 of 1 inputs lie outside"):
        list(read_examples(ExampleSource(path=spec.output, image_column="stolen"), ()))


def test_films_and_their_frames_lead_no_further_than_images(data: Path) -> None:
    (data / "in" / "a.mp4").symlink_to("/etc/passwd")
    for video, names in (({"fps": 1}, ["a.mp4"]), ({"frame_rate": 1}, ["9.png", "link.png"])):
        if "frame_rate" in video:
            (data / "in" / "link.png").symlink_to("../secret.png")
        rows = [{"image": name} for name in names]
        manifest = write_rows(data / "in" / "m.csv", rows + GOOD * 2)
        spec = spec_of(manifest, video=video)
        (item, *_) = items(spec)
        if item.frames:
            item = item._replace(frames=item.frames[-1:])
        (read,) = [each for each in reader(spec, 8)(item) if each]
        assert read.error
        assert "it lies outside of its manifest's folder" in read.error


def test_roots_become_absolute_and_have_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = with_absolute_paths(
        spec_of(
            "in", allowed_roots=["../x/", "gs://b/c/", "hf://datasets/u"], compilation_cache="xla"
        )
    )
    assert (spec.input, spec.compilation_cache) == (f"{tmp_path}/in", f"{tmp_path}/xla")
    assert spec.allowed_roots == (f"{tmp_path.parent}/x", "gs://b/c", "hf://datasets/u")
    for root, why in {
        "": "at least 1 character",
        "https://host/a": "https_hosts",
        "gs://": "names its bucket",
        "gs://b/../c": "names its bucket",
        "s3://key:secret@b/c": "password",
    }.items():
        with pytest.raises(SpecError, match=rf"allowed_roots\.0=.*{why}"):
            spec_of("in", allowed_roots=[root])
    with pytest.raises(SpecError, match="allowed_roots: nope:// is not read"):
        with_absolute_paths(spec_of("in", allowed_roots=["nope://x"]))
    tuned = FineTuneSpec(
        output="o", run_id="r", train=(ExampleSource(path="p"),), allowed_roots=("a",)
    )
    assert with_absolute_paths(tuned).allowed_roots == (f"{tmp_path}/a",)
