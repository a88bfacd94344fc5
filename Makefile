# `make` alone explains itself. Every target that needs the environment makes it first, once, in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-builtin-rules

# What a user may set: make demo SOURCE=live.flv DEMO_ARGS=--exit; make test PYTEST_ARGS="-k plan".
PYTHON ?=
SOURCE ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
FLOWER_ARGS ?=
PYTEST_ARGS ?=
# Much of a test's time is waiting; a file's tests stay together, as they share what is costly to make, and files keep
# their order (pyproject's testpaths). A browser that plays without a hitch needs the machine for itself.
TEST_PROCESSES ?= 4
DISTRIBUTED := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# Where PYTEST_ARGS choose, they may choose no test of one of the two kinds: pytest's status 5.
NONE_CHOSEN = $(if $(PYTEST_ARGS),|| [ $$? -eq 5 ])
LOCK_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.set-up
INPUTS := pyproject.toml requirements.lock tests/house/environment.py control/web/install.py \
          $(wildcard control/web/package-lock.json tests/npm/package-lock.json)

.PHONY: help setup test test-fast test-slow chaos lint format bench demo flower lock clean clean-all

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make .venv from the lock; .venv/bin/afterlive works afterwards

# Any Python from 3.11 on will do; a shim that starts nothing is passed over.
$(STAMP): $(INPUTS)
	@for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        "$$python" -m tests.house.environment && touch $(STAMP) && exit 0 || exit 1; \
	    fi; \
	done; \
	echo "error: no Python 3.11 or later was found; install one, or name it: make setup PYTHON=/path/of/python3" >&2; \
	exit 1

test: $(STAMP) ## Run the tests (installs browser, servers and Prometheus where it may)
	@$(BIN)/python -m tests.house.system chromium postgresql prometheus rabbitmq redis
	@$(BIN)/python -m control.web.install
	@$(BIN)/python -m pytest -m "not browser and not chaos and not slow" $(DISTRIBUTED) $(PYTEST_ARGS) $(NONE_CHOSEN)
	@$(BIN)/python -m pytest -m browser $(PYTEST_ARGS) $(NONE_CHOSEN)

test-fast: $(STAMP) ## Run the unit tests alone
	@$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

test-slow: $(STAMP) ## Run the tests that `test` leaves out: on another server what others show, and the images
	@$(BIN)/python -m tests.house.system postgresql rabbitmq redis buildah mmdebstrap vulkan
	@$(BIN)/python -m pytest -m slow $(DISTRIBUTED) $(PYTEST_ARGS)

chaos: $(STAMP) ## Kill, cut off and fill up one thing after the other under load, and show how it recovers
	@$(BIN)/python -m tests.house.system postgresql rabbitmq redis
	@$(BIN)/python -m pytest tests/chaos -m chaos -v -s $(PYTEST_ARGS)

lint: $(STAMP) ## Check style, types, who imports whom, and the lock
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports
	@$(BIN)/python -m tests.house.hygiene
	@$(BIN)/python -m tests.house.lock

format: $(STAMP) ## Put the code into the house's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## Measure media against one plain ffmpeg command, and the bus against its peers (BENCH_ARGS=--bus)
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

demo: $(STAMP) ## Show the main job: a stream ends, its replay plays (SOURCE=file, DEMO_ARGS=--exit)
	@$(BIN)/afterlive demo $(if $(SOURCE),--source "$(SOURCE)") $(DEMO_ARGS)

flower: $(STAMP) ## Watch the workers of AFTERLIVE_BUS_BROKER_URL in Flower (FLOWER_ARGS=--port=5555)
	@$(BIN)/python -m celery --app control.bus.flower flower $(FLOWER_ARGS)

# The lock names versions and hashes, never addresses: it works behind any mirror.
lock: $(STAMP) ## Bring requirements.lock in step with pyproject.toml (LOCK_ARGS=--upgrade: newest versions)
	@$(BIN)/uv pip compile pyproject.toml --output-file requirements.lock --quiet \
	    --universal --python-version 3.11 --all-extras --group dev \
	    --generate-hashes --no-emit-index-url --no-header $(LOCK_ARGS)
	@$(BIN)/python -m tests.house.lock

clean: ## Remove what tools left behind (not .venv, not var)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## Remove the environment too
	@rm -rf .venv control/web/node_modules tests/npm/node_modules
