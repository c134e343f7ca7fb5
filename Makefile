# Everything a user or CI runs. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
DATA ?=
PORT ?= 3000
RATE ?= 1000
LIMIT ?= 100000

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GROUPS := serving,training,streaming,parquet,broker,demo,dev

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# Scripts of an environment name its folder: one that was moved with the project, or has no pip or no Python any more,
# is made again.
IS_USABLE := test -x $(BIN)/python && grep -Fqs '$(CURDIR)/$(BIN)/python' $(BIN)/pip
ifneq ($(shell $(IS_USABLE) && echo yes),yes)
.PHONY: $(READY)
endif

# An own target file, so that an unchanged environment costs a repeat nothing.
$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: install Python 3.11, or name another with PYTHON=python3.x" >&2; exit 1; }
	@echo "Setting up $(VENV) (about 90 s the first time) ..."
	@$(IS_USABLE) || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV); echo "make: $(PYTHON) cannot make an environment; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(GROUPS)]'
	@touch $@

# 491 MB that only `score --engine spark` needs.
SPARK_READY := $(VENV)/.ready-spark
$(SPARK_READY): $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[spark]'
	@touch $@

.PHONY: setup
setup: $(READY) $(if $(filter 1,$(SPARK)),$(SPARK_READY)) ## the environment, .venv: [SPARK=1 with Spark]
	@:

.PHONY: fresh
fresh: # FRESH=1 starts over: the environment and everything the demo kept
ifeq ($(FRESH),1)
	@rm -rf $(VENV) .demo
endif

.PHONY: demo
demo: fresh ## everything from nothing to a decided stream: [DATA=file] [KEEP=0|1] [FRESH=1]
	@$(MAKE) --no-print-directory setup
	@DATA='$(DATA)' FRESH='$(FRESH)' KEEP='$(KEEP)' exec $(BIN)/python -m demo

.PHONY: loop
loop: setup ## drift, late labels, alarm, retraining, shadow, promotion, swap: shown and checked
	@exec $(BIN)/python -m demo.loop

.PHONY: train
train: setup ## fit, track, register, gate, promote and import both models: [DATA=file]
	@$(BIN)/python -m training train $(if $(DATA),--data '$(DATA)')

.PHONY: serve
serve: setup ## bentoml serve in the foreground: [PORT=3000]
	@exec $(BIN)/bentoml serve --port $(PORT)

.PHONY: bridge
bridge: setup ## the Kafka bridge, settings from configs/streaming.yaml
	@exec $(BIN)/python -m streaming bridge

.PHONY: replay
replay: setup ## stream recorded transactions: [DATA=file] [RATE=1000] [LIMIT=100000]
	@exec $(BIN)/python -m streaming replay --rate $(RATE) --limit $(LIMIT) $(if $(DATA),--data '$(DATA)')

.PHONY: build
build: setup ## bentoml build
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/bentoml build

.PHONY: containerize
containerize: build ## bentoml containerize fraud_detection:latest
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/bentoml containerize fraud_detection:latest -t fraud_detection:latest

.PHONY: test
test: setup ## the whole test suite against a real broker
	@$(BIN)/pytest -m 'not e2e_long and not containers'

.PHONY: e2e
e2e: setup ## the long fault tests (genuine Kafka: set KAFKA_HOME)
	@$(BIN)/pytest -m 'e2e_long or faults' -s

.PHONY: containers
containers: setup ## build and run images and stack (needs a Docker engine): [DATA=file to replay]
	@DATA='$(if $(DATA),$(abspath $(DATA)))' $(BIN)/pytest -m containers -s

.PHONY: bench
bench: setup ## every script in benchmarks/
	@for script in quality score serving hostile swap streaming failover drift monitor shadow; do $(BIN)/python -m benchmarks.$$script; done

.PHONY: check
check: setup ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: format
format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lock
lock: setup ## resolve constraints.txt anew (torch stays pinned)
	@{ head -n 2 constraints.txt; $(BIN)/uv pip compile --quiet --python-version 3.11 --all-extras --no-annotate --no-header \
	    $${PIP_FIND_LINKS:+--find-links "$$PIP_FIND_LINKS"} pyproject.toml | sed 's/+cpu//' \
	    | awk '/^xgboost-cpu==/ { mac = $$0; sub(/-cpu/, "", mac); print mac } { print }'; } >constraints.new
	@mv constraints.new constraints.txt
