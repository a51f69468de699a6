"""One Ray cluster, one GCS server, one small real checkpoint for all tests of jobs."""

from collections.abc import Callable, Iterator
from functools import partial
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
def cluster(gcs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster with two cores, whose actors share what they compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
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
    """Makes specs like `small_spec` that write below `tmp_path`."""
    return partial(small_spec, checkpoint, tmp_path / "output")


def small_spec(checkpoint: Path, output: Path, /, **fields: Any) -> AnnotateSpec:
    """A spec that runs fast, sampled so that seeds matter; any field may be given."""
    defaults = {
        "output": str(output),
        "prompts": ["caption en", "detect digit"],
        "run_id": "test",
        "checkpoint": str(checkpoint),
        "sampling": {"temperature": 1.0},
        "max_new_tokens": 6,
    }
    return AnnotateSpec.parse(defaults | fields)
