# `make help` lists what there is. Every target that runs something makes .venv first where it is missing.
PYTHON ?= python3
OUT ?= $(if $(QUICK),runs/quick,runs/demo)
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs notebooks soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-run ## text to report on this machine, into runs/demo (OUT=folder to choose, QUICK=1 for toy size, into runs/quick)
	$(BIN)/rllc demo --out $(OUT) $(if $(QUICK),--quick)

test: $(VENV)/.installed-dev ## every test with line coverage (WORKERS=2 processes, one thread each)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --benchmark-disable --cov --cov-report=term --cov-fail-under=90

check: $(VENV)/.installed-dev ## format, lint, types, import contracts, doctests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(ONE_THREAD) $(BIN)/python -m pytest -q --doctest-modules src

bench: $(VENV)/.installed-dev ## speed of the engine on this machine, beside the peers that are installed; half an hour on an idle machine
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/roofline.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/general_road.py
	$(BIN)/python benchmarks/store.py --records 20000
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/accuracy.py $(if $(wildcard $(OUT)/checkpoints),--run $(OUT))

soak: $(VENV)/.installed-soak ## the long suites: kills, faults, fuzzing, records in an S3
	$(ONE_THREAD) $(BIN)/python -m pytest tests -m soak --durations=10

docs: $(VENV)/.installed-docs ## this documentation as pages, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

notebooks: $(VENV)/.installed-docs ## run the notebooks of the documentation anew and keep their outputs; minutes each
	$(BIN)/python -m pip install --quiet --editable '.[docs,hf,paper]'
	OMP_NUM_THREADS=2 $(BIN)/python docs/refresh_notebooks.py $(NOTEBOOKS)

clean: ## remove caches and built pages; .venv and runs/ stay
	rm -rf build dist htmlcov docs/_build docs/api/generated .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written when its step has ended, so that an interrupted installation is taken up again.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) was found. Name a Python of 3.11 or later: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("rllc needs Python 3.11 or later, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v[:2] if v < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.installed-run: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing rllc into $(VENV): minutes the first time."
	$(BIN)/python -m pip install --quiet --editable '.[paper]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run
	$(BIN)/python -m pip install --quiet --editable '.[cluster,data,hf,paper,ray,tl]' --group dev
	@touch $@

$(VENV)/.installed-soak: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --group soak
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-run
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@
