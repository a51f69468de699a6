"""`VideoSpec`: which frames of a video are looked at, one by one or as clips."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from paliflow.configs.base import Spec

Distance = Annotated[float, Field(gt=0.0, lt=1.0)]
"""Mean absolute difference of two frames, shrunk to 32 x 32: 0 is the same, 1 black and white."""
_POLICIES = ("every_s", "fps", "every_frames", "count", "keyframes", "scenes")


class ClipSpec(Spec):
    """How a video is cut into clips, each of which is one input of several frames."""

    frames: PositiveInt = 8
    """Frames that the model is shown of each clip, F; PaliGemma's video models were trained with 8
    or 16. Of a clip with more samples, the first F."""
    length_s: PositiveFloat | None = None
    """Seconds a clip. Without this and without `scenes` the whole video is one clip."""
    scenes: Distance | None = None
    """A clip ends where a frame differs from the one before by more than this, e.g. 0.3."""
    short: Literal["loop", "pad"] = "loop"
    """Of a clip with fewer samples than `frames`: begin again, as PaliGemma's training did, or
    repeat the last."""

    @model_validator(mode="after")
    def _cut_one_way(self) -> "ClipSpec":
        if self.length_s and self.scenes:
            raise ValueError("give length_s or scenes, not both")
        return self


class VideoSpec(Spec):
    """Which frames of each video are sampled, by one of six policies; else one a second.

    Each sampled frame is an input of its own or, with `clip`, part of one.
    """

    every_s: PositiveFloat | None = None
    """The first frame of each stretch of so many seconds."""
    fps: PositiveFloat | None = None
    """So many frames a second: `every_s` of its inverse."""
    every_frames: PositiveInt | None = None
    """Every N-th frame, from the first: the fixed stride of the published evaluations."""
    count: PositiveInt | None = None
    """So many frames, evenly over the video or, with `clip`, over each clip."""
    keyframes: bool = False
    """The frames that are coded by themselves."""
    scenes: Distance | None = None
    """The first frame, and each that differs from the one before by more than this, e.g. 0.3."""
    clip: ClipSpec | None = None
    """Ask about clips of several frames; about single frames if not given."""
    min_distance: Distance | None = None
    """Skip a sample that differs less than this from the last one kept, e.g. 0.02; the output's
    `frame_distance` says how much each differs."""
    segment_s: PositiveFloat | None = 60.0
    """Longer videos are cut into pieces of about so many seconds, which several actors do at once,
    if the file has a table of its frames (MP4, MOV) and the samples of a piece do not depend
    on earlier ones; null does each video in one piece."""
    frame_rate: PositiveFloat | None = None
    """The input's images are frames of videos that were taken apart, so many a second: a folder's
    are one video, in the order of their names, or of a manifest those with the same `group`."""
    group_column: str | None = None
    """The manifest's column that names the video which each frame belongs to."""
    track: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Link `detect`'s boxes from sample to sample where they overlap by at least this (IoU) and
    have the same label, e.g. 0.3; each gets a `track_id`. A video is then one piece."""

    @model_validator(mode="after")
    def _one_policy(self) -> "VideoSpec":
        given = [name for name in _POLICIES if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(_POLICIES)}, not {' and '.join(given)}")
        if self.clip and self.clip.scenes and (self.count or self.scenes):
            raise ValueError(
                f"clip.scenes with {given[0]}: how long a scene is, is not known when it begins; "
                "sample it by every_s, fps or every_frames"
            )
        if self.clip and self.track:
            raise ValueError("track links the boxes of single frames; leave out clip")
        if self.group_column and not self.frame_rate:
            raise ValueError("group_column needs frame_rate: how many frames are a second")
        if self.frame_rate and self.keyframes:
            raise ValueError("keyframes: of a video that was taken apart nobody knows them")
        return self
