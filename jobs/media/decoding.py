"""The tasks of a decoder: what is to be made of an input, said in JSON, and what makes it."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from paliflow.configs.run import Decode, InputsSpec
from paliflow.jobs.media.edits import edit_of
from paliflow.jobs.media.pixels import Files, Result, copied, decode_to_result
from paliflow.jobs.media.video.frames import chosen_frames, length, sampled_frames
from paliflow.jobs.media.video.reading import read_video
from paliflow.jobs.runs.item import Item


class _Task(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def single(self) -> bool:
        """Whether there is one result, after which a decoder waits for another input."""
        return False

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the pixels of a result; None if it has none."""
        return None


class ImageTask(_Task):
    """An image for a network of `size` pixels."""

    kind: Literal["image"] = "image"
    size: int
    max_pixels: int
    thumbnail: int | None = None
    upright: bool = True
    view: bool = False
    """Whether filters are to see it, too."""
    way: Decode = "exact"

    @property
    def single(self) -> bool:
        """See `_Task`."""
        return True

    @property
    def shape(self) -> tuple[int, ...]:
        """See `_Task`."""
        return self.size, self.size, 3

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """One."""
        data = files.read(item)
        yield decode_to_result(
            data,
            self.size,
            self.max_pixels,
            self.thumbnail,
            upright=self.upright,
            way=self.way,
            view=self.view,
            edit=edit_of(item),
        )


class CopyTask(_Task):
    """An image to hand on, in place of a thumbnail: its file without metadata, or a JPEG of it."""

    kind: Literal["copy"] = "copy"
    max_pixels: int
    as_jpeg: bool
    """Whether it is encoded again, upright, so that it may be opened anywhere."""

    @property
    def single(self) -> bool:
        """See `_Task`."""
        return True

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """One."""
        yield copied(files.read(item), self.max_pixels, as_jpeg=self.as_jpeg)


class VideoTask(_Task):
    """A video's frames or clips for a network of `size` pixels."""

    kind: Literal["video"] = "video"
    spec: InputsSpec
    size: int
    thumbnail: int | None = None
    way: Decode = "exact"
    """Of frames that are image files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """See `_Task`."""
        clip = self.spec.video and self.spec.video.clip
        return *((clip.frames,) if clip else ()), self.size, self.size, 3

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """As `read_video`."""
        return read_video(item, files, self.spec, self.size, self.thumbnail, self.way)


class SampledFramesTask(_Task):
    """A video's sampled frames as images."""

    kind: Literal["sampled_frames"] = "sampled_frames"
    spec: InputsSpec
    format: Literal["jpeg", "png"]
    quality: int
    longest_side: int | None
    square_pixels: bool = False

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """As `sampled_frames`."""
        return sampled_frames(
            item,
            files,
            self.spec,
            self.format,
            self.quality,
            self.longest_side,
            square_pixels=self.square_pixels,
        )


class ChosenFramesTask(_Task):
    """Some of a video's frames as small JPEGs."""

    kind: Literal["chosen_frames"] = "chosen_frames"
    spec: InputsSpec
    wanted: tuple[int, ...]
    side: int

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """As `chosen_frames`."""
        return chosen_frames(item, files, self.spec, self.wanted, self.side)


class LengthTask(_Task):
    """How long a video is."""

    kind: Literal["length"] = "length"
    spec: InputsSpec

    @property
    def single(self) -> bool:
        """See `_Task`."""
        return True

    def results(self, item: Item, files: Files) -> Iterator[Result | None]:
        """One."""
        yield length(item, files, self.spec)


Task = ImageTask | CopyTask | VideoTask | SampledFramesTask | ChosenFramesTask | LengthTask
TASK: TypeAdapter[Task] = TypeAdapter(Annotated[Task, Field(discriminator="kind")])
