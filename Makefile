# Every target sets itself up in .venv from nothing but Python 3.11 and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers-installed
ARGS ?=

.PHONY: help demo test quick lint bench bench-overhead bench-store compatibility screenshots clean
# every target below is a task, none is a file
.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,test]'
	@touch $@

$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

demo: $(STAMP)  ## the main job: a server, four live trainings, what was found (ARGS=--exit ends it)
	$(BIN)/trainvitals demo $(ARGS)

test: quick  ## all tests on two processes: the quick ones, then those that take longer or a browser
	@bash .ci/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow or browser' $(ARGS)

quick: $(STAMP) .typing/trainvitals  ## tests that take a few minutes together
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow and not browser' $(ARGS)

lint: $(STAMP) .typing/trainvitals  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.typing/trainvitals:
	mkdir -p .typing && ln -sfn .. $@

bench-retention: $(STAMP)  ## how long ingest waits beside a purge (ARGS='--steps 10000')
	$(BIN)/python -m benchmarks.retention $(ARGS)

bench: $(PEERS)  ## benchmarks in their short form, printed as ratios
	$(BIN)/python -m benchmarks.run

bench-overhead: $(PEERS)  ## what watching costs, beside wandb and TensorBoard (ARGS=--quick)
	$(BIN)/python -m benchmarks.overhead $(ARGS)

bench-store: $(PEERS)  ## the store: charts' times, size, rate, beside TensorBoard and a row a value (ARGS=--quick)
	$(BIN)/python -m benchmarks.store $(ARGS)

bench-stream: $(STAMP)  ## 10 minutes of full load, 250 kills, a hundred viewers, a client that catches up (ARGS=--quick)
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-ui: $(PEERS)  ## what the pages cost in a browser, beside TensorBoard (ARGS='--only live', ARGS=--quick)
	@bash .ci/browser
	$(BIN)/python -m benchmarks.ui $(ARGS)

bench-alerts: $(STAMP)  ## 50 kills of the server, an hour without receivers: is any alert lost or doubled?
	$(BIN)/python -m benchmarks.alerts $(ARGS)

bench-diagnosis: $(STAMP)  ## how right the diagnosis is, over sick and healthy trainings (ARGS=--write)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.diagnosis $(ARGS)

bench-diagnosis-cost: $(STAMP)  ## what judging 20 runs of 200 layers costs
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.diagnosis.cost $(ARGS)

compatibility: $(STAMP)  ## measure again what is recorded under which condition: docs/compatibility.md
	$(BIN)/python -m pytest tests/zoo --write-compatibility $(ARGS)

rule-docs: $(STAMP)  ## write docs/rules anew, from the rules and their examples
	PYTHONPATH=tests $(BIN)/python -m rulepages.pages

screenshots: $(STAMP)  ## pictures of every page and state in screenshots/
	@bash .ci/browser
	$(BIN)/python -m pytest tests/e2e/test_screenshots.py --screenshots=screenshots $(ARGS)

clean:
	rm -rf $(VENV) .typing build dist *.egg-info
