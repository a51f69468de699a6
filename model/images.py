"""Image files to the network's input: any Pillow mode, upright, square, in [-1, 1]."""

import contextlib
import io
import math
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PsdImagePlugin import PsdImageFile
from PIL.TiffImagePlugin import TiffImageFile

from paliflow.model.avif import coded_pixels
from paliflow.model.unread import unread_format

with contextlib.suppress(ImportError):  # the extra `heif`
    from pillow_heif import register_heif_opener

    register_heif_opener()

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "PSD", "TIFF", "WEBP")
"""What is tried, besides HEIF and TGA, which have to look it; Pillow knows more, some of which
starts other programs."""
HEAD_BYTES = 64
"""The first bytes of a file, by which `has_image_magic` knows it."""
# fmt: off
_HEIF_BRANDS = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
)
# fmt: on
_TGA_END = b"TRUEVISION-XFILE.\0"
"""What a TGA of the second version ends with."""
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
GAP = 2
"""Decoded for a network, an image keeps this many times the network's side both ways until it is
resized in floats."""
LARGE = 2**25
"""Pixels above which an image is reduced while it is decoded, and no other beside it."""
_SIDEWAYS = (5, 6, 7, 8)
"""Values of EXIF's Orientation under which width and height change places (Exif 3.0, 4.6.5.1.7)."""
_MIRRORED_X, _MIRRORED_Y = (2, 3, 6, 7), (3, 4, 7, 8)
"""Those whose upright picture is the file's mirrored, once its axes are exchanged if at all."""
_COSTLY_FORMATS = ("AVIF", "HEIF", "JPEG2000", "WEBP")
_COSTLY = 3
"""Their decoders need 9 to 18 bytes a pixel, others 4 to 7."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SUBFILE = 254
"""A TIFF's tag whose first bit says that a page is a smaller copy of another."""
_MOST_THUMBNAILS = 16
_PSD_VERSION = 1057
""""VersionInfo", which says after four bytes whether there is a picture of all layers."""
_MAX_SCANS = 20
"""A progressive JPEG goes over its pixels once a scan, and may have thousands of empty ones."""
_SCAN = b"\xff\xda"
_SCANS_AT_ONCE = 2
"""A JPEG with more, an EXIF thumbnail's among them, takes memory for all of its coefficients,
however few pixels are made of them."""
_LEAST_BLOCK = 6
"""Pixels that are averaged at once at least: how Pillow rounds the mean of n shifts it by up to 1/n
of a level, of 2 or 3 by a quarter and more."""
_STRIP = 2**19
"""Pixels that are resized at once."""
_WHITES = (255, 4095, 65535)
_SBIT = "significant bits"
_UNSUPPORTED = re.compile(
    "unsupported|not supported|unknown .*mode|not available|cannot handle|unable to determine", re.I
)
"""What Pillow's plugins say of files that they know and cannot read."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_JP2_HEADER = 512
_GREY = (17).to_bytes(4, "big")
_PIXEL_CHUNKS = (b"tRNS", b"sBIT", b"eXIf")
"""Chunks of a PNG that need not be there, and say something of its pixels or their orientation."""
_ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""The texts that may say its orientation as well."""
_MAX_TEXT = 2**20
"""Bytes of a text beyond which Pillow refuses the image."""
one_at_a_time: AbstractContextManager[object] = threading.Lock()
"""Held while an image above `LARGE` is decoded; decoder processes put one here that they share."""


class ImageTooLarge(ValueError):  # noqa: N818
    """The image has more pixels than allowed."""


class UnsupportedImage(ValueError):  # noqa: N818
    """The image may be whole, and is of a format or in a mode that is not read here."""


class _NoPillowLimit(AbstractContextManager[None]):
    """Lifts Pillow's own limit of pixels, of which there is one for all threads, for a while.

    It is back when the last thread has left. What somebody else has set meanwhile stays.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and Image.MAX_IMAGE_PIXELS is None:
                Image.MAX_IMAGE_PIXELS = self._limit


_no_pillow_limit = _NoPillowLimit()


class Decoded(NamedTuple):
    """An image, upright unless that was not wanted."""

    image: Image.Image
    """RGB; of a file of more than `LARGE` pixels, reduced by a whole factor to fewer."""
    width: int
    height: int
    """Pixels of the file."""
    orientation: int = 1
    """EXIF's: how the file's pixels have to be turned to be upright, 1 being not at all."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the picture in `image`, whose outermost row and column may
    stand for fewer of the file's pixels than others; None if it was not decoded for a network."""


def decode_image(
    data: bytes, max_pixels: int, *, upright: bool = True, side: int | None = None
) -> Decoded:
    """Decodes the first frame of an image file of one of `FORMATS`.

    Alpha is dropped as in PaliGemma's own preprocessing, palettes are expanded, greys of more than
    8 bits are scaled to 8 (see `_grey_range`), CMYK is converted, EXIF orientation is applied if
    it can be read and `upright` asks for it. Metadata never makes an image unreadable.

    Args:
        data: the file.
        max_pixels: of the file.
        upright: whether to turn it.
        side: of the square that `squash` will make of it: then a JPEG is decoded to an eighth, a
            quarter or half of its sides, where that leaves `GAP` times as much both ways.

    Raises:
        ImageTooLarge: the header, a TIFF's tile or an AVIF's frame announces more than
            `max_pixels` pixels, or a third of them in a format that takes three times the memory;
            nothing is decoded.
        UnsupportedImage: a format that is known and not read (`unread_format`), HEIF without the
            extra that reads it, or a PSD without a picture.
        OSError, ValueError, SyntaxError: not an image, or a broken one.
    """
    if said := unread_format(data):
        raise UnsupportedImage(said)
    data = _with_grey_named(_without_metadata(data))
    with _no_pillow_limit, Image.open(io.BytesIO(data), formats=_formats(data)) as image:
        _pass_thumbnails(image)
        _require_composite(image)
        image.info |= _significant_bits(data)
        width, height = image.size
        limit = max_pixels // (_COSTLY if image.format in _COSTLY_FORMATS else 1)
        if width * height > limit:
            share = f" / {_COSTLY} for {image.format}" * (limit < max_pixels)
            raise ImageTooLarge(
                f"{width} x {height} pixels are more than max_pixels={max_pixels}{share}"
            )
        inner = _inner_pixels(image, data)
        if inner > limit:
            raise ImageTooLarge(
                f"{width} x {height} pixels, but {inner} in one of its tiles or frames, are more "
                f"than max_pixels={max_pixels}"
            )
        scans = _scans(image, data)
        if width * height * scans > _MAX_SCANS * max_pixels:
            raise ImageTooLarge(
                f"{width} x {height} pixels in {scans} scans are more than max_pixels={max_pixels} "
                f"in {_MAX_SCANS}"
            )
        shown: tuple[float, float] = width, height
        if side and (drafted := image.draft("RGB", (GAP * side, GAP * side))):
            shown = drafted[1][2:]
        held = width * height if scans > _SCANS_AT_ONCE else image.width * image.height
        if held <= LARGE:
            image.load()
            rgb = _to_rgb(image, _grey_range(image))
        else:
            factor = _factor(image)
            shown = shown[0] / factor, shown[1] / factor
            with one_at_a_time:
                rgb = _reduced(image)
        orientation = _orientation(image)
    turned = orientation if upright else 1
    if turned != 1:
        rgb = _turned(rgb, turned)
    if turned in _SIDEWAYS:
        width, height, shown = height, width, shown[::-1]
    return Decoded(rgb, width, height, orientation, _box(rgb.size, shown, turned) if side else None)


def _scans(image: Image.Image, data: bytes) -> int:
    """How often a JPEG's decoder goes over its pixels at most; 1 of other formats."""
    if not isinstance(image, JpegImageFile):
        return 1
    header = 6 + 2 * image.layers  # T.81, B.2.3; Pillow has read on to the end of the first one
    start = image.fp.tell() - header if image.fp else 0
    whole = data[start - 2 : start] == _SCAN and data[start + 2] == image.layers
    if whole and not image.info.get("progressive"):
        return 1  # it has all that is decoded
    return data.count(_SCAN)


def _box(
    size: tuple[int, int], shown: tuple[float, float], turned: int
) -> tuple[float, float, float, float]:
    """Where the picture is in an image of a size, after turning; before, its corner was 0, 0."""
    left, right = (size[0] - shown[0], size[0]) if turned in _MIRRORED_X else (0.0, shown[0])
    top, bottom = (size[1] - shown[1], size[1]) if turned in _MIRRORED_Y else (0.0, shown[1])
    return left, top, right, bottom


def unsupported(data: bytes, error: Exception) -> str | None:
    """What Pillow cannot read in an image that may be whole; None if it is broken.

    Args:
        data: the file.
        error: what `decode_image` has raised.
    """
    reason = str(error)
    if isinstance(error, UnidentifiedImageError):
        # Pillow tells no more, but what it has tried does.
        for name in _formats(data):
            factory, accept = Image.OPEN[name]
            if accept is not None and accept(data[:16]) is not True:
                continue
            try:
                factory(io.BytesIO(data), "").close()
            except Exception as inner:
                reason = f"{name}: {inner}"
    return reason if _UNSUPPORTED.search(reason) else None


def _pass_thumbnails(image: Image.Image) -> None:
    """Goes on to a TIFF's first page that is the picture itself, where a smaller copy comes first.

    Stays where there is none.
    """
    if not isinstance(image, TiffImageFile):
        return
    for page in range(_MOST_THUMBNAILS):
        if not int(_tag(image, _SUBFILE) or 0) & 1:
            return
        try:
            image.seek(page + 1)
        except EOFError:
            break
    image.seek(0)


def _require_composite(image: Image.Image) -> None:
    """
    Raises:
        UnsupportedImage: a PSD that has its layers alone, and white where their picture should be.
    """
    if isinstance(image, PsdImageFile):
        for number, _, content in image.resources:
            if number == _PSD_VERSION and content[4:5] == b"\0":
                raise UnsupportedImage(
                    "PSD without a picture of all its layers: save it with maximal compatibility"
                )


def _inner_pixels(image: Image.Image, data: bytes) -> int:
    """Pixels of the largest part that is decoded as a whole, where that may exceed the image."""
    if image.format == "AVIF":
        return coded_pixels(data)
    if isinstance(image, TiffImageFile):
        sides = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        return math.prod(side if isinstance(side, int) else 0 for side in sides)
    return 0


def has_image_magic(data: bytes) -> bool:
    """Whether a file starts like one of `FORMATS`, whatever follows."""
    head = data[:HEAD_BYTES]
    Image.init()
    if (head[:1] == b"P" and not head[2:3].isspace()) or (
        head[:2] == b"BM" and int.from_bytes(head[14:18], "little") not in _BMP_HEADERS
    ):
        return False  # a text: Pillow looks at two letters
    starts = (Image.OPEN[name][1] for name in FORMATS)
    known = any(start is not None and start(head) is True for start in starts)
    return known or _is_heif(head) or _is_tga(head)


def _formats(data: bytes) -> tuple[str, ...]:
    """What to try of a file."""
    head = data[:HEAD_BYTES]
    if _is_tga(head) or data.endswith(_TGA_END):
        return (*FORMATS, "TGA")
    if not _is_heif(head):
        return FORMATS
    if "HEIF" in Image.OPEN:
        return (*FORMATS, "HEIF")
    if head[8:12] in (b"mif1", b"msf1"):
        return FORMATS  # AVIF may begin so
    raise UnsupportedImage("HEIC is read with pillow-heif; install paliflow[heif] where actors run")


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _is_tga(head: bytes) -> bool:
    """TGA has no magic, and Pillow takes nearly anything for one: its header has to add up."""
    if len(head) < 18 or head[16] not in (8, 15, 16, 24, 32) or not any(head[12:14]):
        return False
    if head[1] == 0:  # no colour map, whose fields are empty then
        return head[2] in (2, 3, 10, 11) and not any(head[3:8]) and any(head[14:16])
    return head[1] == 1 and head[2] in (1, 9) and head[7] in (15, 16, 24, 32)


def _without_metadata(data: bytes) -> bytes:
    """A PNG's pixels, and what may say which way is up; another file as it is.

    Pillow refuses the whole image where metadata is too large or its checksum is wrong.
    """
    if not data.startswith(_PNG):
        return data
    kept, start = [], 0
    for name, place, content in _chunks(data):
        if name[0] & 0x20 and not (_matters(name, content) and _intact(data, place, content)):
            kept.append(data[start:place])
            start = place + 12 + len(content)
    return b"".join([*kept, data[start:]]) if kept else data


def _with_grey_named(data: bytes) -> bytes:
    """A JPEG 2000 of grey and alpha, whatever colours its header speaks of; another as it is.

    FFmpeg says YCC of two components, and Pillow takes that for broken.
    """
    header = data[:_JP2_HEADER]
    if not header.startswith(_JP2) or header.count(b"ihdr") != 1:
        return data
    colour = header.find(b"colr\1")  # ISO 15444-1, I.5.3.3: the colour space comes at 7
    size = header.index(b"ihdr") + 4
    if colour < 0 or header[size + 8 : size + 10] != b"\0\2":
        return data
    return data[: colour + 7] + _GREY + data[colour + 11 :]


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, memoryview]]:
    """A PNG's chunks up to where it breaks off: name, place and content."""
    view, place = memoryview(data), len(_PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")
        if end + 4 > len(data):
            return
        yield bytes(view[place + 4 : place + 8]), place, view[place + 8 : end]
        place = end + 4


def _intact(data: bytes, place: int, content: memoryview) -> bool:
    end = place + 8 + len(content)
    return zlib.crc32(content, zlib.crc32(data[place + 4 : place + 8])) == int.from_bytes(
        data[end : end + 4], "big"
    )


def _matters(name: bytes, content: memoryview) -> bool:
    if name in _PIXEL_CHUNKS:
        return True
    keyword, _, text = bytes(content[: 2 * _MAX_TEXT]).partition(b"\0")
    if name not in (b"tEXt", b"zTXt", b"iTXt") or keyword not in _ORIENTED:
        return False
    if name == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    else:
        packed, text = name == b"zTXt", text[1:]
    if not packed:
        return len(text) < _MAX_TEXT
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(text, _MAX_TEXT)
    except zlib.error:
        return False
    return not inflate.unconsumed_tail


def _significant_bits(data: bytes) -> dict[Any, Any]:
    """How many bits of a PNG's grey samples mean something, as an entry of Pillow's `info`."""
    if data.startswith(_PNG):
        for name, _, content in _chunks(data):
            if name == b"sBIT" and len(content) in (1, 2) and 0 < content[0] < 16:
                return {_SBIT: content[0]}
            if name == b"IDAT":
                break
    return {}


def _orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block raises nearly anything, and its picture is whole
        return 1
    return value if 1 <= value <= 8 else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """An image made upright, whatever its own metadata says."""
    image.info = {}
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _reduced(image: Image.Image) -> Image.Image:
    """Decodes with room for one copy of the file's pixels, strip by strip from there."""
    factor = _factor(image)
    image.draft("RGB", (image.width // factor, image.height // factor))  # JPEG decodes to fewer
    image.load()
    factor = _factor(image)
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    strip = 64 * factor
    greys = _grey_range(image)
    for top in range(0, image.height, strip):
        box = (0, top, image.width, min(top + strip, image.height))
        rgb.paste(_to_rgb(image.crop(box), greys).reduce(factor), (0, top // factor))
    return rgb


def _factor(image: Image.Image) -> int:
    return math.ceil(math.sqrt(image.width * image.height / LARGE))


def _grey_range(image: Image.Image) -> tuple[float, float] | None:
    """Which values of a grey image of more than 8 bits are black and white; None of any other.

    What the file says counts: a TIFF's sample range, or less than 16 bits a sample; the bits that
    a PNG calls significant, if no value has more. Where it says nothing, white is the least of 255,
    4095 and 65535 that no value exceeds, of floats also 1, or else the brightest value. Of floats
    that are brightest between 1 and 16 that is white, for there is no such convention.
    """
    if not _is_deep_grey(image):
        return None
    lowest, highest = _stated_range(image)
    if highest is None:
        brightest = _brightest(image)
        whites: tuple[float, ...] = _WHITES
        if bits := image.info.get(_SBIT):
            whites = 2**bits - 1, 65535
        elif image.mode == "F":
            whites = 1, max(1.0, min(brightest, 16.0)), *_WHITES
        highest = next((white for white in whites if brightest <= white), brightest)
    # Pillow inverts where 0 is white, but not greys of more than 8 bits.
    inverted = image.format == "TIFF" and _tag(image, 262) == 0
    return (highest, lowest) if inverted else (lowest, highest)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _stated_range(image: Image.Image) -> tuple[float, float | None]:
    """The least and the largest sample that the file's format or header allows, if it says so."""
    if image.format in ("JPEG2000", "PPM") and image.mode != "F":
        return 0.0, 65535.0  # Pillow has scaled them
    if image.format != "TIFF":
        return 0.0, None
    lowest = _tag(image, 340) or _tag(image, 280) or 0.0
    highest = _tag(image, 341) or _tag(image, 281)
    if highest is not None and highest > lowest:
        return lowest, highest
    bits = int(_tag(image, 258) or 0)
    return 0.0, 2.0**bits - 1 if 0 < bits < 16 else None


def _tag(image: Image.Image, number: int) -> float | None:
    """A TIFF's number, or the first of several; None where there is none that makes sense."""
    try:
        value = image.tag_v2.get(number)  # type: ignore[attr-defined]
        found = float(value[0] if isinstance(value, tuple) else value)
    except Exception:  # a broken directory raises nearly anything
        return None
    return found if math.isfinite(found) else None


def _brightest(image: Image.Image) -> float:
    """The largest finite value."""
    brightest = 0.0
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(strip)
        brightest = max(brightest, float(values.max(initial=0, where=np.isfinite(values))))
    return brightest


def _to_rgb(image: Image.Image, greys: tuple[float, float] | None) -> Image.Image:
    if greys:
        black, white = greys
        with np.errstate(over="ignore", invalid="ignore"):
            levels = (np.asarray(image, np.float32) - black) * (255 / ((white - black) or 1))
        levels = np.rint(np.clip(np.nan_to_num(levels), 0, 255))
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess(image: Image.Image, size: int) -> NDArray[np.float32]:
    """Squashes to `size` x `size` (bilinear, antialiased) and maps 0..255 to [-1, 1].

    Equals big_vision's `resize(antialias=True)|value_range(-1, 1)`, which truncates to whole grey
    levels where the size changes: half a level darker than Pillow's rounding on average.

    Returns:
        float32 [size, size, 3].
    """
    return normalize(resize(image, size))


def resize(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Squashes as `preprocess` does; uint8 [size, size, 3]."""
    if image.size == (size, size):
        return np.asarray(image)
    return _boxed(image, size, (0, 0, *image.size))


def squash(decoded: Decoded, size: int) -> NDArray[np.uint8]:
    """Squashes what `decode_image` made of a file: as `resize`, or faster if it was given a `side`.

    Then blocks of whole pixels are averaged first, as long as `GAP` times `size` of them are left.
    How much the levels differ is in docs/performance.md.

    Returns:
        uint8 [size, size, 3].
    """
    image, box = decoded.image, decoded.box
    if box is None or (image.size == (size, size) and box == (0, 0, size, size)):
        return resize(image, size)
    by_x = max(1, int((box[2] - box[0]) / (GAP * size)))
    by_y = max(1, int((box[3] - box[1]) / (GAP * size)))
    if by_x * by_y >= _LEAST_BLOCK:
        image = Image.Image.reduce(image, (by_x, by_y))  # a JPEG 2000 has another `reduce`
        box = box[0] / by_x, box[1] / by_y, box[2] / by_x, box[3] / by_y
    return _boxed(image, size, box)


def _boxed(
    image: Image.Image, size: int, box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    pixels = np.empty((size, size, 3), np.uint8)
    for channel, band in enumerate(_resized_bands(image, size, box)):
        # Sums of float32 that are a whole level stay just below it as often as not.
        pixels[..., channel] = np.asarray(band) + np.float32(2**-10)
    return pixels


def normalize(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Maps 0..255 to [-1, 1]."""
    values = pixels.astype(np.float32)
    values /= 127.5  # in place: fresh memory costs more than the arithmetic
    values -= 1.0
    return values


def _resized_bands(
    image: Image.Image, size: int, box: tuple[float, float, float, float]
) -> list[Image.Image]:
    """The bands of the squashed box, unrounded, which Pillow does for single float bands.

    Of a large image rows come first, a strip at a time: whole bands in float take twice as long.
    """
    width, height = image.size
    left, upper, right, lower = box
    bilinear = Image.Resampling.BILINEAR
    rows = max(1, _STRIP // width)
    if rows >= height:
        return [band.convert("F").resize((size, size), bilinear, box) for band in image.split()]
    narrow = [Image.new("F", (size, height)) for _ in range(3)]
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        for target, band in zip(narrow, strip.split(), strict=True):
            row_box = left, 0, right, strip.height
            part = band.convert("F").resize((size, strip.height), bilinear, row_box)
            target.paste(part, (0, top))
    return [band.resize((size, size), bilinear, (0, upper, size, lower)) for band in narrow]
