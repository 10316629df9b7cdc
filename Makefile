# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
# Needs Python 3.11 or later, make and a package registry; the rest is installed into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@grep -E '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | \
	  awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(STAMP) ## make .venv and install everything into it

ORDERS ?= 2000
SEED   ?=

.PHONY: demo
demo: $(STAMP) ## everything goes wrong, and an audit; ORDERS=20000 SEED=7 if you like
	$(BIN)/python -m examples.demo --orders $(ORDERS) $(if $(SEED),--seed $(SEED))

.PHONY: test
test: $(STAMP) ## run all tests
	$(BIN)/pytest

.PHONY: check
check: $(STAMP) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
