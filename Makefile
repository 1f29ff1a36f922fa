# Every target is one line that can also be typed. `make help` lists them.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SEED ?= 1
SEEDS ?=
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help run test check lint format types test-fast test-all sim sim-smoke fuzz soak bench bench-start clean
.DEFAULT_GOAL := help
.NOTPARALLEL:  # the tests use both cores themselves

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# The stamp is written last, so that a build that was interrupted is done again.
$(VENV)/.stamp: pyproject.toml
	@.ci/venv

run: $(VENV)/.stamp  ## start a cluster on this machine: make run ARGS="--port 9123 --tablets 3"
	@exec $(BIN)/flussd local $(ARGS)

test: lint types test-all sim-smoke  ## all that must hold (minutes)

check: lint types test-fast  ## lint, types and the fast tests (seconds)

lint: $(VENV)/.stamp  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.stamp  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.stamp  ## mypy --strict over all that is shipped
	$(BIN)/mypy

test-fast: $(VENV)/.stamp
	$(PYTEST) -n $(JOBS) -m "not slow and not alone" $(ARGS)

# Tests that measure time or memory run by themselves, after the others; 5 is pytest's "there are none".
test-all: $(VENV)/.stamp
	$(PYTEST) -n $(JOBS) -m "not alone" $(ARGS)
	$(PYTEST) -m alone $(ARGS) || [ $$? -eq 5 ]

sim: $(VENV)/.stamp  ## simulate: make sim SEED=7, make sim SEEDS=1..1000, ARGS="--trace story.txt"
	$(BIN)/fluss-sim $(if $(SEEDS),--seeds $(SEEDS),--seed $(SEED)) $(ARGS)

sim-smoke: $(VENV)/.stamp
	$(BIN)/fluss-sim --seeds 1..40

fuzz: $(VENV)/.stamp  ## fuzz all targets, 100 000 inputs and more: make fuzz ARGS="--seed 7 --inputs 1000000"
	$(BIN)/python fuzz/campaign.py $(ARGS)

soak: $(VENV)/.stamp  ## kill, stop and freeze a real server under pyfluss: make soak ARGS="--minutes 30 --seed 7"
	$(BIN)/python fuzz/soak.py $(ARGS)

bench: $(VENV)/.stamp  ## measure (4 minutes); make bench PEER=java also measures the Java server
	$(BIN)/python bench/produce_path.py
	$(BIN)/python bench/row_codecs.py
	$(BIN)/python bench/latency.py
	$(BIN)/python bench/sim_seeds.py 1..20
	PEER=$(PEER) $(BIN)/python bench/side_by_side.py $(ARGS)

bench-start: $(VENV)/.stamp  ## measure: starts with 100 tables, 10 GiB clean and 1 GiB unclean (12 GiB of disk)
	$(BIN)/python bench/start_times.py $(ARGS)

clean:  ## remove .venv, caches and build products
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
