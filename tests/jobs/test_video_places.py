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

from paliflow.jobs.plan import Item
from paliflow.jobs.video.cutting import pieces
from paliflow.jobs.video.damage import Damage
from paliflow.jobs.video.reading import Sample
from paliflow.jobs.video.sampling import exact
from paliflow.tests.jobs.test_video_frames import numbers, spec, taken
from paliflow.tests.jobs.videos import read, write

FRAMES, GOP = 48, 12
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

    index: int
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
        assert [each.frame for each in found] == [each.index for each in expected], policy
        assert [each.timestamp_s for each in found] == [each.stamp for each in expected], policy
        assert [read(each.image) for each in found] == [order[each.index] for each in expected]


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(PARTS, st.sampled_from([".mp4", ".mkv", ".ts", ".mov"]))
def test_samples_are_those_that_the_packets_tell(part: Part, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        check(path, mux(path, part))


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(st.lists(PARTS, min_size=2, max_size=3), st.booleans())
def test_files_joined_end_to_end_are_one_video(parts: list[Part], goes_on: bool) -> None:
    with TemporaryDirectory() as folder:
        path, start = Path(folder, "a.ts"), 0
        order: list[int] = []
        content = b""
        for n, part in enumerate(parts):
            order += mux(each := Path(folder, f"{n}.ts"), part, start)
            content += each.read_bytes()
            last = places(each)[-1]
            start = start + int(last.time * 1000) + 40 if goes_on else 0
        path.write_bytes(content)
        check(path, order)
        damages = [each for each in taken(path, every_frames=1) if isinstance(each, Damage)]
        assert all(each.mended for each in damages)
        assert not damages or not goes_on


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
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
