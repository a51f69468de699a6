"""Prompts become the ids that PaliGemma was trained on, and ids become text again."""

import io
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from paliflow.model import BUNDLED_CHECKPOINT, Tokenizer
from paliflow.model.checkpoint import read_checkpoint
from paliflow.model.config import TextConfig
from paliflow.model.examples import encode_examples
from paliflow.model.tokenizer import LOC_PIECES, SEG_PIECES, add_extra_pieces
from paliflow.model.weights import infer_config

TOKENIZER = Tokenizer.from_file(BUNDLED_CHECKPOINT.with_name("tokenizer.model"))


def plain_model(**options: Any) -> bytes:
    """A tokenizer without <loc> and <seg>, laid out as Gemma's: pad, eos, bos, unk."""
    corpus = ["caption en", "answer en how many cats are there?", "a cat ; a dog", "\n"] * 30
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        **_OPTIONS | options,
    )
    return model.getvalue()


_OPTIONS: dict[str, Any] = {
    "model_type": "bpe",
    "vocab_size": 330,
    "byte_fallback": True,
    "hard_vocab_limit": False,
    "add_dummy_prefix": False,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "user_defined_symbols": ["\n"],
    "minloglevel": 2,
}


def test_missing_pieces_are_appended_after_the_vocabulary_loc_before_seg() -> None:
    plain = plain_model()
    size = sentencepiece.SentencePieceProcessor(model_proto=plain).vocab_size()
    tokenizer = Tokenizer(plain)
    assert tokenizer.vocab_size == size + 1024 + 128
    assert tokenizer.loc_ids == tuple(range(size, size + 1024))
    assert tokenizer.seg_ids == tuple(range(size + 1024, size + 1152))


def test_a_model_that_has_the_pieces_is_left_as_it_is() -> None:
    baked = add_extra_pieces(plain_model())
    assert add_extra_pieces(baked) == baked


def test_special_ids_are_read_from_the_model() -> None:
    odd = plain_model(pad_id=3, eos_id=2, bos_id=1, unk_id=0)
    tokenizer = Tokenizer(odd)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (3, 2, 1)


def test_a_tokenizer_that_cannot_write_newlines_is_refused() -> None:
    model = plain_model(user_defined_symbols=["<x>"], byte_fallback=False, vocab_size=60)
    with pytest.raises(ValueError, match="ends every prompt"):
        Tokenizer(model)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, Tokenizer(plain_model())])
def test_a_prompt_is_bos_text_and_a_newline_of_its_own(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_prompt("caption en", 16)
    assert ids == [tokenizer.bos_id, *tokenizer.encode("caption en"), *tokenizer.newline_ids]
    assert tokenizer.decode(tokenizer.newline_ids) == "\n"


def test_a_prompt_that_is_too_long_is_refused_or_loses_text_but_never_its_newline() -> None:
    prompt = "answer en how many digits are there?"
    with pytest.raises(ValueError, match="longer than 6: 'answer en how many"):
        TOKENIZER.encode_prompt(prompt, 6)
    ids = TOKENIZER.encode_prompt(prompt, 6, truncate=True)
    assert len(ids) == 6
    assert ids[0] == TOKENIZER.bos_id
    assert ids[-1:] == list(TOKENIZER.newline_ids)
    with pytest.raises(ValueError, match="longer than 1"):
        TOKENIZER.encode_prompt("", 1, truncate=True)


def test_loc_and_seg_are_single_tokens_and_are_written_out() -> None:
    text = "<loc0000><loc1023><loc0512><loc0001><seg000><seg127> cat"
    ids = TOKENIZER.encode(text)
    assert ids[:4] == [TOKENIZER.loc_ids[n] for n in (0, 1023, 512, 1)]
    assert ids[4:6] == [TOKENIZER.seg_ids[n] for n in (0, 127)]
    assert TOKENIZER.decode(ids) == text


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(LOC_PIECES + SEG_PIECES))))
def test_text_survives_encoding(parts: list[str]) -> None:
    # sentencepiece writes spaces as U+2581 inside, cannot hold NUL, and UTF-8 has no surrogates.
    text = "".join(parts).replace("▁", "").replace("\0", "")
    text = text.encode(errors="ignore").decode()
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_offsets_mark_where_each_token_starts() -> None:
    ids = TOKENIZER.encode("<loc0001><loc0002> digit")
    offsets = TOKENIZER.offsets(ids)
    assert offsets == [0, 9, 18, 24]


def test_an_example_is_prompt_suffix_and_end_with_the_masks_of_training() -> None:
    texts = encode_examples(TOKENIZER, [("ocr", "3 7"), ("detect 7", "")], 10)
    prompt = TOKENIZER.encode_prompt("ocr", 10)
    suffix = [*TOKENIZER.encode("3 7"), TOKENIZER.eos_id]
    padding = 10 - len(prompt) - len(suffix)
    assert texts.text[0].tolist() == prompt + suffix + [TOKENIZER.pad_id] * padding
    assert texts.mask_ar[0].tolist() == [0] * len(prompt) + [1] * (10 - len(prompt))
    wanted = [0] * len(prompt) + [1] * len(suffix) + [0] * padding
    assert texts.mask_loss[0].tolist() == wanted
    assert texts.mask_loss[1].sum() == 1  # nothing to detect: the end alone is learnt


def test_an_example_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"longer than 5: 'ocr' -> '1 2 3'"):
        encode_examples(TOKENIZER, [("ocr", "1 2 3")], 5)


def _text(vocab_size: int, **ids: Any) -> TextConfig:
    return TextConfig(vocab_size, 1, 1, 1, 1, 1, 1, 1.0, **ids)


def test_the_bundled_tokenizer_fits_the_bundled_weights() -> None:
    leaves, described = read_checkpoint(BUNDLED_CHECKPOINT)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    TOKENIZER.require_fit(infer_config(shapes, **described).text)


def test_a_tokenizer_of_other_pieces_does_not_fit_weights() -> None:
    tokenizer = Tokenizer(plain_model())
    size = tokenizer.vocab_size
    tokenizer.require_fit(_text(size))
    for trained in (size - 40, size + 40):
        said = rf"<loc0000> is {size - 1152}, not {trained - 1152}; .*<seg000> is {size - 128}, not"
        with pytest.raises(ValueError, match=rf"vocabulary is {size}, not {trained}; {said}"):
            tokenizer.require_fit(_text(trained))


def test_a_tokenizer_whose_locations_lie_elsewhere_does_not_fit_weights() -> None:
    early = Tokenizer(plain_model(user_defined_symbols=["\n", *LOC_PIECES[:2]], vocab_size=332))
    with pytest.raises(ValueError, match="another tokenizer: <loc0000> is 5, not"):
        early.require_fit(_text(early.vocab_size))


@pytest.mark.parametrize("name", ["bos", "eos", "pad"])
def test_a_tokenizer_of_other_special_ids_does_not_fit_weights(name: str) -> None:
    odd = Tokenizer(plain_model(pad_id=3, eos_id=2, bos_id=1, unk_id=0))
    odd.require_fit(_text(odd.vocab_size, pad_id=3, eos_id=2, bos_id=1))
    with pytest.raises(ValueError, match=f"<{name}> is [123], not [012]"):
        odd.require_fit(_text(odd.vocab_size))


@given(st.lists(st.integers(-(2**40), 2**40)))
def test_an_id_outside_the_tokenizer_is_the_unknown_piece(ids: list[int]) -> None:
    assert TOKENIZER.decode([*ids, TOKENIZER.loc_ids[7]]).endswith("<loc0007>")
    assert TOKENIZER.offsets([TOKENIZER.vocab_size, TOKENIZER.loc_ids[7]])[-1] >= len("<loc0007>")
    assert "\u2047" in TOKENIZER.decode([TOKENIZER.vocab_size])
