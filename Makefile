# Every target makes the environment it needs; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := fedsynth tests benchmarks cli.py

.PHONY: setup check test test-slow format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

check: $(READY)  ## what CI runs: lint, format, types, layers
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)  ## everything that takes seconds
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)  ## what takes minutes
	$(BIN)/python -m pytest -m 'slow and not gpu'

format: $(READY)
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
