"""Checkpoints of a training: asynchronous, each process its part; the newest, and the best."""

import logging
from collections import Counter
from typing import Any, NamedTuple, Self

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from paliflow.metrics import METRICS
from paliflow.model.train import TrainState


class Tally(NamedTuple):
    """What a resumed run goes on counting."""

    drawn: int
    """Examples, those that failed included."""
    reasons: Counter[str]
    """Why examples failed, and how many."""
    chip_seconds: dict[str, float]
    """How long chips were held, by JAX's name of the device."""
    preemptions: int = 0
    """Nodes that were announced to be taken away."""


class Checkpoints:
    """The checkpoints of a run; all processes make the same calls. A context manager.

    Leaving it waits for what is being written.
    """

    def __init__(self, run: str, keep: int, best: str | None) -> None:
        """Looks at what is there.

        Args:
            run: the run's folder.
            keep: so many of the newest stay.
            best: the figure whose best checkpoint stays as well, such as `held_out/loss`.
        """
        logging.getLogger("absl").setLevel(logging.ERROR)
        metric = best.rpartition("/")[2] if best else ""
        least = metric == "loss" or (metric in METRICS and METRICS[metric].lower_is_better)
        policies: list[Any] = [checkpoint_managers.LatestN(keep)]
        options: dict[str, Any] = {}
        if best:

            def figure(metrics: dict[str, float]) -> float:
                return metrics[best]

            options = {"best_fn": figure, "best_mode": "min" if least else "max"}
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=figure,
                    reverse=least,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._best = best
        self._manager = ocp.CheckpointManager(
            epath.Path(run) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), **options
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, step: int, state: TrainState, tally: Tally, figures: dict[str, float]) -> None:
        """Begins to write a checkpoint; the state may be consumed as soon as this returns.

        Args:
            step: steps taken.
            state: the trained parameters and the optimizer's state.
            tally: up to this step.
            figures: of this step, if it was validated.
        """
        notes = tally._asdict()
        items = {"state": ocp.args.StandardSave(state), "notes": ocp.args.JsonSave(notes)}
        metrics = figures if self._best in figures else None
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, Tally] | None:
        """A checkpoint, onto the shardings of `like`; None if there is none.

        Args:
            like: shapes, dtypes and shardings.
            step: the newest if not given.
        """
        self._manager.wait_until_finished()
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        items = {"state": ocp.args.StandardRestore(like), "notes": ocp.args.JsonRestore()}
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        notes = {"chip_seconds": {}, **found["notes"]}  # which older versions have not written
        return found["state"], Tally(**notes | {"reasons": Counter(notes["reasons"])})

    def best_step(self) -> int | None:
        """The step of the best checkpoint; None if none has the figure."""
        self._manager.wait_until_finished()
        step: int | None = self._manager.best_step() if self._best else None
        return step
