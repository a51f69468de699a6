"""What a training says of itself: a line of JSON a step, TensorBoard's events, where it is now."""

import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

from tensorboardX import SummaryWriter

from paliflow import storage

METRICS = "metrics.jsonl"
"""In a run's folder: one JSON object a step, and one for each look at the validation sets."""
PROGRESS = "progress.json"
"""In a run's folder: the newest of them, for whoever watches."""
_TOLD_EVERY_S = {True: 10.0, False: 0.5}
"""By whether the folder is remote."""

Values = dict[str, Any]


class Log:
    """Rank 0's record of a run, as if it had never been interrupted."""

    def __init__(self, run: str, first_step: int, total_steps: int) -> None:
        """Forgets what a run that was killed has said of later steps than those it has kept.

        Args:
            run: the run's folder.
            first_step: steps that were taken before.
            total_steps: that will have been taken in the end.
        """
        self._uri, self._remote = f"{run}/{METRICS}", run.startswith("gs://")
        self._progress, self._total = f"{run}/{PROGRESS}", total_steps
        kept = [line for line in read_log(run) if line["step"] <= first_step] if first_step else []
        self._validations = [line for line in kept if "loss" not in line]
        content = "".join(json.dumps(line) + "\n" for line in kept).encode()
        storage.overwrite(self._uri, io.BytesIO(content))
        if self._remote:
            self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
            self._file.write(content)
        else:
            self._file = Path(self._uri).open("ab")  # noqa: SIM115
        self._events = SummaryWriter(f"{run}/tensorboard", purge_step=first_step + 1)
        self._told = 0.0

    def write(self, step: int, values: Values) -> None:
        """Adds what a step has come to."""
        self._add(step, values)
        if time.monotonic() - self._told > _TOLD_EVERY_S[self._remote]:
            self._tell(step, values)

    def write_figures(self, step: int, figures: Values) -> None:
        """Adds what a look at the validation sets has come to."""
        self._add(step, figures)
        self._validations.append({"step": step, **figures})
        self._tell(step, {})

    def flush(self) -> None:
        """Makes what was added last."""
        self._file.flush()
        self._events.flush()
        if self._remote:
            storage.overwrite(self._uri, self._file)
            self._file.seek(0, io.SEEK_END)

    def close(self) -> None:
        """Flushes and lets go."""
        self.flush()
        self._events.close()
        self._file.close()

    def _add(self, step: int, values: Values) -> None:
        self._file.write(json.dumps({"step": step, **values}).encode() + b"\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def _tell(self, step: int, values: Values) -> None:
        self._told = time.monotonic()
        now = {"step": step, "total": self._total, **values, "validations": self._validations}
        storage.overwrite(self._progress, io.BytesIO(json.dumps(now).encode()))


def read_log(run: str) -> list[Values]:
    """The lines of a run's metrics, whole ones only; none if there is no such file."""
    try:
        content = storage.read_bytes(f"{run}/{METRICS}")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def read_progress(run: str) -> Values | None:
    """Where a run is now; None if it has not said."""
    try:
        now: Values = json.loads(storage.read_bytes(f"{run}/{PROGRESS}"))
    except FileNotFoundError:
        return None
    return now
