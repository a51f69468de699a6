"""A private AIRFLOW_HOME for this test session; imported before anything imports Airflow."""

import atexit
import os
import shutil
import sys
import tempfile

assert "airflow" not in sys.modules, "Airflow has read its settings already"
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
