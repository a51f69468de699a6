"""One decoded frame as it is shown: upright, whole, and small where that is enough."""

import struct
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray
from PIL import Image

from paliflow.jobs.media.video.sampling import FrameTime
from paliflow.model.images import resize

SMALL = 32
"""Pixels of the side of what frames are shrunk to for comparison."""
_SKEW = 0.02
"""A display matrix that turns by less than this, in radians, beyond a right angle turns by that."""
_UNSPECIFIED = 2
_MATRICES = {8: _UNSPECIFIED, 10: 9, **dict.fromkeys(range(11, 18), _UNSPECIFIED)}
"""Instead of matrix coefficients (ITU-T H.273) that FFmpeg does not convert, others near them."""
_TURNS = {
    (False, True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, False, True): Image.Transpose.FLIP_TOP_BOTTOM,
    (False, True, True): Image.Transpose.ROTATE_180,
    (True, False, False): Image.Transpose.TRANSPOSE,
    (True, True, False): Image.Transpose.ROTATE_270,
    (True, False, True): Image.Transpose.ROTATE_90,
    (True, True, True): Image.Transpose.TRANSVERSE,
}
"""By whether a matrix exchanges the axes and then mirrors the horizontal, the vertical one."""
_AS_IT_LIES = (False, False, False)
_ROTATIONS = {90: (True, False, True), 180: (False, True, True), 270: (True, True, False)}
"""By degrees, counterclockwise."""


class Frame(NamedTuple):
    """One decoded frame."""

    stamp: FrameTime
    timestamp_s: float
    """Its presentation time, as the container says it."""
    picture: av.VideoFrame
    stored_aspect: Fraction = Fraction(1)
    """How many times as wide as high a pixel is before the picture is turned."""

    def small(self) -> NDArray[np.uint8]:
        """uint8 [SMALL, SMALL, 3], by which frames are compared."""
        return self._scaled(SMALL, SMALL)

    def upright(self) -> Image.Image:
        """As RGB, turned and mirrored as the file says that it is to be shown."""
        return self._turned(self._converted())

    def reduced(self, size: int) -> Image.Image:
        """As `upright`, by a whole factor smaller where that leaves `size` pixels both ways.

        PaliGemma's video models were trained on frames resized without antialiasing: they forgive
        the few grey levels by which this differs from reducing the whole frame at once.
        """
        picture = self.picture
        factor = min(picture.width, picture.height) // size
        if factor < 2:
            return self.upright()
        return self._turned(self._scaled(picture.width // factor, picture.height // factor))

    def squashed(self, size: int) -> NDArray[np.uint8]:
        """uint8 [size, size, 3], for a network."""
        return resize(self.reduced(size), size)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.picture.width, self.picture.height
        return (height, width) if _turn(self.picture)[0] else (width, height)

    @property
    def pixel_aspect(self) -> Fraction:
        """How many times as wide as high a pixel is to be shown, upright."""
        return 1 / self.stored_aspect if _turn(self.picture)[0] else self.stored_aspect

    def _scaled(self, width: int, height: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], the average of the pixels that fall on each."""
        return self._converted(width=width, height=height, interpolation="AREA")

    def _converted(self, **scaling: Any) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]; of the picture's own size if no other is given."""
        # More threads than one would last as long as the frame, beside those of other videos.
        converted = _plain(self.picture).reformat(format="rgb24", threads=1, **scaling)
        return np.asarray(converted.to_ndarray(), np.uint8)

    def _turned(self, pixels: NDArray[np.uint8]) -> Image.Image:
        image = Image.fromarray(pixels)
        turn = _TURNS.get(_turn(self.picture))
        return image if turn is None else image.transpose(turn)


def _plain(picture: av.VideoFrame) -> av.VideoFrame:
    """The same pixels without what keeps FFmpeg from converting and scaling them as they lie."""
    if matrix := _MATRICES.get(picture.colorspace):
        picture.colorspace = matrix
    if picture.interlaced_frame:
        # Of these it scales the two fields apart and weaves them again: the comb stays.
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=Fraction(1, 1000),
        )
        whole, sink = graph.add("setfield", "prog"), graph.add("buffersink")
        source.link_to(whole)
        whole.link_to(sink)
        graph.configure()
        graph.push(picture)
        picture = graph.vpull()
    return picture


def _turn(picture: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether its display matrix exchanges the axes, then mirrors the horizontal, the vertical.

    One that turns by something else than right angles is taken for none.
    """
    try:
        sides: Any = picture.side_data
        data = sides[Type.DISPLAYMATRIX]
    except KeyError:
        return _AS_IT_LIES
    except ValueError:  # the frame has other data, as Exif, that PyAV 18 has no name for
        return _ROTATIONS.get(round(picture.rotation) % 360, _AS_IT_LIES)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    plain, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) < plain * _SKEW:
        return False, a < 0, d < 0
    if max(abs(a), abs(d)) < crossed * _SKEW:
        return True, c < 0, b < 0
    return _AS_IT_LIES
