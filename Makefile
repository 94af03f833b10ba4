# One command for each chore. Each makes its own environment first: nothing but make and Python is needed.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench truth reproduce docs coverage mutation fuzz nightly scvi clean

# The first Python on the path that is new enough; override with `make PYTHON=...`.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
# Half of the bench of truth: the first is for work on the verdict, each run of the second is logged.
HALF ?= both
READY := .venv/.installed
BIN := .venv/bin
# Test processes run side by side; more threads in each would only contend.
export OMP_NUM_THREADS ?= 1

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "isoprobe needs Python 3.11 or later on the path" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,dev,docs]"
	@touch $@

demo: $(READY)  ## analyse the example checkpoint
	@mkdir -p out
	$(BIN)/isoprobe analyze examples/digits.safetensors --out out/digits.h5 --overwrite

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest -n 2

coverage: $(READY)  ## run the tests and print the coverage by branch
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	@$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=92

mutation: $(READY)  ## change formulas, statistics and analyses one by one; a test must fail each time
	$(BIN)/python -m tests.house.mutation

fuzz: $(READY)  ## change files at random, 2,000 of each kind; none may crash, hang or lie
	$(BIN)/python -m tests.fuzz --count $(or $(COUNT),2000)

nightly: $(READY)  ## kills, wrong commands and generated files at full length
	ISOPROBE_KILLS=100 ISOPROBE_BAD_INPUTS=all ISOPROBE_FUZZ=nightly ISOPROBE_GALLERY=all $(BIN)/python -m pytest \
		tests/run/test_kills.py tests/results/test_hdf5_kills.py tests/cli/test_bad_inputs.py tests/cli/test_fuzz.py \
		tests/gallery/test_first_try.py

scvi: $(READY)  ## train SCVI by scvi-tools itself, installed aside, and hold the reader to its figures
	$(BIN)/python -m pip install --quiet --no-deps --target .scvi -r tests/plugins/scvi/requirements.txt
	mkdir -p .scvi/made
	PYTHONPATH=.scvi $(BIN)/python tests/plugins/scvi/train.py .scvi/made
	ISOPROBE_SCVI=$(CURDIR)/.scvi/made $(BIN)/python -m pytest tests/plugins/test_scvi.py

lint: $(READY)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## apply the fixes that lint asks for
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(READY)  ## print times, ratios and memory beside their bars
	$(BIN)/python -m benchmarks --write docs/benchmarks.md
	@for script in bench_score bench_start; do \
		echo "== $$script"; $(BIN)/python -m "benchmarks.$$script" || exit 1; done
	$(BIN)/python -m isoprobe_trainers.toy.bench

truth: $(READY)  ## judge models whose fault is known (HALF=first, second or both)
	$(BIN)/python -m benchmarks.truth.run --half $(HALF)
	$(BIN)/python -m benchmarks.truth.coverage

reproduce: $(READY)  ## train the toy models and compare with the paper's tables
	$(BIN)/isoprobe reproduce table1 table2 table4 --quick --out out/reproduce

docs: $(READY)  ## build the documentation site
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:  ## remove the environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
