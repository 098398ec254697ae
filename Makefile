# `make help` lists the targets. Everything needed is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Small matrices: threads would only wait for each other.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-rollout test check bench conformance-onnx test-clients browser screenshots clean bench-detect bench-gates bench-reloads bench-kills

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.installed  ## .venv with everything

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Slipstream needs Python 3.11 to 3.13; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about a minute)"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[monitor,demo,dev]'
	@touch $@

demo: setup  ## serve a real year of flights (ONCE=1 ends by itself; RATE=200 slows it down)
	@$(BIN)/python -m slipstream demo $(if $(ONCE),--once) $(if $(RATE),--rate $(RATE)) $(if $(ROWS),--rows $(ROWS))

demo-rollout: setup  ## version 2 becomes champion on evidence, a broken version 3 is stopped
	@$(BIN)/python -m examples.flights.rollout

test: setup check browser  ## every test, with a real Redis and a real browser
	@$(BIN)/python -m pytest

check: setup  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports > /dev/null || $(BIN)/lint-imports

browser:  # Chromium for the console's tests, where it may be installed; else they are skipped
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
		&& apt-get update -qq > /dev/null && apt-get install -y -qq chromium > /dev/null; } \
		|| echo "no Chromium and no right to install it: the console's tests are skipped"

bench: setup  ## floor, BentoML and Slipstream side by side (needs wrk)
	@command -v wrk > /dev/null || { apt-get update -qq > /dev/null && apt-get install -y -qq wrk > /dev/null; }
	@test -x .venv-bento/bin/python || $(PYTHON) -m venv .venv-bento
	@.venv-bento/bin/python -m pip install --quiet -c constraints.txt bentoml onnxruntime
	@$(BIN)/python -m benchmarks.compare .venv-bento/bin/python
	@$(BIN)/python -m benchmarks.shadows

bench-detect: setup  ## false alarms, power, delay and honesty of the monitor's statistics
	@test -d .bench-data/nannyml || $(BIN)/python -m pip install --quiet --no-deps --target .bench-data 'nannyml==0.13.1'
	@$(BIN)/python -m benchmarks.detect

bench-gates: setup  ## how often and how soon the gates of a rollout decide, by simulation
	@$(BIN)/python -m benchmarks.operating

bench-reloads: setup  ## 1,000 load, unload and promote cycles under load
	@$(BIN)/python -m benchmarks.reloads 1000

bench-kills: setup  ## kill Redis, workers and the monitor 200 times in the middle of rollouts
	@$(BIN)/python -m tests.faults.kill_rollouts 200

conformance-onnx: setup  ## ONNX's own node tests, all of them, through the gateway
	@$(BIN)/python -m tests.conformance.onnx_nodes

test-clients: setup  ## KServe's client, in an environment of its own
	@test -x .venv-kserve/bin/python || $(PYTHON) -m venv .venv-kserve
	@.venv-kserve/bin/python -m pip install --quiet --upgrade pip
	@.venv-kserve/bin/python -m pip install --quiet 'kserve==0.21.0'
	@$(BIN)/python -m tests.clients.kserve_client .venv-kserve/bin/python

screenshots: setup browser  ## the pictures in docs, from a replay of the whole year
	@SLIPSTREAM_SCREENSHOTS=docs SLIPSTREAM_SCREENSHOT_ROWS=400000 $(BIN)/python -m pytest -q tests/browser/test_demo.py tests/browser/pictures.py

clean:  ## remove what the demo and the tests left
	@rm -rf .slipstream .pytest_cache .mypy_cache .ruff_cache
