# Everything runs in .venv, which is made on first use. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
EXP ?= var
PROFILE ?= $(if $(MODEL),gpu,quick)
TORCH ?= pinned
PORT ?= 5000
ROOT ?= runs
ASSAY := .venv/bin/assay
PIP_CONSTRAINTS = $(if $(filter any,$(TORCH)),<(grep -v '^torch==' constraints.txt),constraints.txt)

export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_TRUNCATE_LONG_VALUES := false
export OMP_WAIT_POLICY ?= PASSIVE
export ASSAY_ROOT := $(ROOT)

.DEFAULT_GOAL := help
.PHONY: help install experiment test test-all bench calibrate check ui report clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "make experiment takes EXP=$(EXP) PROFILE=quick|full|gpu|tiny MODEL=<hub id or directory> TRACE='<files>' ARGS='--set seed=1'"

.venv/.stamp: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check -c $(PIP_CONSTRAINTS) -e '.[test]'
	@touch $@

install: .venv/.stamp ## make the environment (TORCH=any leaves torch unpinned, for a CUDA build)

experiment: .venv/.stamp ## run an experiment end to end and print the verdict
	$(ASSAY) run $(EXP) --profile $(PROFILE) $(if $(MODEL),--model '$(MODEL)') $(if $(TRACE),--trace $(TRACE)) $(ARGS)

test: .venv/.stamp ## the test suite without its long simulations
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow' $(ARGS)

test-all: .venv/.stamp ## every test
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: .venv/.stamp ## our counting against the usual ways, as ratios of one run
	.venv/bin/python -m tests.bench $(ARGS)

calibrate: .venv/.stamp ## size of every test, coverage of every interval (minutes); writes docs/calibration.md
	@mkdir -p docs
	.venv/bin/python -m tests.calibration --markdown docs/calibration.md $(ARGS)

check: .venv/.stamp ## lint, types, and the register of declarations
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(ASSAY) check

ui: .venv/.stamp ## open the runs in the MLflow page (PORT=5000)
	$(ASSAY) ui --port $(PORT)

report: .venv/.stamp ## write a run's report again (RUN=<run directory or its name>)
	$(ASSAY) report $(if $(RUN),$(RUN),$(error say which: make report RUN=<name>; `assay list` shows them))

clean: ## remove runs and the environment
	rm -rf .venv $(ROOT)
