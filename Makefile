# Two commands do everything on a machine with Python 3.11 and git:
#   make repro   environment, then the paper in miniature by `dvc repro`; the report is in results/mini/report/
#   make test    environment, then the tests
SHELL := /bin/bash
PYTHON ?= python3.11
UV_VERSION := 0.13.9
BIN := .venv/bin
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
PREFECT_PORT ?= 4200
include telemetry.env
export
export PATH := $(CURDIR)/$(BIN):$(PATH)

S3_PORT ?= 5555
KUBERNETES := prefect-kubernetes|kubernetes-asyncio|kopf|iso8601|pyopenssl|tenacity

.PHONY: setup setup-gpu setup-ray setup-engines setup-kubernetes setup-lmms lock check format test test-browser test-lmms docs repro plan ui ui-stop s3 timings

repro: setup ## the main job
	dvc repro
	python -m flows.timings --write
	mkdir -p logs && python -m flows diff --write > logs/difference.md
	dvc repro # the report, with what the run took and changed

test: setup
	pytest -n 2 --dist loadscope tests

plan: setup ## every run of every scale rehearsed without its hardware, and the graphs
	cambrian plan
	python -m flows.dag

docs: setup ## the documentation as a site; a warning is an error
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

test-browser: setup ## the report in a real browser; needs Chromium
	pytest -m browser tests/report

check: setup
	python .ci/lock.py check
	ruff format --check .
	ruff check .
	mypy
	lint-imports

setup: $(BIN)/.installed

$(BIN)/.installed: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	grep -v -E '^(accelerate|triton|ray|protobuf|$(KUBERNETES))==' requirements.lock > .venv/requirements.txt
	uv pip install --python $(BIN)/python --quiet --compile-bytecode $(FIND_LINKS) -r .venv/requirements.txt
	uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	touch $@

setup-gpu: setup ## what only GPU runs need
	grep -E '^(accelerate|triton)==' requirements.lock > .venv/requirements-gpu.txt
	uv pip install --python $(BIN)/python --quiet --compile-bytecode $(FIND_LINKS) -r .venv/requirements-gpu.txt

setup-ray: setup ## what curation on a Ray cluster needs
	grep -E '^(ray|protobuf)==' requirements.lock > .venv/requirements-ray.txt
	uv pip install --python $(BIN)/python --quiet --compile-bytecode $(FIND_LINKS) -r .venv/requirements-ray.txt

setup-kubernetes: setup ## what only the test of Kubernetes jobs needs, beside the environment: Prefect loads what it finds
	grep -E '^($(KUBERNETES))==' requirements.lock > .venv/requirements-kubernetes.txt
	uv pip install --python $(BIN)/python --quiet $(FIND_LINKS) --no-deps --target .venv/kubernetes \
	  -r .venv/requirements-kubernetes.txt

setup-engines: setup ## what only benchmarks.engines needs; without what they ask for, which is there in other versions
	uv pip install --python $(BIN)/python --quiet --no-deps $(FIND_LINKS) --group engines

setup-lmms: setup ## lmms-eval and this project's models, in an environment of their own (docs/evaluation.md)
	test -x .venv-lmms/bin/python || $(PYTHON) -m venv .venv-lmms
	uv pip install --python .venv-lmms/bin/python --quiet --compile-bytecode $(FIND_LINKS) -r requirements-lmms.lock
	uv pip install --python .venv-lmms/bin/python --quiet --no-deps --editable .

test-lmms: setup-lmms ## one task of lmms-eval with local data, answered by a model of this project
	.venv-lmms/bin/python -m pytest tests/evaluation/test_lmms_eval.py

lock: setup
	python .ci/lock.py write

format: setup
	ruff format .
	ruff check --fix .

ui: export PREFECT_API_URL = http://127.0.0.1:$(PREFECT_PORT)/api
ui: setup ## Prefect's UI, where Run starts the run, and a worker that does it; Ctrl-C ends the worker
	python -m flows.server start --port $(PREFECT_PORT)
	prefect work-pool create local --type process --overwrite
	prefect --no-prompt deploy --name on-demand
	prefect worker start --pool local --limit 1 # the clone is one: a second run waits

ui-stop: setup
	python -m flows.server stop

s3: setup ## an S3 server on this machine, to try things out (docs/s3.md); Ctrl-C ends it
	python -m flows.storage serve --port $(S3_PORT)

timings: setup ## minutes per stage of the last run
	python -m flows.timings
