# make demo   sets everything up and runs the main job on simulated nights, down to the leaderboard
# make test   sets everything up and passes the tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: demo test test-all fuzz lint install install-test docs clean

demo: install
	$(BIN)/tusp --home out/demo submit --ablation csja --folds 3

# The quick tests; make test-all also starts a real Ray, kills things, and simulates whole corpora.
test: install-test
	$(BIN)/python -m pytest -n 2 -m "not slow and not cluster and not fuzz and not postgres and not browser and not gpu"

test-all: test
	$(BIN)/python -m pytest -n 2 -m "slow and not cluster and not postgres and not browser and not gpu"
	$(BIN)/python -m pytest -m "cluster and not postgres and not browser and not gpu"

# Two thousand damaged files of every format.
fuzz: install-test
	$(BIN)/python -m pytest -n 2 -m fuzz

install: $(VENV)/installed

install-test: $(VENV)/installed-test

# torch goes first and alone: its pinned version decides between the builds for CPU and GPU. uv installs the rest in a
# tenth of pip's time.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tusp needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch uv
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) --editable '.[test,dev,postgres]'
	touch $@

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages that are made from code.
docs: install
	$(BIN)/python -m tusp.datasets.corpus_pages docs/corpora

clean:
	rm -rf $(VENV) out
