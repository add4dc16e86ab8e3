# make demo | test | lint | bench | wheel: each sets up .venv on its first run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-gpu wheel clean

help:
	@echo "make demo    answer a question about examples/receipt.png with the bundled model, offline"
	@echo "make test    run the tests (PYTEST_ARGS='-k name' narrows them)"
	@echo "make lint    ruff, mypy --strict, import contracts"
	@echo "make bench   time the bundled model on this machine (BENCH_ARGS='--model NAME --repeat 5')"
	@echo "make bench-gpu  time every job on an NVIDIA GPU, beside transformers, timm and diffusers (the dev extra is needed)"
	@echo "make wheel   build dist/*.whl"

# What a user needs.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# What the tests need on top.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/mm chat examples/receipt.png "What is the total?"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

bench-gpu: $(VENV)/.installed-dev
	mkdir -p out
	$(BIN)/python benchmarks/gpu.py --groups all --together 6 --out out/bench-gpu.json --markdown out/bench-gpu.md $(BENCH_ARGS)

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
