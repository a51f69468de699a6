"""The report of videos: the frames that were asked about, and when what was answered."""

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paliflow.configs import AnnotateSpec
from paliflow.configs.prompts import task_of
from paliflow.jobs.annotate.rows import answer_row, error_row
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Input
from paliflow.jobs.report import videos as report_video
from paliflow.jobs.report.page import write_report
from paliflow.jobs.report.videos import clock
from paliflow.jobs.runs.compact import compact
from paliflow.jobs.runs.parts import commit_part
from paliflow.jobs.runs.plan import Item, write_plan
from paliflow.tests.jobs import outputs, videos
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.report.test_report import HOSTILE, Page, read

BOX = {"label": "bar", "y_min": 60.0, "x_min": 32.0, "y_max": 180.0, "x_max": 64.0, "score": 0.5}
Answer = Callable[[int, str], tuple[str, list[dict[str, Any]]]]


def by_frame(frame: int, prompt: str) -> tuple[str, list[dict[str, Any]]]:
    """Which half second of two a frame is in; one box in the first, two after."""
    return f"half {frame // 50}", [BOX] * min(frame // 50 + 1, 2)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.write(tmp_path_factory.mktemp("films") / "film.mp4", options={"g": "25"})


@pytest.fixture
def make_page(make_spec: SpecFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """The report of a run over some items; `before` happens between the run and the report."""

    def commit(spec: AnnotateSpec, items: Iterable[Item], shards: range, answer: Answer) -> str:
        items = list(items)
        write_plan(spec.location, items, spec.model_dump(mode="json"))
        for shard in shards:
            rows = []
            for item in items[shard * spec.shard_size :][: spec.shard_size]:
                for source in reader(spec, 1)(item):
                    rows += [_row(source, prompt, answer) for prompt in spec.texts if source]
            about = {"checkpoint_sha256": "5" * 64, "inputs": "1", "failed": "0"}
            commit_part(spec.location, shard, rows, about)
        return spec.location

    def make(
        items: list[Item],
        video: dict[str, Any],
        answer: Answer = by_frame,
        before: Callable[[], object] = lambda: None,
        compacted: bool = False,
        **fields: Any,
    ) -> Page:
        monkeypatch.setattr(outputs, "commit_parts", commit)
        spec = make_spec(**{"input": "films", "video": video} | fields)
        summary = outputs.finish(spec, items, answer)  # type: ignore[arg-type]
        if compacted:
            summary = compact(summary)
        before()
        return Page(read(write_report(summary)))

    return make


def _row(source: Input | None, prompt: str, answer: Answer) -> dict[str, Any]:
    assert source
    if source.error is not None:
        return error_row(source, prompt, source.error)
    assert source.moment
    assert source.moment.frame_index is not None
    text, found = answer(source.moment.frame_index, prompt)
    row = answer_row(source, prompt, text, None, logprob=-0.1, token_count=1, finished=True)
    return row | {"detections": found if task_of(prompt) == "detect" else None}


def pictures(page: Page) -> list[int]:
    """The numbers drawn in the frames that are shown."""
    found = []
    for attributes, _ in page.all("img"):
        content = base64.b64decode(attributes["src"].removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(content)) as image:
            found.append(videos.read(image))
    return found


def times(page: Page) -> list[str]:
    return [text for _, text in page.all("div", "about")]


def parts(page: Page) -> list[list[str]]:
    """The lines of the time lines' tooltips."""
    return [text.splitlines() for _, text in page.all("title") if "\n" in text]


def test_frames_in_order_with_their_times_answers_and_boxes(
    film: Path, make_page: Callable[..., Page]
) -> None:
    page = make_page([Item(str(film))], {"every_s": 1})
    assert pictures(page) == [0, 25, 50, 75, 100]
    assert times(page) == ["0:00.00", "0:01.00", "0:02.00", "0:03.00", "0:04.00"]
    assert len(page.all("section", "film")) == 1
    assert len(page.all("div", "answer")) == 5 * 2
    boxes = page.all("div", "box")
    assert len(boxes) == 1 + 1 + 2 + 2 + 2
    rects = [rect for rect, _ in page.all("rect") if rect.get("x") == "10.00"]
    assert len(rects) == len(boxes)
    assert [text for _, text in page.all("dt")][::3] == ["Videos", "Videos a second"]
    assert "0:00.00 to 0:05.00, 5 frames" in [text for _, text in page.all("small")]


def test_answers_that_stay_are_one_part_of_the_time_line(
    film: Path, make_page: Callable[..., Page]
) -> None:
    page = make_page([Item(str(film))], {"every_s": 1})
    assert parts(page) == [
        ["half 0", "0:00.00 to 0:02.00"],
        ["half 1", "0:02.00 to 0:04.00"],
        ["half 2", "0:04.00 to 0:05.00"],
        ["1", "0:00.00 to 0:02.00"],
        ["2", "0:02.00 to 0:05.00"],
    ]
    places = [(each["x"], each["width"]) for each, _ in page.all("svg") if "x" in each]
    assert places[:2] == [("0.000%", "40.000%"), ("40.000%", "40.000%")]
    assert [rect["height"] for rect, _ in page.all("rect") if "%" in rect["height"]][3:] == [
        *("50.0%", "100.0%")
    ]


@pytest.mark.slow
def test_of_many_frames_twelve_and_of_many_videos_six(
    film: Path, make_page: Callable[..., Page], tmp_path: Path
) -> None:
    items = []
    for number in range(9):
        items.append(Item(str(tmp_path / f"{number}.mp4")))
        shutil.copy(film, items[-1].uri)
    page = make_page(items, {"every_frames": 2}, shard_size=2)
    assert len(page.all("section", "film")) == 6
    assert pictures(page) == [10 * number for number in range(12)] * 6
    assert len(page.all("article")) == 6 * 12


@pytest.mark.parametrize("compacted", [False, True])
def test_pieces_of_a_video_in_one_part_are_one(
    compacted: bool, film: Path, make_page: Callable[..., Page]
) -> None:
    items = [Item(str(film), first=0, last=2), Item(str(film), first=2)]
    page = make_page(items, {"every_s": 1}, compacted=compacted)
    assert len(page.all("section", "film")) == 1
    assert pictures(page) == [0, 25, 50, 75, 100]


def test_a_video_that_is_named_twice_is_two(film: Path, make_page: Callable[..., Page]) -> None:
    page = make_page([Item(str(film))] * 2, {"every_s": 2})
    assert len(page.all("section", "film")) == 2
    assert pictures(page) == [0, 50, 100] * 2


def test_clips_show_their_frames(film: Path, make_page: Callable[..., Page]) -> None:
    clips = {"every_s": 0.4, "clip": {"frames": 3, "length_s": 1.2}}
    page = make_page([Item(str(film))], clips)
    assert pictures(page) == list(range(0, 120, 10))
    assert len(page.all("article")) == 4
    assert len(page.all("div", "box")) == 1 + 1 + 2 + 2  # over the first frame of each clip


def test_a_clip_of_many_frames_shows_some(film: Path, make_page: Callable[..., Page]) -> None:
    page = make_page([Item(str(film))], {"every_frames": 1, "clip": {"frames": 24}})
    assert pictures(page) == list(range(0, 24, 2))


def test_boxes_have_the_color_of_their_track(film: Path, make_page: Callable[..., Page]) -> None:
    def tracked(frame: int, prompt: str) -> tuple[str, list[dict[str, Any]]]:
        return "", [BOX | {"track_id": track} for track in (3, 4)]

    page = make_page([Item(str(film))], {"every_s": 2, "track": 0.3}, tracked)
    boxes = [box for box, _ in page.all("div", "box")]
    assert len({box["style"] for box in boxes}) == 2
    assert boxes[0]["style"] == boxes[2]["style"] == boxes[4]["style"]
    assert [text for _, text in page.all("div", "tag")] == ["bar #3", "bar #4"] * 3
    assert {box["data-label"] for box in boxes} == {"bar"}


def test_damage_is_marked_and_no_answer_goes_over_it(
    film: Path, make_page: Callable[..., Page], tmp_path: Path
) -> None:
    whole = videos.with_moov_first(Path(shutil.copy(film, tmp_path)))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    (tmp_path / "none.mp4").write_bytes(b"no video")
    items = [Item(str(tmp_path / name)) for name in ("cut.mp4", "none.mp4")]
    page = make_page(items, {"every_frames": 1})
    assert len(page.all("section", "film")) == 2
    assert len(page.all("line", "broken")) == 2  # in the line of each prompt
    first, second = (text for _, text in page.all("p", "error"))
    assert "frames are missing after" in first
    assert "not a video" in second
    assert len(pictures(page)) == 12


def test_an_answer_ends_where_frames_are_missing() -> None:
    row = report_video._Row(0, 0.0, "ocr", None, "a", None)
    rows = [row._replace(frame=n, time=float(n)) for n in (0, 1, 5, 6)]
    broken = row._replace(frame=None, time=1.5, text="", error="damaged")
    shown = report_video._lines([*rows, broken])
    (line,) = shown["lines"]
    assert [(part["start"], part["end"]) for part in line["parts"]] == [(0, 1.5), (5, 7)]
    assert [mark["at"] for mark in shown["marks"]] == [1.5]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "not found"),
        (lambda path: videos.write(path, at=lambda n: 50 * n), "has changed since the run"),
        (lambda path: videos.write(path, frames=3), "not there any more"),
    ],
)
def test_a_frame_that_is_not_what_it_was_is_said_not_shown(
    change: Any, said: str, film: Path, make_page: Callable[..., Page], tmp_path: Path
) -> None:
    path = Path(shutil.copy(film, tmp_path))
    page = make_page([Item(str(path))], {"every_s": 2}, before=lambda: change(path))
    assert [text for _, text in page.all("figure", "none")][-2:] == [said, said]
    assert len(page.all("div", "answer")) == 6


def test_what_takes_too_long_is_left(
    film: Path, make_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_video, "_TIMEOUT_S", 1e-6)
    page = make_page([Item(str(film))], {"every_s": 2})
    said = "not decoded within 1e-06 s (video_timeout)"
    assert {text for _, text in page.all("figure", "none")} == {said}


def test_a_video_that_was_taken_apart_is_read_again(
    make_page: Callable[..., Page], tmp_path: Path
) -> None:
    uris = tuple(str(tmp_path / "film" / f"{number}.png") for number in range(6))
    (tmp_path / "film").mkdir()
    for number, uri in enumerate(uris):
        Image.fromarray(videos.draw(number)).save(uri)
    item = Item(str(tmp_path / "film"), frames=uris)
    page = make_page([item], {"every_frames": 2, "frame_rate": 10})
    assert pictures(page) == [0, 2, 4]
    assert times(page) == ["0:00.00", "0:00.20", "0:00.40"]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_data_says_stays_text(
    text: str, film: Path, make_page: Callable[..., Page], tmp_path: Path
) -> None:
    def build(text: str, run_id: str) -> Page:
        path = tmp_path / f"{text.replace('/', '%').replace(chr(0), '')}.mp4"
        shutil.copy(film, path)
        items = [Item(str(path), id=text), Item(f"missing/{text}.mp4", id=text)]

        def answer(frame: int, prompt: str) -> tuple[str, list[dict[str, Any]]]:
            return text, [BOX | {"label": text}]

        prompts = [f"detect {text}", f"caption {text}"]
        return make_page(items, {"every_s": 2}, answer, run_id=run_id, prompts=prompts)

    utf8 = text.encode(errors="replace").decode()
    hostile = build(utf8, "hostile")
    harmless = build(re.sub(r"\S", "x", utf8, flags=re.ASCII), "harmless")
    assert [tag for tag, _, _ in hostile.elements] == [tag for tag, _, _ in harmless.elements]
    assert [sorted(attributes) for _, attributes, _ in hostile.elements] == [
        sorted(attributes) for _, attributes, _ in harmless.elements
    ]
    assert hostile.all("script") == harmless.all("script")
    assert hostile.all("style") == harmless.all("style")


def test_a_page_of_long_texts_and_many_boxes_stays_below_10_mb(
    film: Path, make_page: Callable[..., Page], tmp_path: Path
) -> None:
    items = []
    for number in range(6):
        items.append(Item(str(tmp_path / f"{number}.mp4")))
        shutil.copy(film, items[-1].uri)

    def answer(frame: int, prompt: str) -> tuple[str, list[dict[str, Any]]]:
        return f"{frame}" + "<" * 2000, [BOX | {"label": "<" * 2000}] * 20

    page = make_page(items, {"every_frames": 4}, answer)
    assert len(page.all("section", "film")) == 6
    assert len(page.all("article")) >= 6
    report = next(tmp_path.rglob("_report.html"))
    assert report.stat().st_size < 10_000_000


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00.00"), (59.996, "1:00.00"), (3723.5, "1:02:03.50"), (-0.04, "-0:00.04")],
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
