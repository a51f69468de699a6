"""Sampling policies: what they say, whatever may be left out, in pieces or whole."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paliflow.configs.base import SpecError
from paliflow.configs.video import VideoSpec
from paliflow.jobs.media.video.sampling import WHOLE, FrameTime, Piece, Sampler, exact

STEPS = st.lists(st.integers(1, 2000), max_size=120)
SECONDS = st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.5])
POLICIES = st.one_of(
    st.builds(lambda s: {"every_s": s}, SECONDS),
    st.builds(lambda f: {"fps": f}, st.sampled_from([0.7, 1.0, 3.0, 30.0])),
    st.builds(lambda n: {"every_frames": n}, st.integers(1, 20)),
)
CLIPS = st.builds(
    lambda frames, length: {"frames": frames, "length_s": length}, st.integers(1, 5), SECONDS
)


def video(steps: list[int]) -> list[FrameTime]:
    """Frames with so many milliseconds in between."""
    times = [0]
    for step in steps:
        times.append(times[-1] + step)
    return [FrameTime(n, Fraction(t, 1000), n % 7 == 0) for n, t in enumerate(times)]


def sampled(
    frames: list[FrameTime], spec: VideoSpec, piece: Piece = WHOLE, duration: Fraction | None = None
) -> list[tuple[int, int]]:
    """Clip and index of what is sampled when every frame is looked at."""
    return list(run(Sampler(spec, piece, duration), frames))


def run(sampler: Sampler, frames: list[FrameTime]) -> Iterator[tuple[int, int]]:
    for stamp in frames:
        clip = sampler.step(stamp)
        if sampler.done:
            return
        if clip is not None:
            yield clip, stamp.frame


@given(STEPS, SECONDS)
def test_every_s_takes_the_first_frame_of_each_stretch(steps: list[int], every: float) -> None:
    frames = video(steps)
    first: dict[int, int] = {}
    for stamp in frames:
        first.setdefault(math.floor(stamp.time / exact(every)), stamp.frame)
    assert sampled(frames, VideoSpec(every_s=every)) == [(0, n) for n in first.values()]
    assert sampled(frames, VideoSpec()) == sampled(frames, VideoSpec(fps=1))


@given(STEPS, st.integers(1, 20))
def test_every_frames_is_a_stride_from_the_start(steps: list[int], stride: int) -> None:
    taken = sampled(video(steps), VideoSpec(every_frames=stride))
    assert [n for _, n in taken] == list(range(0, len(steps) + 1, stride))


@given(STEPS)
def test_keyframes_are_those_that_are_coded_alone(steps: list[int]) -> None:
    taken = sampled(video(steps), VideoSpec(keyframes=True))
    assert [n for _, n in taken] == list(range(0, len(steps) + 1, 7))


@given(st.integers(1, 200), st.integers(1, 20))
def test_count_is_spread_evenly_over_the_video(length: int, count: int) -> None:
    frames = video([40] * (length - 1))
    taken = [n for _, n in sampled(frames, VideoSpec(count=count), WHOLE, Fraction(length, 25))]
    assert taken == sorted({math.ceil(Fraction(k * length, count)) for k in range(count)})[:length]


@given(STEPS, POLICIES, st.none() | CLIPS, st.integers(1, 9))
def test_the_pieces_of_a_video_have_the_samples_of_the_whole(
    steps: list[int], policy: dict[str, Any], clip: dict[str, Any] | None, size: int
) -> None:
    frames, spec = video(steps), VideoSpec.parse(policy | {"clip": clip})
    bounds = [*range(0, 10 * size, size), None]
    pieces = [Piece(first or 0, last) for first, last in pairwise(bounds)]
    parts = [sampled(frames, spec, piece) for piece in pieces]
    assert [each for part in parts for each in part] == sampled(frames, spec)


@given(STEPS, POLICIES, st.none() | CLIPS, st.integers(0, 9), st.data())
def test_frames_before_the_target_make_no_difference(
    steps: list[int],
    policy: dict[str, Any],
    clip: dict[str, Any] | None,
    first: int,
    data: st.DataObject,
) -> None:
    frames, spec = video(steps), VideoSpec.parse(policy | {"clip": clip})
    piece, taken = Piece(first, first + 3), []
    sampler = Sampler(spec, piece)
    for stamp in frames:
        target = sampler.target
        before = (target.time is not None and stamp.time < target.time) or (
            target.frame is not None and stamp.frame < target.frame
        )
        if before and data.draw(st.booleans()):
            continue
        if (chosen := sampler.step(stamp)) is not None and not sampler.done:
            taken.append((chosen, stamp.frame))
        if sampler.done:
            break
    assert taken == sampled(frames, spec, piece)


def test_a_clip_is_its_first_frames_and_scenes_begin_new_ones() -> None:
    spec = VideoSpec.parse({"every_frames": 2, "clip": {"frames": 3, "scenes": 0.3}})
    sampler, cuts = Sampler(spec), {10, 14}
    taken = [(sampler.step(stamp, stamp.frame in cuts), stamp.frame) for stamp in video([40] * 19)]
    assert [each for each in taken if each[0] is not None] == [
        *((0, 0), (0, 2), (0, 4)),
        *((1, 10), (1, 12)),
        *((2, 14), (2, 16), (2, 18)),
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fps": 1, "count": 3}, "not fps and count"),
        ({"count": 3, "clip": {"scenes": 0.3}}, "how long a scene is"),
        ({"clip": {"scenes": 0.3, "length_s": 2}}, "length_s or scenes"),
        ({"track": 0.3, "clip": {}}, "leave out clip"),
        ({"group_column": "film"}, "needs frame_rate"),
        ({"frame_rate": 5, "keyframes": True}, "taken apart"),
        ({"fpss": 1}, "did you mean fps"),
    ],
)
def test_specs_that_make_no_sense_say_why(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        VideoSpec.parse(fields)
