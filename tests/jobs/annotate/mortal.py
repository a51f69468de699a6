"""Annotators that are killed. Apart from the tests, whose imports no actor has to wait for."""

from collections.abc import Sequence

from paliflow.jobs.annotate.actor import Annotator
from paliflow.jobs.annotate.answers import PendingBatch
from paliflow.jobs.media.reading import Input
from paliflow.tests.jobs.mortal import Mortal


class MortalAnnotator(Mortal, Annotator):
    """Dies as `Mortal` says."""


class MortalViewer(MortalAnnotator):
    """Dies once in the middle of a video's frames, too: when it has read some, and asks."""

    def load(self) -> tuple[tuple[str, str], ...]:
        notes = super().load()
        ask_predictor = self._predictor.ask

        def ask(inputs: Sequence[Input], place: tuple[int, ...]) -> PendingBatch:
            if place[0] == 0:
                self.die_once("amid")
            return ask_predictor(inputs, place)

        self._predictor.ask = ask  # type: ignore[method-assign]
        return notes
