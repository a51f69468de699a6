"""What the model card beside a checkpoint says of how it was trained."""

import posixpath
import re

from paliflow import storage
from paliflow.configs.run import Decode
from paliflow.jobs.registry.locations import tokenizer_beside

CARD = "README.md"
OURS = "fine-tuned by Paliflow"
"""What a card of a fine-tuning run says; others are passed over."""
_DECODE = re.compile(r"^- decode: `(exact|fast)`$", re.MULTILINE)
_LONGEST = 2**20


def trained_decode(checkpoint: str) -> Decode | None:
    """Returns how images were read when Paliflow trained a checkpoint; None where no card says.

    Cards of versions that had one way only do not name it: it was `exact`.

    Args:
        checkpoint: its path or URI; the card lies in the weights' folder.
    """
    uri = posixpath.join(posixpath.dirname(tokenizer_beside(checkpoint)), CARD)
    try:
        card = storage.read_bytes(uri, limit=_LONGEST).decode(errors="replace")
    except (OSError, ValueError):
        return None  # there is none, or none that can be read: nothing depends on it
    if OURS not in card:
        return None
    found = _DECODE.search(card)
    return "fast" if found and found[1] == "fast" else "exact"


def decode_warning(decode: str, checkpoint: str) -> str | None:
    """Says that a run reads images in another way than its checkpoint's training did.

    Args:
        decode: the spec's.
        checkpoint: what the spec's resolved to.
    """
    trained = trained_decode(checkpoint)
    if trained in (None, decode):
        return None
    return (
        f"decode={decode!r}, but {checkpoint} was trained with {trained!r}: answers "
        f"may differ in a few cases; decode={trained!r} reads images as its training did"
    )
