"""Model cards say how images were read in training; a run that reads them otherwise says so."""

from pathlib import Path

from paliflow.configs import AnnotateSpec
from paliflow.jobs.registry.cards import decode_warning, trained_decode

OURS = (
    "# digits\n\nA PaliGemma, fine-tuned by Paliflow from `somewhere`\n\n## Recipe\n\n- seed: `0`\n"
)


def test_training_s_decode_is_read_off_the_card_beside_the_weights(tmp_path: Path) -> None:
    weights, card = tmp_path / "model.npz", tmp_path / "README.md"
    assert trained_decode(str(weights)) is None
    for text, said in (
        ("Somebody else's, trained with\n- decode: `fast`\n", None),
        (OURS, "exact"),  # a version that had no other way
        (OURS + "- decode: `fast`\n- lora: `rank 4`\n", "fast"),
        (OURS + "- decode: `exact`\n", "exact"),
    ):
        card.write_text(text)
        assert trained_decode(str(weights)) == trained_decode(str(tmp_path)) == said
    card.write_bytes(b"\xff" * (2**20 + 1))
    assert trained_decode(str(weights)) is None


def test_run_that_reads_otherwise_than_its_model_was_trained_is_warned(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(OURS)
    spec = AnnotateSpec(input="x", output="y", run_id="z", prompts=("ocr",))
    said = decode_warning(spec.decode, str(tmp_path / "model.npz"))
    assert said
    assert said.startswith("decode='fast', but ")
    assert "trained with 'exact'" in said
    exact = spec.model_copy(update={"decode": "exact"})
    assert decode_warning(exact.decode, str(tmp_path / "model.npz")) is None
    assert decode_warning(spec.decode, str(tmp_path / "elsewhere" / "model.npz")) is None
