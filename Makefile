# Two commands do everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := runs/quickstart
# Threads that wait for each other keep their core: a fifth faster as long as nothing else runs.
ALONE := OMP_WAIT_POLICY=active
# Workers that import torch need one core each; more threads inside them only get in the way. Half of
# their start is compiling, so what is compiled is kept also where the environment forbids it.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup

.PHONY: quickstart test test-gpu check types quick format parity architecture pictures docs clean

quickstart: $(INSTALLED)  ## Fashion-MNIST: pretrain without labels, evaluate, write the report
	data=$$(PYTHON=$(BIN)/python examples/get_fashion_mnist.sh) && \
	$(ALONE) $(BIN)/similitude pretrain $$data --recipe fashion_mnist.quickstart --out $(RUN) --overwrite && \
	$(ALONE) $(BIN)/similitude evaluate $(RUN) $$data

test: $(INSTALLED)  ## everything that continuous integration checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(PYTEST)

test-gpu: $(INSTALLED)  ## on a GPU: methods, views, runs and commands against the processor; skips elsewhere
	$(BIN)/python tools/check_gpu.py tests

check: $(INSTALLED)  ## the fast loop while developing; pyright has one thread, so tests run beside it
	$(BIN)/ruff check
	$(MAKE) --no-print-directory --jobs 2 types quick

types: $(INSTALLED)
	$(BIN)/pyright

quick: $(INSTALLED)
	$(PYTEST) -m "not slow"

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

parity: $(INSTALLED)  ## docs/parity.md: every formula against its authors' code
	$(BIN)/pytest -q tests/parity --parity-page docs/parity.md

architecture: $(INSTALLED)  ## docs/architecture.svg, drawn from the code
	$(BIN)/python tools/draw_architecture.py

pictures: $(INSTALLED)  ## docs/methods/images, drawn from what each method does; the tutorial as a notebook
	$(BIN)/python tools/draw_methods.py
	$(BIN)/python tools/make_notebook.py

docs: $(INSTALLED)  ## the manual, as pages in site/; python -m http.server -d site shows and searches it
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# Installed once; again only when the dependencies change.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
