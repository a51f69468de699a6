"""The report: what it shows, that it is one page for itself, and that data stays data."""

import base64
import hashlib
import io
import re
import shutil
import subprocess
from dataclasses import asdict
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from paliflow import storage
from paliflow.configs.summary import StageSeconds
from paliflow.jobs.media.reading import Input
from paliflow.jobs.report.page import write_report
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.plan import Item
from paliflow.model import Detection
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode
from paliflow.tests.jobs.outputs import finish

VOID = {"meta", "img", "br", "input", "path", "rect", "image"}


class Page(HTMLParser):
    """The elements of a page: tag, attributes, and the text right inside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, {name: value or "" for name, value in attrs}, text))
        if tag not in VOID:
            self._open.append(text)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].append(data)

    def all(self, tag: str, kind: str = "") -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements with a tag and a class."""
        return [
            (attributes, "".join(text).strip())
            for name, attributes, text in self.elements
            if name == tag and (not kind or kind in attributes.get("class", "").split())
        ]


def read(uri: str) -> str:
    return storage.read_bytes(uri).decode()


def images(folder: Path, count: int) -> list[Item]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}.jpg").write_bytes(encode("RGB", "JPEG", quality=50 + number % 40))
    return [Item(str(folder / f"{number:03d}.jpg")) for number in range(count)]


@pytest.mark.parametrize("where", ["local", pytest.param("gs", marks=pytest.mark.slow)])
def test_inputs_from_all_over_the_run_with_their_answers_and_images(
    where: str, gcs: None, make_spec: SpecFactory, tmp_path: Path
) -> None:
    output = str(tmp_path / "out") if where == "local" else f"gs://images/{tmp_path.name}"
    items = images(tmp_path / "images", 90)
    for number in (7, 50):
        Path(items[number].uri).write_bytes(b"")
    summary = finish(make_spec(input="images", output=output, shard_size=4), items)
    uri = write_report(summary)
    assert uri == f"{summary.location}/_report.html"
    html = read(uri)
    page = Page(html)
    shown = [attributes["title"] for attributes, _ in page.all("div", "about")]
    assert len(shown) == len(set(shown)) == 48
    assert {items[7].uri, items[50].uri} <= set(shown)
    numbers = sorted(int(Path(uri).stem) for uri in shown)
    assert max(np.diff(numbers)) <= 6
    assert len(page.all("img")) == 46
    for attributes, _ in page.all("img"):
        kind, content = attributes["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (40, 30)
    assert "caption en of 000.jpg" in html
    assert html.count("empty file") == 1 + 2 * 2  # among the reasons, and for each prompt
    assert len(page.all("span", "score")) == 46 * 2
    write_report(summary)
    assert read(uri) == html


def test_boxes_lie_where_they_were_found_in_the_color_of_their_label(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    def answer(source: Input, prompt: str) -> tuple[str, list[Detection]]:
        return "text", [
            Detection("cat", y_min=3, x_min=4, y_max=18, x_max=24, score=0.5),
            Detection("dog", y_min=0, x_min=0, y_max=30, x_max=40, score=0.75),
            Detection("cat", y_min=0, x_min=0, y_max=3, x_max=4, score=0.25),
        ]

    spec = make_spec(input="images", prompts=["detect cat ; dog"])
    page = Page(read(write_report(finish(spec, images(tmp_path / "images", 1), answer))))
    boxes = [attributes for attributes, _ in page.all("div", "box")]
    assert [(box["data-label"], box["data-score"]) for box in boxes] == [
        ("cat", "0.500"),
        ("dog", "0.750"),
        ("cat", "0.250"),
    ]
    assert boxes[0]["style"] == boxes[2]["style"] != boxes[1]["style"]
    first, second = [rect for rect, _ in page.all("rect") if "y" in rect and "rx" not in rect][:2]
    assert [first[name] for name in ("x", "y", "width", "height")] == [
        *("10.00", "10.00", "50.00", "50.00")
    ]
    assert (second["width"], second["height"]) == ("100.00", "100.00")
    assert page.all("span", "score")[0][1] == "0.75"
    labels = [text for _, text in page.all("span", "name")]
    assert labels == ["cat", "dog"]


def test_masks_are_drawn_over_the_image(make_spec: SpecFactory, tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[10:20, 5:30] = 1
    rle = coco_mask.encode(mask)
    rle["counts"] = rle["counts"].decode()

    def answer(source: Input, prompt: str) -> tuple[str, list[Detection]]:
        return "text", [Detection("cat", 10, 5, 20, 30, mask=rle, score=0.5)]

    spec = make_spec(input="images", prompts=["segment cat"])
    page = Page(read(write_report(finish(spec, images(tmp_path / "images", 1), answer))))
    ((attributes, _),) = page.all("image")
    with Image.open(io.BytesIO(base64.b64decode(attributes["href"].split(",")[1]))) as drawn:
        alpha = np.asarray(drawn.convert("RGBA"))[:, :, 3]
    np.testing.assert_array_equal(alpha > 0, mask > 0)


HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover=alert(1) x='",
    "</style><style>*{background:url(https://evil.example/)}",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ]]> \u2028 \x00 \ud800",
    "</textarea></title><svg onload=alert(1)>",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_data_says_stays_text(text: str, make_spec: SpecFactory, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    utf8 = text.encode(errors="replace").decode()

    def build(text: str) -> Page:
        name = f"{tmp_path}/images/{text.replace('/', '%').replace(chr(0), '')}.jpg"
        Path(name.encode(errors="replace").decode()).write_bytes(encode("RGB", "JPEG"))
        items = [
            Item(name.encode(errors="replace").decode(), id=text),
            Item(f"missing/{text}", id=text),
            Item("", id=text),
        ]

        def answer(source: Input, prompt: str) -> tuple[str, list[Detection]]:
            return text, [Detection(text, 1, 1, 9, 9, score=0.5)]

        run_id = hashlib.sha256(text.encode()).hexdigest()
        prompts = [f"detect {text}", f"caption {text}"]
        spec = make_spec(input=f"/{text}", run_id=run_id, prompts=prompts, checkpoint=text)
        reasons = {text: 3}
        summary = finish(spec, items, answer, error_reasons=reasons, checkpoint=text)
        return Page(read(write_report(summary)))

    hostile, harmless = build(utf8), build(re.sub(r"\S", "x", utf8, flags=re.ASCII))
    assert [tag for tag, _, _ in hostile.elements] == [tag for tag, _, _ in harmless.elements]
    assert [sorted(attributes) for _, attributes, _ in hostile.elements] == [
        sorted(attributes) for _, attributes, _ in harmless.elements
    ]
    assert hostile.all("script") == harmless.all("script")
    assert hostile.all("style") == harmless.all("style")
    for _, attributes, _ in hostile.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")


def test_nothing_but_the_page_itself_may_run_or_load(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    page = Page(read(write_report(finish(make_spec(input="x"), images(tmp_path / "images", 2)))))
    (policy,) = [each for each, _ in page.all("meta") if "http-equiv" in each]
    ((_, script),) = page.all("script")
    (wanted,) = re.findall(r"'sha256-(.*?)'", policy["content"])
    written = re.search(r"<script>(.*)</script>", read_only(tmp_path), re.DOTALL)
    assert written is not None
    assert base64.b64encode(hashlib.sha256(written[1].encode()).digest()).decode() == wanted
    assert script
    assert "default-src 'none'; img-src data:" in policy["content"]
    assert not page.all("link")


def read_only(tmp_path: Path) -> str:
    (report,) = tmp_path.rglob("_report.html")
    return report.read_text()


# A browser is a system package: what runs these tests needs Python and make alone. The script's
# hash, the elements that it filters and their values are tested above without one.
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_browser_runs_the_filters(make_spec: SpecFactory, tmp_path: Path) -> None:
    items = images(tmp_path / "images", 5)
    uri = write_report(finish(make_spec(input="x"), items))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    profile = f"--user-data-dir={tmp_path}/profile"
    done = subprocess.run(
        [*command, *quiet, profile, f"file://{uri}"], capture_output=True, text=True, timeout=100
    )
    page = Page(done.stdout)
    assert "5 of 5 images" in done.stdout
    options = [attributes["value"] for attributes, _ in page.all("option")]
    assert options == ["", "caption", "detect", "", "ok", "", "cat"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "not found"),
        (lambda path: path.write_bytes(encode("L", "JPEG")), "has changed since the run"),
    ],
)
def test_an_image_that_is_not_what_it_was_is_said_not_shown(
    change: Any, said: str, make_spec: SpecFactory, tmp_path: Path
) -> None:
    items = images(tmp_path / "images", 3)
    summary = finish(make_spec(input="x"), items)
    change(Path(items[1].uri))
    page = Page(read(write_report(summary)))
    assert len(page.all("img")) == 2
    assert [text for _, text in page.all("figure", "none")] == [said]
    assert len(page.all("div", "answer")) == 6


@pytest.mark.parametrize("compacted", [False, True])
def test_members_of_a_tar_are_found_again(
    compacted: bool, make_spec: SpecFactory, tmp_path: Path
) -> None:
    files = [encode("RGB", "JPEG", quality=30 + number) for number in range(9)]
    (tmp_path / "a.tar").write_bytes(b"".join(files))
    tar = str(tmp_path / "a.tar")
    starts = np.cumsum([0, *map(len, files)]).tolist()
    items = [
        Item(f"{tar}#{number}.jpg", tar, starts[number], len(files[number])) for number in range(9)
    ]
    summary = finish(make_spec(input="x", shard_size=2), items)
    if compacted:
        summary = compact(summary)
    page = Page(read(write_report(summary)))
    assert len(page.all("img")) == 9


def test_throughput_lengths_and_labels_are_the_same_after_compaction(
    make_spec: SpecFactory, tmp_path: Path
) -> None:
    summary = finish(make_spec(input="x", shard_size=2), images(tmp_path / "images", 40))
    before = read(write_report(summary))
    after = read(write_report(compact(summary)))
    for name in ("Throughput", "Labels", "Caption length"):
        section = re.compile(rf"<h2>{name} .*?</section>", re.DOTALL)
        assert section.findall(before) == section.findall(after) != []
    assert ">40</span>" in before  # detections of a cat
    rates = [float(y) for y in re.findall(r"L\d+ ([\d.]+)", before)]
    assert rates
    assert min(rates) == pytest.approx(5)


def test_a_run_without_inputs_has_a_report_too(make_spec: SpecFactory) -> None:
    summary = finish(make_spec(input="x"), [], images_per_second=0)
    page = read(write_report(summary))
    assert Page(page).all("article") == []
    assert "<h2>Time" not in page  # an older version's manifest has none


def test_report_shows_where_time_went_and_who_waited(make_spec: SpecFactory) -> None:
    stages = asdict(StageSeconds(30, 10, 20, 15, 10, 5, 4, 6))
    summary = finish(make_spec(input="x"), [], stages=stages)
    (panel,) = re.findall(r"<h2>Time .*?</section>", read(write_report(summary)), re.DOTALL)
    assert re.findall(r"(\w+)</span>", panel) == [*stages]
    assert re.findall(r"(\d+) %</span>", panel) == [str(each) for each in stages.values()]
    assert "idle 30% of the time" in panel


@pytest.mark.slow
def test_long_texts_and_many_boxes_stay_below_10_mb(make_spec: SpecFactory, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    items = []
    for number in range(60):
        path = tmp_path / "images" / f"{number}.jpg"
        path.write_bytes(encode("RGB", "JPEG", (900, 900), quality=95))
        items.append(Item(str(path)))

    def answer(source: Input, prompt: str) -> tuple[str, list[Detection]]:
        boxes = [Detection("x" * 5000, n, n, n + 9, n + 9, score=0.5) for n in range(100)]
        return "<" * 100_000, boxes

    prompts = [f"{task} {number}" for number in range(3) for task in ("detect", "caption")]
    summary = finish(make_spec(input="x", prompts=prompts, shard_size=20), items, answer)
    html = storage.read_bytes(write_report(summary))
    assert 1_000_000 < len(html) < 10_000_000


def test_folder_readers_pass_over_it(make_spec: SpecFactory, tmp_path: Path) -> None:
    summary = finish(make_spec(input="x"), images(tmp_path / "images", 3))
    report = Path(write_report(summary))
    assert len(pd.read_parquet(tmp_path / "output")) == 6
    report.rename(report.with_name("report.html"))  # the name that they would not pass over
    with pytest.raises(pa.ArrowInvalid):
        pd.read_parquet(tmp_path / "output")


def test_the_time_that_shows_is_the_time_of_the_parts(
    make_spec: SpecFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            nonlocal now
            now += timedelta(minutes=1)
            return now

    monkeypatch.setattr("paliflow.jobs.runs.parts.datetime", Clock)
    items = images(tmp_path / "images", 30)
    start = now
    summary = finish(make_spec(input="x", shard_size=1), items, started=start)
    html = read(write_report(summary))
    assert "<span>30 min 0 s</span>" in html
    assert "at most 0.0" in html
