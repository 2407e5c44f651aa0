# Two commands do everything on a machine with Python 3.11 and git:
#   make repro   the paper in miniature: environment, `dvc repro`, results/mini/report/
#   make test    the tests
SHELL := /bin/bash
PYTHON ?= python3.11
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
export PATH := $(CURDIR)/$(BIN):$(PATH)
include telemetry.env
export

.PHONY: setup lock check format test repro plan

setup: $(VENV)/.installed  ## the environment, from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(FIND_LINKS) -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

lock: ## rewrite requirements.lock from pyproject.toml
	$(BIN)/python -m tests.lock write
