"""Frames by index and time: every one shows the number that it is said to have."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paliflow import storage
from paliflow.configs import AnnotateSpec
from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.reading import Stored
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.media.video.damage import FrameGap
from paliflow.jobs.media.video.reading import Sample, samples
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.videos import draw, even, read, uneven, write

X265 = {"x265-params": "log-level=none:keyint=48"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "48"}
AV1 = {"preset": "12", "crf": "20", "g": "48"}
X264 = {"g": "48", "bf": "3"}
KINDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "h264": ("a.mp4", partial(write, options=X264)),
    "h264 open gop": ("a.mp4", partial(write, options=X264 | {"x264-params": "open-gop=1"})),
    "h264 vfr": ("a.mp4", partial(write, options=X264, at=uneven)),
    "h264 mov": ("a.mov", partial(write, options=X264, at=uneven)),
    "h264 ts": ("a.ts", partial(write, options=X264)),
    "h264 avi": ("a.avi", partial(write, options=X264, base=Fraction(1, 25))),
    "hevc": ("a.mp4", partial(write, codec="libx265", options=X265)),
    "hevc mkv": ("a.mkv", partial(write, codec="libx265", options=X265, at=uneven)),
    "vp9": ("a.webm", partial(write, codec="libvpx-vp9", options=VP9, at=uneven)),
    "av1": ("a.mp4", partial(write, codec="libsvtav1", options=AV1, at=uneven)),
    "av1 mkv": ("a.mkv", partial(write, codec="libsvtav1", options=AV1)),
    "mjpeg": ("a.avi", partial(write, codec="mjpeg", pixels="yuvj420p", base=Fraction(1, 25))),
    "mjpeg mov": ("a.mov", partial(write, codec="mjpeg", pixels="yuvj420p", at=uneven)),
    "10 bits": ("a.mkv", partial(write, codec="libx265", options=X265, pixels="yuv444p10le")),
    "grey": ("a.mkv", partial(write, options=X264, pixels="gray")),
}
# Whose codec and whose container are read in the default suite, if not with each other.
VARIATIONS = {"h264 mov", "h264 avi", "hevc", "av1 mkv", "mjpeg", "mjpeg mov", "grey"}


def spec(**video: Any) -> AnnotateSpec:
    return AnnotateSpec.parse(
        {"input": "x", "output": "y", "run_id": "z", "prompts": ["ocr"], "video": video}
    )


def taken(item: Item | Path, **video: Any) -> list[Sample | FrameGap]:
    item = item if isinstance(item, Item) else Item(str(item))
    return [found for found in samples(item, Stored(()), spec(**video)) if found is not None]


def numbers(found: list[Sample | FrameGap]) -> list[tuple[int, int]]:
    """What each sample is said to be, and what it shows."""
    return [(s.frame, read(s.image)) for s in found if isinstance(s, Sample)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=[pytest.mark.slow] if kind in VARIATIONS else []) for kind in KINDS
    ],
)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[int, float]]:
    """A video and the time of each of its frames, as they are when all are decoded."""
    name, make = KINDS[request.param]
    path = make(tmp_path_factory.mktemp("videos") / name)
    return path, {s.frame: s.timestamp_s for s in taken(path, every_frames=1)}  # type: ignore[union-attr]


def test_every_frame_shows_its_index_and_has_its_time(whole: tuple[Path, dict[int, float]]) -> None:
    path, times = whole
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(120)]
    start = times[0]
    assert start == 0 or path.suffix == ".ts"
    of = "vfr" if abs(times[119] - start - uneven(119) / 1000) < 0.002 else "even"
    at = uneven if of == "vfr" else even
    for number, time in times.items():
        assert time - start == pytest.approx(at(number) / 1000, abs=0.0011)


@pytest.mark.parametrize(
    "video",
    [
        {"every_s": 1.0},
        {"fps": 0.7},
        {"every_frames": 37},
        {"count": 7},
        {"every_s": 0.5, "clip": {"frames": 2, "length_s": 1.5}},
    ],
    ids=str,
)
def test_frames_that_are_jumped_to_are_those_that_are_counted_to(
    whole: tuple[Path, dict[int, float]], video: dict[str, Any]
) -> None:
    path, times = whole
    found = taken(path, **video)
    assert found
    assert numbers(found) == [(n, n) for n, _ in numbers(found)]
    assert [s.timestamp_s for s in found if isinstance(s, Sample)] == [
        times[n] for n, _ in numbers(found)
    ]


@pytest.mark.parametrize(
    "video",
    [
        {"every_s": 0.3, "segment_s": 1},
        {"every_frames": 8, "segment_s": 1},
        {"every_s": 0.5, "segment_s": 1, "clip": {"frames": 2, "length_s": 1.5}},
    ],
    ids=str,
)
def test_pieces_have_the_frames_of_the_whole(
    whole: tuple[Path, dict[int, float]], video: dict[str, Any]
) -> None:
    path, _ = whole
    parts = list(pieces([Item(str(path))], spec(**video)))
    assert (len(parts) > 2) == (path.suffix in (".mp4", ".mov"))
    assert [n for part in parts for n in numbers(taken(part, **video))] == numbers(
        taken(path, **video)
    )


def test_keyframes_are_the_coded_ones(tmp_path: Path) -> None:
    options = {"g": "30", "keyint_min": "30", "sc_threshold": "0"}
    path = write(tmp_path / "a.mp4", options=options)
    assert numbers(taken(path, keyframes=True)) == [(n, n) for n in (0, 30, 60, 90)]


def test_a_video_of_one_frame_is_one_sample_and_as_many_as_count_wants(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=1)
    for policy in ({"every_s": 3}, {"every_frames": 5}, {"keyframes": True}):
        (part,) = pieces([Item(str(path))], spec(**policy))
        assert numbers(taken(part, **policy)) == [(0, 0)]
    assert numbers(taken(path, count=4)) == [(0, 0)] * 4


def test_animations_are_videos(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(draw(n)) for n in range(30)]
    for name, lasts in (("a.gif", 70), ("a.webp", 45)):
        path = tmp_path / name
        first.save(path, save_all=True, append_images=others, duration=lasts)
        found = taken(path, every_frames=7)
        assert numbers(found) == [(n, n) for n in (0, 7, 14, 21, 28)]
        assert [s.timestamp_s for s in found if isinstance(s, Sample)] == pytest.approx(
            [lasts / 1000 * n for n in (0, 7, 14, 21, 28)]
        )


def test_scenes_begin_where_the_picture_changes(tmp_path: Path) -> None:
    shown = [0] * 12 + [1023] * 9 + [992] * 4 + [31] * 5
    first, *others = [Image.fromarray(draw(number)) for number in shown]
    # Alike frames would be merged into one that lasts longer.
    for place, image in enumerate([first, *others]):
        image.putpixel((0, 0), (place, 0, 0))
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=40)
    path = tmp_path / "a.gif"
    assert [n for n, _ in numbers(taken(path, scenes=0.1))] == [0, 12, 21, 25]
    clips = taken(path, every_frames=3, clip={"frames": 2, "scenes": 0.1})
    assert [(s.clip, s.frame) for s in clips if isinstance(s, Sample)] == [
        *((0, 0), (0, 3), (1, 12), (1, 15), (2, 21), (2, 24), (3, 25), (3, 28))
    ]


def test_what_hardly_differs_from_the_last_one_kept_is_skipped(tmp_path: Path) -> None:
    first = Image.fromarray(draw(0))
    frames = [first] * 10 + [Image.fromarray(draw(1023))] * 10
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    found = taken(tmp_path / "a.gif", every_frames=1, min_distance=0.02)
    assert [read(s.image) for s in found if isinstance(s, Sample)] == [0, 1023]
    assert [s.distance is None for s in found if isinstance(s, Sample)] == [True, False]


def test_frames_of_videos_that_were_taken_apart(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(draw(number)).save(tmp_path / f"frame{number}.png")
    item = Item(
        str(tmp_path), frames=tuple(str(tmp_path / f"frame{number}.png") for number in range(12))
    )
    (tmp_path / "frame4.png").unlink()
    (tmp_path / "frame8.png").write_bytes(b"")
    found = taken(item, fps=2, frame_rate=4)
    assert numbers(found) == [(n, n) for n in (0, 2, 5, 6, 9, 10)]
    assert found[-2:] == [
        FrameGap(Fraction(1, 2), Fraction(5, 4), "frame4.png: not found"),
        FrameGap(Fraction(3, 2), Fraction(9, 4), "frame8.png: empty file"),
    ]
    assert [s.timestamp_s for s in found if isinstance(s, Sample)] == [0, 0.5, 1.25, 1.5, 2.25, 2.5]


def test_a_bucket_is_read_where_the_samples_are(
    tmp_path: Path, gcs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write(tmp_path / "a.mp4", options={"g": "24", "crf": "1"}, frames=480)
    uri = f"gs://images/{tmp_path.name}/a.mp4"
    with local.open("rb") as file:
        storage.overwrite(uri, file)
    found = taken(Item(uri), every_frames=160)
    assert numbers(found) == [(n, n) for n in (0, 160, 320)]
    assert numbers(taken(Item(uri), every_s=0.4)) == numbers(taken(local, every_s=0.4))


def test_a_video_in_a_tar_is_read_from_its_place(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.tar").write_bytes(b"x" * 512 + content + b"y" * 9999)
    item = Item("a.tar#a.mp4", str(tmp_path / "a.tar"), 512, len(content))
    assert numbers(taken(item, every_frames=30)) == [(n, n) for n in (0, 30, 60, 90)]


@pytest.mark.parametrize(("short", "tail"), [("loop", [0, 30, 60]), ("pad", [90, 90, 90])])
def test_short_clips_are_looped_or_padded(tmp_path: Path, short: str, tail: list[int]) -> None:
    path = write(tmp_path / "a.mp4")
    clip = {"frames": 7, "short": short}
    inputs = reader(spec(every_frames=30, clip=clip), 224)(Item(str(path)))
    (found,) = [each for each in inputs if each]
    assert found.pixels is not None
    assert found.pixels.shape == (7, 224, 224, 3)
    shown = [read(Image.fromarray(p)) for p in found.pixels]
    assert shown == [0, 30, 60, 90, *tail]
    assert found.moment
    assert found.moment.clip_frames == ((0, 0.0), (30, 1.2), (60, 2.4), (90, 3.6))
