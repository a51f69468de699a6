"""`Trainer`: one jitted step of all, some or adapted parameters, spread over a mesh."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from paliflow.model.config import PaliGemmaConfig
from paliflow.model.lora import fresh_adapters, merge_adapters
from paliflow.model.loss import Batch, batch_losses, count_examples, count_targets
from paliflow.model.network import Network
from paliflow.model.optimizer import Params, learning_schedule, make_optimizer
from paliflow.model.recipe import Recipe, trained_shapes
from paliflow.model.rounding import round_stochastically
from paliflow.model.sharding import by_rows, fsdp, replicated
from paliflow.model.weights import expected_shapes
from paliflow.model.xla import ANY, Backend, tracing_for

# Axes: B batch, A part of a batch.


@struct.dataclass
class TrainState:
    """All that changes from step to step."""

    step: jax.Array  # int32, steps taken
    params: Params  # what is trained, float32
    opt_state: optax.OptState


class Trainer:
    """The training step of one model under one recipe, over the devices of a mesh.

    State and frozen parameters are spread by `fsdp`, batches by their rows; every process of the
    mesh has to make the same calls.
    """

    def __init__(
        self, config: PaliGemmaConfig, recipe: Recipe, mesh: Mesh, backend: Backend = ANY
    ) -> None:
        """Settles what is trained.

        Args:
            config: of the model.
            recipe: how to train.
            mesh: of all devices.
            backend: what the programs are traced for, `training_backend`.

        Raises:
            ValueError: a pattern of the recipe matches no parameter, or nothing is left to train.
        """
        self.config, self.recipe, self.mesh, self._backend = config, recipe, mesh, backend
        self.schedule = learning_schedule(recipe.total_steps, recipe.warmup_steps)
        self._shapes = expected_shapes(config)
        self._trained = trained_shapes(self._shapes, recipe)
        self._optimizer = make_optimizer(
            recipe.learning_rate,
            self.schedule,
            weight_decay=recipe.weight_decay,
            decayed=recipe.decayed,
            clip_norm=recipe.clip_norm,
        )

    @property
    def trained(self) -> frozenset[str]:
        """The paths of what is trained: weights, or adapters."""
        return frozenset(self._trained)

    @cached_property
    def abstract(self) -> tuple[TrainState, Params]:
        """Shapes, dtypes and shardings of what `init` returns; nothing is allocated."""
        trained = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in self._trained.items()}
        frozen = {
            path: jax.ShapeDtypeStruct(shape, jnp.dtype(self.recipe.dtype))
            for path, shape in self._shapes.items()
            if path not in self._trained
        }
        trees = jax.eval_shape(self._start, _tree(trained)), _tree(frozen)
        placed: tuple[TrainState, Params] = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            trees,
            fsdp(trees, self.mesh),
        )
        return placed

    def init(self, params: Mapping[str, Any]) -> tuple[TrainState, Params]:
        """The state before the first step, and the parameters that stay as they are.

        Args:
            params: the model's, of any dtype, on the host or on local devices; not consumed.

        Returns:
            State with trained parameters in float32, and the rest in the recipe's dtype.
        """
        state, frozen = self.abstract
        flat = flatten_dict(params, sep="/")
        if self.recipe.lora_rank:
            flat |= fresh_adapters(self._trained, self.recipe.seed)
        state_places, trained, rest = _places(state), _flat(state.params), _flat(frozen)
        placed = {path: _place(flat[path], leaf) for path, leaf in (trained | rest).items()}
        start = jax.jit(self._start, out_shardings=state_places, donate_argnums=0)
        return start(_tree({p: placed.pop(p) for p in trained})), _tree(placed)

    def _start(self, params: Params) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer.init(params))

    @cached_property
    def step(self) -> jax.stages.Wrapped:
        """From state (consumed), frozen and batch to the next state and metrics.

        The metrics are scalars: `loss`, in nats, the mean over the examples that count;
        `grad_norm`, before clipping; `learning_rate`; `examples`, how many counted, and `targets`,
        their suffixes' tokens.
        """
        state, frozen = _places(self.abstract)
        shardings = (state, frozen, by_rows(self.mesh))
        out = (state, replicated(self.mesh))
        step = self._under_mesh(self._step)
        return jax.jit(step, in_shardings=shardings, out_shardings=out, donate_argnums=0)

    @cached_property
    def loss(self) -> jax.stages.Wrapped:
        """From a whole model and a batch to the sum of the examples' losses and their number.

        The model is as `exported` gives it. Without label smoothing and dropout.
        """
        shardings = (self._whole, by_rows(self.mesh))
        loss = self._under_mesh(self._loss)
        return jax.jit(loss, in_shardings=shardings, out_shardings=replicated(self.mesh))

    def _under_mesh(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """For `sharding.constrain_activations`, and for the backend."""

        @wraps(function)
        def traced(*args: Any) -> Any:
            mesh = self.mesh.abstract_mesh
            with jax.sharding.use_abstract_mesh(mesh), tracing_for(self._backend):
                return function(*args)

        return traced

    def merged(self, state: TrainState, frozen: Params) -> Params:
        """The whole model under its published names, to export or to generate with.

        Weights that were trained or had an adapter are float32, the rest as in `frozen`, whose
        leaves, like the state's, are shared where nothing is merged: valid until the next step.
        """
        return _tree(self._merge(_flat(state.params) | _flat(frozen)))

    def exported(
        self, state: TrainState, frozen: Params, dtype: DTypeLike
    ) -> Iterator[tuple[str, jax.Array]]:
        """The leaves of the whole model in a dtype, by path; every process has to take them all.

        What was trained is rounded to bfloat16 stochastically, by the recipe's seed and the
        leaf's path: the same state always becomes the same model. Rounding to the nearest would
        undo updates of less than half a step of bfloat16, which are most where a checkpoint was
        published in bfloat16 and the training is short. What was not trained is rounded to the
        nearest.
        """
        merged = _flat(self.merged(state, frozen))
        changed = {path.removesuffix("_lora_a") for path in self._trained}
        for path in sorted(merged):
            leaf = merged.pop(path)
            if path in changed and jnp.dtype(dtype) == jnp.bfloat16:
                own = zlib.crc32(f"{self.recipe.seed}/{path}".encode())
                rounded = round_stochastically(leaf, np.uint32(own))
                yield path, jax.device_put(rounded, leaf.sharding)
            else:
                yield path, leaf.astype(dtype)

    @cached_property
    def _merge(self) -> jax.stages.Wrapped:
        return jax.jit(merge_adapters, out_shardings=_flat(self._whole))

    @cached_property
    def _whole(self) -> Any:
        """Where the leaves of a whole model lie."""
        shapes = {path: jax.ShapeDtypeStruct(s, jnp.float32) for path, s in self._shapes.items()}
        return _tree(fsdp(shapes, self.mesh))

    def _step(
        self, state: TrainState, frozen: Params, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        recipe = self.recipe
        network = Network(self.config, recipe.dtype, recipe.remat, recipe.dropout)
        examples = count_examples(batch)
        parts = self._parts(batch)
        key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
        keys = jax.random.split(key, recipe.accumulate)
        places = _places(self.abstract[0].params)

        def loss_of(params: Params, part: Batch, key: jax.Array) -> jax.Array:
            losses = batch_losses(
                network, _join(params, frozen), part, recipe.label_smoothing, {"dropout": key}
            )
            return losses.sum() / jnp.maximum(examples, 1)

        def add(total: Any, part_key: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            loss, grads = jax.value_and_grad(loss_of)(state.params, *part_key)
            grads = jax.lax.with_sharding_constraint(grads, places)
            return jax.tree.map(jnp.add, total, (loss, grads)), None

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
        (loss, grads), _ = jax.lax.scan(add, zero, (parts, keys))
        updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": recipe.learning_rate * self.schedule(state.step),
            "examples": examples,
            "targets": count_targets(batch),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    def _loss(self, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        network = Network(self.config, self.recipe.dtype, self.recipe.remat)
        sums = jax.lax.map(
            lambda part: batch_losses(network, params, part).sum(), self._parts(batch)
        )
        return sums.sum(), count_examples(batch)

    def _parts(self, batch: Batch) -> Batch:
        """[B, ...] to [A, B / A, ...]; part i has the rows i, i + A, ..., some of each device."""
        rows, accumulate = jnp.shape(batch.text)[0], self.recipe.accumulate
        if rows % (accumulate * self.mesh.size):
            raise ValueError(
                f"a batch of {rows} rows does not divide into accumulate={accumulate} parts "
                f"over {self.mesh.size} devices; make it a multiple of their product"
            )
        place = NamedSharding(self.mesh, PartitionSpec(None, "data"))

        def cut(x: jax.Array) -> jax.Array:
            parts = x.reshape(rows // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)
            placed: jax.Array = jax.lax.with_sharding_constraint(parts, place)
            return placed

        parts: Batch = jax.tree.map(cut, batch)
        return parts


def _flat(params: Params) -> dict[str, Any]:
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    return flat


def _tree(flat: Mapping[str, Any]) -> Params:
    tree: Params = unflatten_dict(flat, sep="/")
    return tree


def _join(params: Params, frozen: Params) -> Params:
    return _tree(_flat(params) | _flat(frozen))


def _places(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _place(leaf: ArrayLike, target: jax.ShapeDtypeStruct) -> jax.Array:
    """A leaf that every process has, as one array over all devices; never the same memory."""
    host = np.asarray(leaf)
    return jax.make_array_from_callback(
        target.shape, target.sharding, lambda index: np.array(host[index], target.dtype)
    )
