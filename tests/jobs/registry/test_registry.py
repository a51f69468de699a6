"""The registry: changed by one at a time, resolved once, rolled back step by step."""

import hashlib
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sentencepiece import sentencepiece_model_pb2

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.registry import aliases as registry
from paliflow.jobs.registry.aliases import Model, Weights, with_alias, with_version
from paliflow.jobs.registry.checkpoints import digest_of, opened, weights_of
from paliflow.jobs.registry.locations import Resolved, resolve
from paliflow.jobs.runs.plan import write_plan
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.tests.jobs.labelled import swap_pieces


@pytest.fixture(params=["local", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, gcs: None) -> str:
    """Of a registry that is not there yet."""
    return str(tmp_path / "r") if request.param == "local" else f"gs://images/{tmp_path.name}/r"


def digits(folder: str) -> Model:
    return registry.read(folder).models["digits"]


def register(folder: str, sha256: str) -> int:
    return registry.register(folder, "digits", Weights(f"gs://m/{sha256}.npz", sha256))


def fill(folder: str, count: int) -> None:
    """Registers as many versions, each of which was production in its turn."""
    for number in range(1, count + 1):
        assert register(folder, str(number)) == number
        registry.move(folder, "digits", "production", number, f"the {number}.")


def spec_of(folder: str, checkpoint: str) -> AnnotateSpec:
    return AnnotateSpec(
        input="x", output="y", run_id="z", prompts=("ocr",), checkpoint=checkpoint, registry=folder
    )


def test_a_name_with_an_alias_or_a_number_is_resolved(folder: str) -> None:
    fill(folder, 2)
    newest = Resolved("gs://m/2.npz", "2")
    assert resolve(spec_of(folder, "registry://digits@production")) == newest
    assert digest_of(newest) == "2"  # what an incremental run compares with, unread
    assert resolve(spec_of(folder, "registry://digits@1")) == Resolved("gs://m/1.npz", "1")
    assert resolve(spec_of(folder, "gs://m/3.npz")) == Resolved("gs://m/3.npz", None)


def test_what_is_not_there_is_said_with_what_is(folder: str) -> None:
    with pytest.raises(SpecError, match=r"has no model 'digits'; it has none"):
        resolve(spec_of(folder, "registry://digits@production"))
    fill(folder, 2)
    with pytest.raises(SpecError, match=r"has no model 'digit'; it has digits"):
        resolve(spec_of(folder, "registry://digit@production"))
    with pytest.raises(SpecError, match=r"'staging'; .* 1 to 2 .* aliases production \(version 2"):
        resolve(spec_of(folder, "registry://digits@staging"))
    with pytest.raises(SpecError, match="no alias or version '3'"):
        resolve(spec_of(folder, "registry://digits@3"))
    with pytest.raises(SpecError, match="no version 3; there are 1 to 2"):
        registry.move(folder, "digits", "production", 3, "too far")


def test_the_same_weights_are_one_version(folder: str) -> None:
    fill(folder, 2)
    assert register(folder, "1") == 1
    assert registry.register(folder, "digits", Weights("gs://m/1.npz", "another")) == 3
    assert [version.number for version in digits(folder).versions] == [1, 2, 3]


def test_every_move_is_remembered(folder: str) -> None:
    fill(folder, 2)
    registry.move(folder, "digits", "production", 2, "nothing to do")
    moves = [(m.alias, m.origin, m.target, m.why) for m in digits(folder).history]
    assert moves == [("production", None, 1, "the 1."), ("production", 1, 2, "the 2.")]


def test_rolling_back_again_goes_further_back(folder: str) -> None:
    fill(folder, 3)
    registry.move(folder, "digits", "staging", 1, "another alias")
    for expected in (2, 1):
        move = registry.rollback(folder, "digits", "production", "it was bad")
        assert (move.target, move.why) == (expected, "it was bad")
        assert digits(folder).aliases == {"production": expected, "staging": 1}
    with pytest.raises(SpecError, match=r"'production' of 'digits' .* no way back"):
        registry.rollback(folder, "digits", "production", "why not")
    registry.move(folder, "digits", "production", 3, "better now")
    assert registry.rollback(folder, "digits", "production", "no").target == 1


def test_of_those_who_change_it_at_once_nobody_is_forgotten(folder: str) -> None:
    def change(number: int) -> None:
        register(folder, str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(12)))
    versions = digits(folder).versions
    assert [version.number for version in versions] == list(range(1, 13))
    assert {version.sha256 for version in versions} == set(map(str, range(12)))


def test_of_two_who_replace_the_same_version_one_sees_the_other(folder: str) -> None:
    fill(folder, 1)

    def promote(sha256: str) -> bool:
        def change(model: Model) -> Model:
            if model.aliases["production"] != 1:
                raise SpecError("somebody was faster")
            model, number = with_version(model, Weights(f"gs://m/{sha256}.npz", sha256))
            return with_alias(model, "production", number, sha256)

        try:
            registry.update(folder, "digits", change)
        except SpecError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(promote, ["a", "b"]))
    assert sorted(won) == [False, True]
    assert [version.sha256 for version in digits(folder).versions] == ["1", "ab"[won.index(True)]]


def test_what_is_no_registry_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text('{"models": {"digits": {"owner": "me"}}}')
    with pytest.raises(SpecError, match=r"registry\.json is no registry, or of a newer Paliflow"):
        register(str(tmp_path), "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled checkpoint with its tokenizer, to change."""
    for name in ("model.npz", "tokenizer.model"):
        shutil.copy(BUNDLED_CHECKPOINT.with_name(name), tmp_path)
    return tmp_path / "model.npz"


def test_a_tokenizer_changed_after_it_was_registered_is_refused(
    model: Path, tmp_path: Path
) -> None:
    weights, tokenizer = weights_of(str(model)), str(tmp_path / "tokenizer.model")
    registered = Resolved(*weights)
    with opened(registered, tokenizer) as files:
        assert files.sha256 == registered.sha256
    swap_pieces(tmp_path / "tokenizer.model")
    with (
        pytest.raises(SpecError, match=r"but the registry says .* or its tokenizer"),
        opened(registered, tokenizer),
    ):
        pass
    assert weights_of(str(model)).sha256 != weights.sha256


def test_a_version_registered_before_tokenizers_were_digested_is_used(
    folder: str, model: Path
) -> None:
    alone = hashlib.sha256(model.read_bytes()).hexdigest()
    registry.register(folder, "digits", Weights(str(model), alone))
    resolved = resolve(spec_of(folder, "registry://digits@1"))
    with opened(resolved, str(model.with_name("tokenizer.model"))) as files:
        assert files.sha256 == alone  # so that evaluations of it are still of this version


def test_a_tokenizer_of_other_weights_is_not_registered(model: Path) -> None:
    tokenizer = model.with_name("tokenizer.model")
    proto = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.read_bytes())  # type: ignore[attr-defined]
    del proto.pieces[300:340]
    tokenizer.write_bytes(proto.SerializeToString())
    with pytest.raises(SpecError, match=r"tokenizer=.*<loc0000> is 344, not 384"):
        weights_of(str(model))
    tokenizer.unlink()
    assert weights_of(str(model)).sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_figure_that_is_no_number_never_reaches_a_registry(folder: str, figure: float) -> None:
    fill(folder, 1)
    before = registry.read(folder)

    def change(model: Model) -> Model:
        figures = {"held_out/anls": figure}
        return with_version(model, Weights("gs://m/2.npz", "2"), figures=figures)[0]

    with pytest.raises(SpecError, match=r"figures\.held_out/anls=(nan|inf)"):
        registry.update(folder, "digits", change)
    assert registry.read(folder) == before


def test_a_registry_that_holds_a_null_figure_is_readable(tmp_path: Path) -> None:
    fill(str(tmp_path), 1)
    file = tmp_path / "registry.json"
    text = file.read_text()
    assert '"figures": {}' in text
    file.write_text(text.replace('"figures": {}', '"figures": {"a/anls": null, "a/cider": 0.5}'))
    assert digits(str(tmp_path)).versions[0].figures == {"a/cider": 0.5}


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    fill(str(tmp_path), 1)
    before = (tmp_path / "registry.json").read_bytes()
    with pytest.raises(SpecError, match="is left as it is"):
        registry.move(str(tmp_path), "digits", "staging", 1, "\udcff")
    assert (tmp_path / "registry.json").read_bytes() == before


def test_an_annotator_loads_no_weights_whose_tokenizer_was_changed(
    model: Path, tmp_path: Path
) -> None:
    where = str(tmp_path)
    registry.register(where, "digits", weights_of(str(model)))
    spec = spec_of(where, "registry://digits@1")
    plan = write_plan(str(tmp_path / "run"), [], spec.model_dump(mode="json"), resolve(spec))
    annotator = Annotator(spec, str(tmp_path / "run"), plan)
    ((said, _),) = annotator.load()
    assert said == "model"
    swap_pieces(tmp_path / "tokenizer.model")
    with pytest.raises(SpecError, match=r"but the registry says .* or its tokenizer"):
        annotator.load()
