"""What importing `paliflow.operators` adds to `import airflow.sdk`, in fresh interpreters."""

import statistics
import subprocess
import sys

REPEATS = 5
AIRFLOW = "import airflow.sdk"
OPERATORS = (
    "import airflow.sdk; from paliflow.operators import AnnotateOperator, RayJobHook, RayJobTrigger"
)
TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds(statement: str) -> float:
    """The median of a few runs; each run's last line of output is its time in seconds."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    runs = [subprocess.run(command, check=True, capture_output=True) for _ in range(REPEATS)]
    return statistics.median(float(run.stdout.splitlines()[-1]) for run in runs)


if __name__ == "__main__":
    airflow, operators = seconds(AIRFLOW), seconds(OPERATORS)
    print(f"import airflow.sdk {airflow:.2f} s, with paliflow.operators {operators:.2f} s")
