# Every target makes the environment it needs; nothing has to be activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := fedsynth tests benchmarks docs/building cli.py

# Tests start processes of their own: what these import is compiled once, whatever the shell says.
test test-slow test-deployed check-privacy: export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup simulate demo check check-privacy test test-slow test-deployed docs format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

simulate: $(READY)  ## the first thing to run: four hospitals, what leaks, what the images are good for
	$(BIN)/fedsynth suite benchmarks/quick.toml --out runs/quick --jobs 2

demo: $(READY)  ## the smallest thing: one centralised generator and its pictures, in runs/demo
	mkdir -p runs
	$(BIN)/fedsynth phantom runs/demo/hospitals --size 32 --overwrite
	$(BIN)/fedsynth inspect runs/demo/hospitals --sheet runs/demo/hospitals.png --overwrite
	rm -rf runs/demo/run
	$(BIN)/fedsynth train runs/demo/hospitals --generator dcgan --run runs/demo/run
	$(BIN)/fedsynth synthesize runs/demo/run --count 200 --out runs/demo/synthetic --overwrite
	$(BIN)/fedsynth inspect runs/demo/synthetic --sheet runs/demo/synthetic.png --overwrite
	@echo 'look at  runs/demo/hospitals.png and runs/demo/synthetic.png'

check: $(READY)  ## what CI runs: lint, format, types, layers
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py benchmarks/speed/*.py
	$(BIN)/lint-imports

check-privacy: $(READY)  ## the private path with all that takes minutes: twenty histories by opacus's accountant, planted faults
	$(BIN)/python -m pytest -m 'not gpu' tests/privacy tests/training/test_dp_gradients.py tests/training/test_dp_resume.py

test: $(READY)  ## everything that takes seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(READY)  ## what takes minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow and not gpu'

test-deployed: $(READY)  ## a server and three hospitals on loopback, killed and resumed: a quarter of an hour, mostly waiting
	$(BIN)/python -m pytest -m deployed tests/federation/deploy

docs: $(VENV)/.docs  ## the site in build/site, with the pages of command line and Python from the code; a warning is an error
	$(BIN)/python -m fedsynth.cli.reference_page > $(VENV)/cli.md && mv $(VENV)/cli.md docs/cli.md
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

format: $(READY)
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
