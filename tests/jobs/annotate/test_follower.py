"""A follower dispatches what its annotator does, from what travels between their hosts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from paliflow.configs.summary import StageSeconds
from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.annotate.follower import Follower
from paliflow.jobs.annotate.job import annotate
from paliflow.jobs.fleet import shards
from paliflow.jobs.fleet.shards import FleetResult
from paliflow.jobs.runs.plan import Plan
from paliflow.model import Generation
from paliflow.tests.jobs.conftest import SpecFactory
from paliflow.tests.jobs.files import encode


def test_a_follower_dispatches_the_batches_of_its_annotator(
    make_spec: SpecFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []

    def run(_: Any, spec: Any, run: str, plan: Plan, *__: Any) -> FleetResult:
        annotator = Annotator(spec, run, plan, lambda *batch: told.append(pickle.dumps(batch)))
        follower = Follower(spec, run, plan)
        annotator.load()
        follower.load()
        annotator.process(0)
        for sent in told:
            inputs, *where = pickle.loads(sent)
            follower.repeat(inputs, *where)
            assert all(each.thumbnail is None for each in inputs)
            own, its = (each._predictor.dispatch(inputs, *where) for each in (annotator, follower))
            for mine, yours in zip(own.device_batches, its.device_batches, strict=True):
                assert isinstance(mine.answers, Generation)
                assert isinstance(yours.answers, Generation)
                np.testing.assert_array_equal(mine.answers.tokens, yours.answers.tokens)
        return FleetResult(0, StageSeconds())

    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(encode("RGB", "PNG"))
    monkeypatch.setattr(shards, "run_pending_shards", run)
    spec = make_spec(input=str(tmp_path), batch_size=2, prompts=["caption en"])
    assert annotate(spec, Console()).rows == 3
    assert len(told) == 2
