"""One Ray cluster, one GCS server, one small real checkpoint for all tests of jobs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import ray

from paliflow.benchmarks.digits.training import make_config, make_tokenizer
from paliflow.configs import AnnotateSpec
from paliflow.model import Tokenizer
from paliflow.model.network import Network
from paliflow.model.npz import write_npz
from paliflow.tests.gcs import serve

SpecFactory = Callable[..., AnnotateSpec]


@pytest.fixture(scope="session")
def gcs() -> Iterator[None]:
    """A GCS server that clients in this process and in Ray's find, with a bucket `images`."""
    with serve() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        from google.cloud import storage

        storage.Client().create_bucket("images")
        yield


@pytest.fixture(scope="session")
def cluster(gcs: None) -> Iterator[str]:
    """The address of a Ray cluster with two cores."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint's architecture with random weights, tokenizer beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_tokenizer(sentences=300)
    config = make_config(Tokenizer(tokenizer).vocab_size)
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    text = jnp.zeros((1, 1), jnp.int32)
    params = Network(config).init(jax.random.key(0), images, text, text)["params"]
    write_npz(folder / "model.npz", params)
    (folder / "tokenizer.model").write_bytes(tokenizer)
    return folder / "model.npz"


@pytest.fixture
def make_spec(checkpoint: Path, tmp_path: Path) -> SpecFactory:
    """Specs that run fast; any field may be given."""

    def make(**fields: Any) -> AnnotateSpec:
        defaults = {
            "output": str(tmp_path / "output"),
            "prompts": ["caption en", "detect digit"],
            "run_id": "test",
            "checkpoint": str(checkpoint),
            "max_new_tokens": 6,
            "batch_size": 8,
        }
        return AnnotateSpec.parse(defaults | fields)

    return make
