"""Which frames are sampled: pure arithmetic over positions and times, exact and seekable."""

import math
from fractions import Fraction
from typing import NamedTuple

from paliflow.configs.video import VideoSpec


class FrameTime(NamedTuple):
    """A frame's place in its video."""

    frame: int
    """Its index in the order of presentation, from 0."""
    time: Fraction
    """Seconds since the video's first frame."""
    key: bool = False
    """Whether it is coded by itself."""


class Target(NamedTuple):
    """No frame is sampled before this; the video may be left out up to there."""

    time: Fraction | None = None
    frame: int | None = None


class Piece(NamedTuple):
    """A part of a video's samples or, where it is cut into clips, of its clips, by number."""

    first: int = 0
    last: int | None = None
    """The first that is not part of it any more; None goes to the end."""


WHOLE = Piece()


def exact(seconds: float) -> Fraction:
    """The decimal that somebody wrote: 0.1 is a tenth."""
    return Fraction(str(seconds))


def unit_s(spec: VideoSpec, frame_s: Fraction) -> Fraction | None:
    """Seconds of what a piece counts; None where its parts depend on each other or on a total.

    Args:
        spec: the policy.
        frame_s: from frame to frame of the video, on average.
    """
    if spec.clip:
        return exact(spec.clip.length_s) if spec.clip.length_s else None
    if spec.min_distance or spec.track:
        return None
    return frame_s * spec.every_frames if spec.every_frames else _period(spec)


class Sampler:
    """Goes over a video's frames in order and says which are sampled.

    What is sampled does not depend on frames that lie before `target`, so that whoever can may
    leave them out; and the samples of the pieces of a video are together those of the whole.
    """

    def __init__(
        self, spec: VideoSpec, piece: Piece = WHOLE, duration: Fraction | None = None
    ) -> None:
        """
        Args:
            spec: the policy.
            piece: the part of the samples, or of the clips, that is wanted.
            duration: of the video in seconds; `count` over a whole video needs it.
        """
        self._spec, self._piece = spec, piece
        self._length = exact(spec.clip.length_s) if spec.clip and spec.clip.length_s else None
        self._limit = spec.clip.frames if spec.clip else spec.count
        self._period = _period(spec)
        if spec.count:
            whole = self._length or duration
            assert whole is not None, "count needs the duration"
            self._period = whole / spec.count or Fraction(1)
            self._limit = min(spec.count, self._limit or spec.count)
        self._clip = self._bucket = -1
        self._start = FrameTime(0, Fraction(0))
        self._taken = 0
        self.done = False
        """Whether no later frame can be sampled."""

    def step(self, stamp: FrameTime, new_scene: bool = False) -> int | None:
        """The number of the clip for which this frame is sampled, 0 without clips; else None."""
        if self._clip_of(stamp, new_scene) and not self._begin(stamp):
            return None
        if self._limit is not None and self._taken == self._limit:
            self.done = self.done or self._whole
            return None
        if not self._picks(stamp, new_scene):
            return None
        self._taken += 1
        return self.clip

    @property
    def clip(self) -> int:
        """The number of the current clip, 0 without clips."""
        return max(self._clip, 0)

    @property
    def only_keys(self) -> bool:
        """Whether frames that are not coded by themselves make no difference."""
        return self._spec.keyframes

    def missed(self, stamp: FrameTime | None) -> int:
        """How many samples of `count` fell due while the frame before this one was shown.

        They are counted as taken, in the current clip.

        Args:
            stamp: of a frame, before its `step`; None after the last.
        """
        if not self._spec.count or self._bucket < 0 or self.done:
            return 0
        assert self._limit is not None
        assert self._period is not None
        if stamp is None and self._length:
            return 0  # whether the video goes on until the next sample, nobody says
        bucket = self._limit
        if stamp is not None:
            bucket = min(bucket, math.floor((stamp.time - self._start.time) / self._period))
        missed = max(0, bucket - self._bucket - 1)
        self._bucket += missed
        self._taken += missed
        return missed

    @property
    def target(self) -> Target:
        """Where the next sample is at the earliest."""
        if self._by_scenes:
            return Target()
        bucket = self._bucket + 1
        if self._length:
            if self._clip < self._piece.first:
                return Target(time=self._piece.first * self._length)
            end = (self._clip + 1) * self._length
            if self._taken == self._limit:
                return Target(time=end)
            if self._period:
                return Target(time=min(end, self._start.time + bucket * self._period))
            return Target()
        if not self._spec.clip:
            bucket = max(bucket, self._piece.first)
        if self._period:
            return Target(time=bucket * self._period)
        if self._spec.every_frames:
            return Target(frame=bucket * self._spec.every_frames)
        return Target()

    @property
    def _by_scenes(self) -> bool:
        return bool(self._spec.clip and self._spec.clip.scenes)

    @property
    def _whole(self) -> bool:
        return not self._length and not self._by_scenes

    def _clip_of(self, stamp: FrameTime, new_scene: bool) -> bool:
        """Whether a clip begins here, which becomes the current one."""
        clip = self._clip
        if self._length:
            clip = math.floor(stamp.time / self._length)
        elif clip < 0 or (self._by_scenes and new_scene):
            clip += 1
        begun, self._clip = clip != self._clip, clip
        return begun

    def _begin(self, stamp: FrameTime) -> bool:
        """Whether the new clip is wanted."""
        self._taken, self._bucket = 0, -1
        if self._length:
            self._start = FrameTime(stamp.frame, self._clip * self._length)
            if self._piece.last is not None and self._clip >= self._piece.last:
                self.done = True
            return not self.done and self._clip >= self._piece.first
        if self._by_scenes:
            self._start = stamp
        return True

    def _picks(self, stamp: FrameTime, new_scene: bool) -> bool:
        if self._length and self._clip < self._piece.first:
            return False
        if self._spec.keyframes:
            return stamp.key
        if self._spec.scenes:
            return new_scene or self._taken == 0
        if self._period:
            bucket = math.floor((stamp.time - self._start.time) / self._period)
        else:
            assert self._spec.every_frames
            bucket = (stamp.frame - self._start.frame) // self._spec.every_frames
        if bucket <= self._bucket:
            return False
        self._bucket = bucket
        if self._spec.clip:
            return True
        if self._piece.last is not None and bucket >= self._piece.last:
            self.done = True
        return not self.done and bucket >= self._piece.first


class SegmentSampler(Sampler):
    """Samples a part of a video as if that began and ended there."""

    def __init__(
        self, spec: VideoSpec, start: Fraction, end: Fraction, duration: Fraction | None = None
    ) -> None:
        """
        Args:
            spec: the policy.
            start, end: seconds; what is shown at `end` is no part of it.
            duration: as in `Sampler`, of the whole video.
        """
        own = None if duration is None else max(Fraction(0), min(duration, end) - start)
        super().__init__(spec, WHOLE, own)
        self._from, self._until = start, end
        self._first: int | None = None  # index of its first frame

    def step(self, stamp: FrameTime, new_scene: bool = False) -> int | None:
        """See `Sampler`."""
        self.done = self.done or stamp.time >= self._until
        if self.done or stamp.time < self._from:
            return None
        if self._first is None:
            self._first = stamp.frame
        return super().step(self._shifted(stamp, self._first), new_scene)

    def missed(self, stamp: FrameTime | None) -> int:
        """See `Sampler`."""
        if stamp is None or stamp.time >= self._until:
            return super().missed(None)
        return 0 if self._first is None else super().missed(self._shifted(stamp, self._first))

    @property
    def target(self) -> Target:
        """See `Sampler`."""
        if self._first is None:
            return Target(time=self._from)
        time, frame = super().target
        return Target(
            None if time is None else time + self._from,
            None if frame is None else frame + self._first,
        )

    def _shifted(self, stamp: FrameTime, first: int) -> FrameTime:
        return FrameTime(stamp.frame - first, stamp.time - self._from, stamp.key)


def _period(spec: VideoSpec) -> Fraction | None:
    """Seconds from sample to sample; None where the policy is not one of time."""
    if spec.fps:
        return 1 / exact(spec.fps)
    if spec.every_frames or spec.count or spec.keyframes or spec.scenes:
        return None
    return exact(spec.every_s or 1)
