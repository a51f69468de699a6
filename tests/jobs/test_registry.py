"""The registry: changed by one at a time, resolved once, rolled back step by step."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.jobs import registry
from paliflow.jobs.checkpoints import Resolved, digest_of, resolve
from paliflow.jobs.registry import Model, Weights, with_alias, with_version


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
