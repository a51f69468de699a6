"""Runs the spec in the environment variable PALIFLOW_SPEC; what a Ray job's entry point calls."""

import os

from rich.console import Console

from paliflow.configs import AnnotateSpec
from paliflow.configs.base import SpecError
from paliflow.configs.summary import SPEC_VARIABLE, SUMMARY_PREFIX
from paliflow.jobs.cli import user_errors


def main() -> None:
    """Prints progress, then the summary as the last line; exit codes as the command line's."""
    with user_errors():
        if SPEC_VARIABLE not in os.environ:
            raise SpecError(f"set the environment variable {SPEC_VARIABLE} to a spec's JSON")
        spec = AnnotateSpec.parse(os.environ[SPEC_VARIABLE])
        from paliflow.jobs import run  # here, because a bad spec need not wait for JAX and Ray

        summary = run.annotate(spec, Console(force_terminal=False))
    print(SUMMARY_PREFIX + summary.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
