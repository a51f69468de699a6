"""Runs the spec in the variable PALIFLOW_SPEC or in a file: how Airflow starts a job."""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from paliflow.configs import (
    AnnotateSpec,
    CalibrateSpec,
    EvaluateSpec,
    ExtractSpec,
    FilterSpec,
    FineTuneSpec,
    PromoteSpec,
    ReleaseSpec,
)
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.log_lines import say
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX, VERSION_VARIABLE
from paliflow.jobs.cli.main import user_errors

JOBS: dict[str, tuple[type[Spec], str]] = {
    "annotate": (AnnotateSpec, "annotate.job"),
    "calibrate": (CalibrateSpec, "evaluate.calibrating"),
    "evaluate": (EvaluateSpec, "evaluate.job"),
    "extract": (ExtractSpec, "extract.job"),
    "filter": (FilterSpec, "safety.job"),
    "finetune": (FineTuneSpec, "finetune.job"),
    "promote": (PromoteSpec, "evaluate.promotion"),
    "release": (ReleaseSpec, "annotate.releasing"),
}
"""Each job's spec, and the module of the function of its name."""


def main() -> None:
    """`python -m paliflow.jobs JOB [FILE]`: version, progress, then the summary as the last line.

    The spec is in FILE, which is looked for as a module is and is standard input if called `-`;
    without it in the environment variable. Exit codes are the command line's.
    """
    with user_errors():
        say(f"paliflow {version('paliflow')}")
        _, *arguments = sys.argv
        if len(arguments) not in (1, 2) or arguments[0] not in JOBS:
            raise SpecError(f"python -m paliflow.jobs takes one of: {', '.join(JOBS)}")
        job, *file = arguments
        kind, module = JOBS[job]
        spec = _parse(kind, _read(*file))
        # Imported here, because a bad spec need not wait for JAX and Ray.
        run = getattr(import_module(f"paliflow.jobs.{module}"), job)
        summary = run(spec, Console(force_terminal=False))
    print(SUMMARY_PREFIX + summary.model_dump_json(), flush=True)


def _read(file: str | None = None) -> str:
    if file == "-":
        return sys.stdin.buffer.read().decode()
    if file:
        for path in (Path(folder, file) for folder in sys.path):
            if path.is_file():
                return path.read_text()
        raise SpecError(f"{file}: no such file in the job's packages")
    if SPEC_VARIABLE not in os.environ:
        raise SpecError(f"set the environment variable {SPEC_VARIABLE} to a spec's JSON")
    return os.environ[SPEC_VARIABLE]


def _parse(kind: type[Spec], text: str) -> Spec:
    try:
        return kind.parse(text)
    except SpecError as error:
        if sender := os.environ.get(VERSION_VARIABLE):
            raise SpecError(
                f"{error}; the spec was sent by paliflow {sender}, and this job is of paliflow "
                f"{version('paliflow')}: where a field is unknown, have both use the same"
            ) from None
        raise


if __name__ == "__main__":
    main()
