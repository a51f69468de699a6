"""Text to token ids and back, with PaliGemma's <loc> and <seg> pieces and its prompt format."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from paliflow.model.config import TextConfig
from paliflow.model.files import reading

# Generated code, invisible to type checkers.
_ModelProto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]

LOC_PIECES = tuple(f"<loc{i:04d}>" for i in range(1024))
SEG_PIECES = tuple(f"<seg{i:03d}>" for i in range(128))
_FILE_BYTES = 64 * 2**20
"""PaliGemma's tokenizer has 4 MiB."""


def add_extra_pieces(model: bytes) -> bytes:
    """Appends the <loc> and <seg> pieces to a sentencepiece model that lacks them.

    They follow the vocabulary in this order, as user-defined pieces, as in big_vision's
    `paligemma_tokenizer.model`; a model that has them is returned as it is.
    """
    proto = _ModelProto.FromString(model)
    present = {piece.piece for piece in proto.pieces}
    missing = [piece for piece in LOC_PIECES + SEG_PIECES if piece not in present]
    if not missing:
        return model
    for piece in missing:
        kind = _ModelProto.SentencePiece.USER_DEFINED
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    baked: bytes = proto.SerializeToString()
    return baked


class Tokenizer:
    """A sentencepiece model plus what PaliGemma's prompts need."""

    def __init__(self, model: bytes) -> None:
        """Reads a serialized sentencepiece model, adding <loc> and <seg> if it lacks them."""
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(add_extra_pieces(model))
        self._processor = processor
        self.bos_id = self._special("<bos>", processor.bos_id())
        self.eos_id = self._special("<eos>", processor.eos_id())
        self.pad_id = self._special("<pad>", processor.pad_id())
        self.unk_id = int(processor.unk_id())
        self.newline_ids = tuple(self.encode("\n"))
        if not self.newline_ids or processor.unk_id() in self.newline_ids:
            raise ValueError("the tokenizer cannot write '\\n', which ends every prompt")

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Reads `paligemma_tokenizer.model`, `gemma_tokenizer.model` or a like file.

        Raises:
            CheckpointError: it is no sentencepiece model, or lacks what prompts need.
        """
        with reading(Path(path), "tokenizer (a sentencepiece model)"):
            size = Path(path).stat().st_size
            if size > _FILE_BYTES:
                raise ValueError(f"it has {size} bytes, {_FILE_BYTES} are allowed")
            return cls(Path(path).read_bytes())

    def require_fit(self, text: TextConfig) -> None:
        """
        Raises:
            ValueError: the weights were trained with another tokenizer.
        """
        locations = text.vocab_size - len(LOC_PIECES) - len(SEG_PIECES)
        segments = locations + len(LOC_PIECES)
        wanted = {
            "vocabulary": (self.vocab_size, text.vocab_size),
            LOC_PIECES[0]: (self.loc_ids[0], locations),
            LOC_PIECES[-1]: (self.loc_ids[-1], segments - 1),
            SEG_PIECES[0]: (self.seg_ids[0], segments),
            SEG_PIECES[-1]: (self.seg_ids[-1], text.vocab_size - 1),
            "<bos>": (self.bos_id, text.bos_id),
            "<eos>": (self.eos_id, text.eos_id),
            "<pad>": (self.pad_id, text.pad_id),
        }
        other = [f"{what} is {own}, not {its}" for what, (own, its) in wanted.items() if own != its]
        if other:
            raise ValueError(
                f"the weights were trained with another tokenizer: {'; '.join(other)}; give theirs"
            )

    def _special(self, piece: str, declared: int) -> int:
        if declared >= 0:
            return declared
        found: int = self._processor.piece_to_id(piece)
        if found == self._processor.unk_id():
            raise ValueError(f"the tokenizer has no {piece} piece")
        return found

    @property
    def vocab_size(self) -> int:
        """Number of pieces, <loc> and <seg> included."""
        return int(self._processor.vocab_size())

    @cached_property
    def loc_ids(self) -> tuple[int, ...]:
        """Ids of <loc0000> to <loc1023>."""
        return tuple(self._processor.piece_to_id(list(LOC_PIECES)))

    @cached_property
    def seg_ids(self) -> tuple[int, ...]:
        """Ids of <seg000> to <seg127>."""
        return tuple(self._processor.piece_to_id(list(SEG_PIECES)))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with nothing added before or after."""
        return list(self._processor.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; <loc> and <seg> are written out, other control pieces are dropped.

        An id that is no piece's, as a table of embeddings may have, is the unknown piece.
        """
        unknown, pieces = self._processor.unk_id(), range(self.vocab_size)
        known = [id_ if (id_ := int(i)) in pieces else unknown for i in ids]
        return str(self._processor.decode(known))

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """Where each token's text starts in `decode(ids)`, and its length at the end."""
        return [len(self.decode(ids[:end])) for end in range(len(ids) + 1)]

    def encode_prompt(self, prompt: str, max_length: int, *, truncate: bool = False) -> list[int]:
        r"""BOS, the prompt, and "\n" tokenized by itself, so that it never merges.

        Args:
            prompt: what the model is asked, e.g. `caption en`.
            max_length: tokens at most.
            truncate: shorten a prompt that is too long, keeping BOS and newline, instead of
                raising.

        Raises:
            ValueError: the prompt takes more than `max_length` tokens.
        """
        ids = self.encode(prompt)
        room = max_length - 1 - len(self.newline_ids)
        if room < 0 or (len(ids) > room and not truncate):
            total = len(ids) + 1 + len(self.newline_ids)
            raise ValueError(f"prompt of {total} tokens is longer than {max_length}: {prompt!r}")
        return [self.bos_id, *ids[:room], *self.newline_ids]
