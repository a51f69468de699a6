"""An Airflow worker and a DAG processor see neither Ray nor JAX."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
from paliflow import operators
for name in operators.__all__:
    getattr(operators, name)
print(json.dumps(sorted(sys.modules)))
"""


def test_operators_import_neither_ray_nor_jax_nor_the_job() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    loaded = set(json.loads(out.stdout.splitlines()[-1]))
    assert "paliflow.operators.trigger" in loaded
    assert not loaded & {"ray", "jax", "flax", "pyarrow", "paliflow.model", "paliflow.jobs"}
