"""Random cuts, joins, drops and rates: what is sampled is what the packets alone say."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import av
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paliflow.jobs.media.reader import reader
from paliflow.jobs.media.video.cutting import pieces
from paliflow.jobs.media.video.damage import FrameGap
from paliflow.jobs.media.video.reading import Sample
from paliflow.jobs.media.video.sampling import exact
from paliflow.jobs.runs.plan import Item
from paliflow.tests.jobs.media.test_video_frames import numbers, spec, taken
from paliflow.tests.jobs.videos import edited, read, write

FRAMES, GOP = 48, 12
WITHOUT_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]
X264 = {"g": "12", "keyint_min": "12", "bf": "2", "sc_threshold": "0"}
PLAIN = X264 | {"x264-params": "b-pyramid=none:scenecut=0"}


class Coded(NamedTuple):
    """A packet of the film."""

    number: int
    """That is drawn in its frame."""
    content: bytes
    key: bool
    needed: bool
    """Whether other frames are made from it."""


@cache
def film() -> tuple[bytes, list[Coded]]:
    """A film as a file, and its packets in decoding order."""
    with TemporaryDirectory() as folder:
        path = write(Path(folder, "a.mkv"), frames=FRAMES, options=PLAIN)
        with av.open(str(path)) as container:
            found, latest = [], -1
            for packet in container.demux(video=0):
                if packet.pts is not None:
                    number = round(packet.pts / 40)
                    needed, latest = number > latest, max(number, latest)
                    found.append(Coded(number, bytes(packet), packet.is_keyframe, needed))
        return path.read_bytes(), found


class Part(NamedTuple):
    """What is taken of the film, as a file of its own."""

    first: int
    """The group of pictures that it begins with."""
    length: int
    """Packets."""
    dropped: frozenset[int]
    """Numbers of frames to leave out, of those that others do not need."""
    steps: tuple[int, ...]
    """Milliseconds from frame to frame, again and again."""


PARTS = st.builds(
    Part,
    st.integers(0, FRAMES // GOP - 1),
    st.integers(9, FRAMES),
    st.frozensets(st.integers(0, FRAMES)),
    st.lists(st.sampled_from([20, 40, 40, 40, 60, 400]), min_size=1, max_size=5).map(tuple),
)


def mux(path: Path, part: Part, start: int = 0) -> list[int]:
    """Writes a part, shown from so many milliseconds on; returns the numbers in their order."""
    whole, coded = film()
    kept = [
        each
        for each in coded[part.first * GOP :][: part.length]
        if each.needed or each.number not in part.dropped
    ]
    order = sorted(each.number for each in kept)
    times = [start]
    for n in range(len(order)):
        times.append(times[-1] + part.steps[n % len(part.steps)])
    shown = dict(zip(order, times, strict=False))
    decoded = [start - 40, *times]  # one frame earlier, for one may overtake another
    source_path = path.with_suffix(".film")
    source_path.write_bytes(whole)
    with av.open(str(source_path)) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        copy.time_base = Fraction(1, 1000)
        for each, dts in zip(kept, decoded, strict=False):
            packet = av.Packet(each.content)
            packet.stream, packet.time_base = copy, Fraction(1, 1000)
            packet.pts, packet.dts = shown[each.number], dts
            packet.is_keyframe = each.key
            target.mux(packet)
    source_path.unlink()
    return order


class Place(NamedTuple):
    """Of a frame, by the packets alone."""

    frame: int
    time: Fraction
    """Seconds since the first frame."""
    stamp: float
    key: bool


def places(path: Path) -> list[Place]:
    """The frames in the order of their times; a clock that starts again runs on by one frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base, step = stream.time_base, 0
        assert base
        step = max(1, round(1 / (Fraction(stream.average_rate or 25) * base)))
        times: list[tuple[int, bool]] = []
        shift = 0
        for packet in container.demux(stream):
            if packet.pts is None or packet.is_discard:
                continue
            time = packet.pts + shift
            latest = max((time for time, _ in times), default=None)
            if latest is not None and packet.is_keyframe and time < latest:
                shift += latest + step - time
                time = latest + step
            times.append((time, packet.is_keyframe))
    times.sort(key=lambda each: each[0])
    first = times[0][0]
    return [
        Place(n, (time - first) * base, float(time * base), key)
        for n, (time, key) in enumerate(times)
    ]


POLICIES: tuple[dict[str, Any], ...] = (
    {"every_frames": 1},
    {"every_frames": 5},
    {"every_s": 0.1},
    {"every_s": 0.7},
    {"count": 7},
    {"keyframes": True},
)


def chosen(frames: Sequence[Place], policy: dict[str, Any]) -> list[Place]:
    """Which frames a policy means."""
    if policy.get("keyframes"):
        return [each for each in frames if each.key]
    if stride := policy.get("every_frames"):
        return list(frames[::stride])
    end = frames[-1].time
    if count := policy.get("count"):
        lasts = end + end / (len(frames) - 1) if end else Fraction(len(frames), 25)
        period = lasts / count
    else:
        period, count = exact(policy["every_s"]), None
    found: list[Place] = []
    for bucket in range(count or int(end / period) + 1):
        begin = bucket * period
        inside = [each for each in frames if begin <= each.time < begin + period]
        if not inside and count:
            inside = [[each for each in frames if each.time < begin][-1]]
        found += inside[:1]
    return found


def check(path: Path, order: list[int]) -> None:
    """Every policy's samples are those that the packets tell, and show their frames."""
    frames = places(path)
    assert len(frames) == len(order)
    for policy in POLICIES:
        found = [each for each in taken(path, **policy) if isinstance(each, Sample)]
        expected = chosen(frames, policy)
        assert [each.frame for each in found] == [each.frame for each in expected], policy
        assert [each.timestamp_s for each in found] == [each.stamp for each in expected], policy
        assert [read(each.image) for each in found] == [order[each.frame] for each in expected]


@settings(max_examples=12, deadline=None, phases=WITHOUT_SHRINKING)
@given(PARTS, st.sampled_from([".mp4", ".mkv", ".ts", ".mov"]))
def test_samples_are_those_that_the_packets_tell(part: Part, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        check(path, mux(path, part))


@settings(max_examples=8, deadline=None, phases=WITHOUT_SHRINKING)
@given(st.lists(PARTS, min_size=2, max_size=3), st.booleans())
def test_files_joined_end_to_end_are_one_video(parts: list[Part], goes_on: bool) -> None:
    with TemporaryDirectory() as folder:
        path, start = Path(folder, "a.ts"), 100
        order: list[int] = []
        content = b""
        for n, part in enumerate(parts):
            order += mux(each := Path(folder, f"{n}.ts"), part, start)
            content += each.read_bytes()
            last = places(each)[-1]
            start += round(last.time * 1000) + 40 if goes_on else 0
        path.write_bytes(content)
        check(path, order)
        found = [each for each in taken(path, every_frames=1) if isinstance(each, Sample)]
        assert len(found) == len(order)
        assert not goes_on or not any(each.note for each in found)


@settings(max_examples=8, deadline=None, phases=WITHOUT_SHRINKING)
@given(PARTS, st.sampled_from([".mp4", ".mov"]))
def test_pieces_united_are_the_whole(part: Part, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        mux(path, part)
        for policy in ({"every_s": 0.1}, {"every_frames": 3}):
            fields: dict[str, Any] = policy | {"segment_s": 0.5}
            parts = pieces([Item(str(path))], spec(**fields))
            united = [each for piece in parts for each in numbers(taken(piece, **fields))]
            assert united == numbers(taken(path, **fields))


def test_count_takes_its_frames_from_what_an_edit_list_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=80, options={"g": "60", "bf": "3"})
    late = edited(path, (1000, 25))
    with av.open(str(late)) as container:
        assert any(entry.is_discard for entry in container.streams.video[0].index_entries)
    assert [shown for _, shown in numbers(taken(late, count=5))] == [25, 30, 35, 40, 45]
    early = edited(path, (1200, 0))
    assert numbers(taken(early, count=5)) == [(n, n) for n in (0, 6, 12, 18, 24)]


def test_media_that_an_edit_list_repeats_is_shown_again_in_pieces_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=60, options={"g": "12", "bf": "2"})
    for edits in (((960, 12), (960, 12), (480, 24)), ((800, 20), (800, 10))):
        twice = edited(path, *edits)
        frames = [n for lasts, first in edits for n in range(first, first + lasts // 40)]
        assert numbers(taken(twice, every_frames=1)) == list(enumerate(frames))
        fields: dict[str, Any] = {"every_s": 0.12, "segment_s": 0.5}
        united = [
            each
            for piece in pieces([Item(str(twice))], spec(**fields))
            for each in numbers(taken(piece, **fields))
        ]
        assert united == list(enumerate(frames))[::3]


def test_times_run_on_where_the_clock_starts_again_and_a_note_says_so(
    tmp_path: Path,
) -> None:
    options = {"g": "12", "bf": "2"}
    part = write(
        tmp_path / "part.mpg", "mpeg2video", frames=30, options=options, base=Fraction(1, 25)
    )
    path = tmp_path / "a.mpg"
    path.write_bytes(part.read_bytes() * 3)
    found = taken(path, every_frames=1)
    samples = [each for each in found if isinstance(each, Sample)]
    assert numbers(found) == [(n, n % 30) for n in range(90)]
    start = samples[0].timestamp_s
    assert [each.timestamp_s - start for each in samples] == pytest.approx(
        [n / 25 for n in range(90)]
    )
    assert len(samples) == len(found)  # nothing is missing
    joins = {
        n: f"times run on from {start + n / 25:.3f} s, where the clock starts again"
        for n in (30, 60)
    }
    assert {each.frame: each.note for each in samples if each.note} == joins
    later = [each for each in taken(path, every_frames=40) if isinstance(each, Sample)]
    assert [each.note for each in later] == [None, joins[30], joins[60]]
    clip: dict[str, Any] = {"every_frames": 40, "clip": {"frames": 3}}
    (found_clip,) = [each for each in reader(spec(**clip), 8)(Item(str(path))) if each]
    assert found_clip.moment
    assert found_clip.moment.note == f"{joins[30]}; {joins[60]}"
    assert numbers(taken(path, every_s=0.8)) == [(n, n % 30) for n in range(0, 90, 20)]
    assert numbers(taken(path, count=3)) == [(0, 0), (30, 0), (60, 0)]


@pytest.mark.parametrize("codec", ["mjpeg", "libx264", "mpeg4"])
def test_empty_chunks_of_avi_are_time_but_no_frames(tmp_path: Path, codec: str) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {} if codec == "mjpeg" else {"bf": "0", "g": "8"}

    def late(number: int) -> int:
        return 40 * number + (200 if number >= 10 else 0) + (400 if number >= 20 else 0)

    path = write(
        tmp_path / "a.avi",
        codec,
        frames=30,
        at=late,
        pixels=pixels,
        base=Fraction(1, 25),
        options=options,
    )
    found = taken(path, every_frames=1)
    assert numbers(found) == [(n, n) for n in range(30)]
    assert [each.timestamp_s for each in found if isinstance(each, Sample)] == pytest.approx(
        [late(n) / 1000 for n in range(30)]
    )
    assert numbers(taken(path, every_s=0.6)) == [(n, n) for n in (0, 10, 20)]


def test_reordered_frames_of_avi_get_the_times_of_its_chunks_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.avi",
        "mpeg4",
        frames=30,
        at=lambda n: 40 * n + (2000 if n >= 10 else 0),
        base=Fraction(1, 25),
        options={"bf": "2", "g": "8"},
    )
    found = taken(path, every_frames=1)
    assert numbers(found) == [(n, n) for n in range(30)]
    with av.open(str(path)) as container:
        chunks = [packet.dts or 0 for packet in container.demux(video=0) if packet.size]
    assert [each.timestamp_s for each in found if isinstance(each, Sample)] == pytest.approx(
        [dts / 25 for dts in sorted(chunks)]
    )


def test_times_of_raw_streams_are_dealt_out_from_zero(tmp_path: Path) -> None:
    for name, codec in (("a.m2v", "mpeg2video"), ("a.h264", "libx264")):
        options, base = {"g": "12", "bf": "2"}, Fraction(1, 25)
        path = write(tmp_path / name, codec, frames=30, options=options, base=base)
        found = [each for each in taken(path, every_frames=1) if isinstance(each, Sample)]
        assert [each.timestamp_s for each in found] == pytest.approx([n / 25 for n in range(30)])
        assert numbers(taken(path, every_s=0.4)) == [(0, 0), (10, 10), (20, 20)]


def test_frames_with_equal_times_are_frames(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv",
        frames=40,
        at=lambda n: n // 3,
        options={"bf": "0", "g": "10"},
        base=Fraction(1, 90_000),
    )
    found = taken(path, every_frames=1)
    assert numbers(found) == [(n, n) for n in range(40)]
    assert numbers(taken(path, keyframes=True)) == [(n, n) for n in (0, 10, 20, 30)]


OPEN = {"g": "10", "bf": "4", "x264-params": "open-gop=1:b-pyramid=strict:b-adapt=0:scenecut=0"}
KEYED: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    "avi with b-frames": ("a.avi", "libx264", X264, {"base": Fraction(1, 25)}),
    "mpeg4 with b-frames": ("a.avi", "mpeg4", {"g": "12", "bf": "2"}, {"base": Fraction(1, 25)}),
    "raw": ("a.h264", "libx264", X264, {}),
    "raw mpeg2": ("a.m2v", "mpeg2video", {"g": "12", "bf": "2"}, {"base": Fraction(1, 25)}),
    "open gop mp4": ("a.mp4", "libx264", OPEN, {}),
    "open gop mkv": ("a.mkv", "libx264", OPEN, {}),
    "mpeg2": ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}, {"base": Fraction(1, 25)}),
    "animation": ("a.mov", "qtrle", {"g": "12"}, {"pixels": "rgb24"}),
    "cineform": ("a.mov", "cfhd", {}, {"pixels": "yuv422p10le"}),
    "refreshed": ("a.ts", "libx264", {"g": "20", "x264-params": "intra-refresh=1"}, {}),
}


@pytest.mark.parametrize("kind", KEYED)
def test_keyframes_are_those_of_the_packets_by_index_and_time(tmp_path: Path, kind: str) -> None:
    name, codec, options, more = KEYED[kind]
    path = write(tmp_path / name, codec, frames=40, options=options, **more)
    found = taken(path, keyframes=True)
    with av.open(str(path)) as container:
        keys = sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert len(found) == (1 if kind == "refreshed" else keys)
    whole = [each for each in taken(path, every_frames=1) if isinstance(each, Sample)]
    assert numbers(found) == [(n, n) for n, _ in numbers(found)]
    assert [s.timestamp_s for s in found if isinstance(s, Sample)] == [
        whole[n].timestamp_s for n, _ in numbers(found)
    ]


def test_a_video_without_keyframes_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=60, options={"g": "100", "bf": "0"})
    (damage,) = taken(edited(path, (1000, 10)), keyframes=True)
    assert isinstance(damage, FrameGap)
    assert damage.reason == "it has no keyframes"


def test_hidden_frames_of_vp8_are_not_counted() -> None:
    path = Path(__file__).parents[2] / "data" / "vp8_hidden_frames.webm"
    assert len(places(path)) > 40  # as packets
    assert numbers(taken(path, every_frames=1)) == [(n, n) for n in range(40)]
    found = numbers(taken(path, keyframes=True))
    assert len(found) > 1
    assert found == [(n, n) for n, _ in found]


def test_a_stream_cut_anywhere_begins_with_what_can_be_decoded(tmp_path: Path) -> None:
    options = {"g": "12", "bf": "2", "x264-params": "scenecut=0"}
    path = write(tmp_path / "a.ts", frames=30, options=options)
    path.write_bytes(path.read_bytes()[188 * 9 :])
    frames = places(path)
    lost = 30 - len(frames)
    found = numbers(taken(path, every_frames=1))
    assert found == [(n - lost, n) for n in range(12, 30)]
    assert numbers(taken(path, keyframes=True)) == [(n - lost, n) for n in (12, 24)]


def test_count_repeats_what_is_shown_for_long(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv",
        frames=20,
        at=lambda n: 40 * n + (4000 if n >= 10 else 0),
        options={"bf": "0", "g": "5"},
    )
    found = numbers(taken(path, count=8))
    assert found == [(0, 0), *[(9, 9)] * 6, (10, 10)]
    clips = taken(path, count=4, clip={"frames": 4, "length_s": 2.4})
    assert [(s.clip, s.frame) for s in clips if isinstance(s, Sample)][:4] == [
        *((0, 0), (0, 9), (0, 9), (0, 9)),
    ]
