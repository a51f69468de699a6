"""Validation sets while training goes on: the loss of right answers, and how given ones score."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from paliflow.configs.examples import EvaluationSet
from paliflow.configs.finetune import FineTuneSpec
from paliflow.jobs.evaluate.scoring import metrics_of, score
from paliflow.jobs.examples.feed import validation_feed
from paliflow.jobs.examples.plan import ExamplePlan, open_examples
from paliflow.model import Greedy, Tokenizer
from paliflow.model.generate import generate
from paliflow.model.loss import Batch
from paliflow.model.network import Network, apply
from paliflow.model.optimizer import Params
from paliflow.model.sharding import global_batch
from paliflow.model.train import Trainer, TrainState


class Validation:
    """Looks at the validation sets of a spec; every process makes the same calls."""

    def __init__(
        self, plan: ExamplePlan, spec: FineTuneSpec, trainer: Trainer, tokenizer: Tokenizer
    ) -> None:
        """Opens the sets."""
        self._plan, self._spec, self._trainer, self._tokenizer = plan, spec, trainer, tokenizer
        self._examples = {
            name: open_examples(spec.location, plan, name) for name in spec.validation
        }

    def __call__(self, state: TrainState, frozen: Params) -> dict[str, float]:
        """The figures of what would be exported: `<set>/loss` in nats, `<set>/<metric>`."""
        if not self._examples:
            return {}
        leaves = self._trainer.exported(state, frozen, self._spec.exported_dtype)
        params = unflatten_dict(dict(leaves), sep="/")
        figures: dict[str, float] = {}
        for name, chosen in self._spec.validation.items():
            figures |= self._look(name, chosen, params)
        return figures

    def _look(self, name: str, chosen: EvaluationSet, params: Any) -> dict[str, float]:
        spec, trainer, examples = self._spec, self._trainer, self._examples[name]
        feed = validation_feed(
            spec.location,
            self._plan,
            name,
            spec,
            self._tokenizer,
            trainer.config.image_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        total, count = 0.0, 0
        texts: list[str | None] = []
        taught: list[str] = []
        for fed in feed:
            batch = global_batch(fed.batch, trainer.mesh)
            loss, number = trainer.loss(params, batch)
            total, count = total + float(loss), count + int(number)
            answers = _answer(
                *(Network(trainer.config, spec.dtype), params, batch, spec.max_new_tokens),
                self._tokenizer.eos_id,
            )
            for tokens, length, text, learnt in zip(*map(_host, answers), strict=True):
                said = self._tokenizer.decode(tokens[:length].tolist())
                texts.append(said if learnt.any() else None)
                taught.append(self._tokenizer.decode(text[learnt == 1].tolist()))
        prefixes = [example.prefix for example in examples]
        # Boxes that were turned with their picture are as they were taught.
        right = [
            (suffix,) if example.size else example.suffixes
            for example, suffix in zip(examples, taught, strict=False)
        ]
        metrics = metrics_of(name, chosen.metrics, prefixes)
        scores = score(metrics, prefixes, right, texts[: len(examples)])
        figures = {f"{name}/{metric}": scored.figure for metric, scored in scores.items()}
        return {f"{name}/loss": total / max(1, count), **figures}


@partial(jax.jit, static_argnums=(0, 3, 4))
def _answer(
    network: Network, params: Any, batch: Batch, max_new_tokens: int, eos_id: int
) -> tuple[jax.Array, ...]:
    """Greedy answers to a batch's prefixes, and their lengths; its `text` and its `mask_loss`."""
    asked = jnp.asarray(batch.mask_ar) == 0
    prompt = jnp.where(asked, jnp.asarray(batch.text), 0)
    tokens = apply(network, params, "encode_images", batch.images)
    answer = generate(
        network,
        params,
        tokens,
        prompt,
        asked,
        0,
        max_new_tokens=max_new_tokens,
        sampler=Greedy(),
        eos_id=eos_id,
    )
    length = answer.lengths - answer.finished  # without the end token
    return answer.tokens, length, jnp.asarray(batch.text), jnp.asarray(batch.mask_loss)


def _host(rows: jax.Array) -> NDArray[Any]:
    """The rows of all processes, in order."""
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))
