# Every target builds what it needs in .venv and reuses it while pyproject.toml and constraints.txt stay the same.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
PYTEST := $(BIN)/python -m pytest -q --no-skips
SHARED := -n logical --dist loadfile
KERAS := tensorflow jax torch
# jax warns of forks in a process that has imported it, and other tests fork; Keras has one backend per process
APART := $(wildcard tests/jax_door tests/tensorflow_door tests/*_porch tests/ops_room/test_jax*.py \
  tests/ops_room/test_tensorflow*.py tests/test_docs.py tests/test_keras_examples.py tests/test_equal_meaning.py)
ELSEWHERE := $(addprefix --ignore ,tests/keras_door $(APART))
SOURCES := src tests tools benchmarks examples docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format lint types docs bench fix clean

help:  ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "normkit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 ..."; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) "pip>=25.1"
	@touch $@

$(VENV)/demo: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing torch and scikit-learn into $(VENV) (once)"
	@$(PIP) -e '.[torch]' --group demo
	@touch $@

$(VENV)/dev: $(VENV)/demo
	@echo "installing every framework and the tools for tests and docs into $(VENV) (once, some minutes)"
	@$(PIP) -e '.[torch,keras,jax,tensorboard,wandb,mlflow]' --group dev
	@$(PIP) --no-deps tf_keras  # it would bring a second, larger TensorFlow
	@touch $@

demo: $(VENV)/demo  ## train a small network on real images and look at its weight norms
	@$(BIN)/normkit run examples/digits.py
	@$(BIN)/normkit show

test: $(VENV)/dev  ## run every test but the slow ones
	@$(PYTEST) -m "not slow" $(SHARED) $(ELSEWHERE)
	@$(PYTEST) -m "not slow" $(SHARED) $(APART)
	@for backend in $(KERAS); do echo "Keras on $$backend"; \
	  KERAS_BACKEND=$$backend $(PYTEST) -m "not slow" $(SHARED) tests/keras_door || exit 1; done

test-slow: $(VENV)/dev  ## big arrays, seeded mistakes, each benchmark once at a tiny size
	@$(PYTEST) -m slow $(ELSEWHERE)
	@$(PYTEST) -m slow $(SHARED) $(APART)
	@for backend in $(KERAS); do echo "Keras on $$backend"; \
	  KERAS_BACKEND=$$backend $(PYTEST) -m slow $(SHARED) tests/keras_door || exit 1; done
	@$(BIN)/python tools/mutants.py

check: format lint types test docs  ## what must be green before a commit

format: $(VENV)/dev  ## is the code formatted?
	@$(BIN)/ruff format --check $(SOURCES)

lint: $(VENV)/dev  ## ruff's rules
	@$(BIN)/ruff check $(SOURCES)

types: $(VENV)/dev  ## mypy, strict on src
	@$(BIN)/mypy

docs: $(VENV)/dev  ## build the pages; a warning is an error
	@$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html && echo "docs: docs/_build/html/index.html"

$(VENV)/bench: $(VENV)/dev
	@echo "installing the peers to measure against into $(VENV) (once)"
	@$(PIP) --group bench
	@$(BIN)/python -m pip --disable-pip-version-check install -q --no-deps mosaicml
	@touch $@

bench: $(VENV)/bench  ## ratios against peers, measured in one run (minutes)
	@for script in kernel record store curves backends normalize pull; do $(BIN)/python benchmarks/$$script.py || exit 1; done

fix: $(VENV)/dev  ## format and mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES) && $(BIN)/ruff check --fix $(SOURCES)

clean:  ## remove what was built, .venv too
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache
