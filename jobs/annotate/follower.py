"""`Follower`: the part of an annotator's model that is on another host of its slice."""

from collections.abc import Sequence

from jax.errors import JaxRuntimeError

from paliflow.configs import AnnotateSpec
from paliflow.jobs.annotate.model import devices_of_actor, load_model
from paliflow.jobs.annotate.predictor import Predictor
from paliflow.jobs.fleet.accelerators import out_of_memory
from paliflow.jobs.fleet.scheduler import Heartbeat
from paliflow.jobs.media.reading import Input
from paliflow.jobs.registry.checkpoints import loading, opened
from paliflow.jobs.registry.locations import tokenizer_of
from paliflow.jobs.runs.plan import Plan


class Follower:
    """Dispatches what the annotator does, so that the slice's processes run the same programs."""

    def __init__(self, spec: AnnotateSpec, run: str, plan: Plan) -> None:
        """The arguments are the annotator's."""
        self._spec, self._plan = spec, plan

    def load(self) -> None:
        """Loads this host's piece of the weights.

        Raises:
            SpecError: as the annotator's.
        """
        spec, pinned = self._spec, self._plan.pinned(self._spec)
        devices = devices_of_actor(spec)
        with opened(pinned, tokenizer_of(spec.tokenizer, pinned.checkpoint)) as files:
            model = load_model(files.path, spec, devices)
        with loading("max_prompt_tokens", spec.max_prompt_tokens):
            self._predictor = Predictor(model, files.tokenizer, None, spec)

    def heartbeat(self) -> Heartbeat:
        """Says that it is there."""
        return Heartbeat(0, 0)

    def repeat(self, inputs: Sequence[Input], place: tuple[int, ...], batch_size: int) -> None:
        """Dispatches a batch; the answers are read where the inputs were.

        Raises:
            JaxRuntimeError: the device failed. If its memory ran out, that of the annotator's has,
                too, which asks again with fewer rows at a time.
        """
        try:
            self._predictor.dispatch(inputs, place, batch_size)
        except JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
