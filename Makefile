.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-slow bench lint type format clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export NO_ALBUMENTATIONS_UPDATE := 1

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv with the pinned requirements and the package (editable)

$(STAMP): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(STAMP)

demo: RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: $(STAMP) ## train on easy synthetic scenes for five minutes, score held-out ones, write pictures
	$(BIN)/panoptic train experiment=deeperlab_scenes run=$(RUN)
	$(BIN)/panoptic evaluate run=$(RUN) split=test
	$(BIN)/panoptic evaluate run=$(RUN) split=test data.test.difficulty=hard out=$(RUN)/evaluation_hard

test: $(STAMP) ## all tests but the slowest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not very_slow" -n 2

test-fast: $(STAMP) ## without what takes more than a few seconds, builds whole networks, or goes through every choice
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not very_slow" -n 2

test-slow: $(STAMP) ## the slowest tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m very_slow

bench: $(STAMP) ## speed as ratios within one run, each with its bar
	status=0; for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || status=1; done; exit $$status

lint: $(STAMP) ## ruff: format, lint, docstrings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(STAMP) ## mypy, strict on the pure layers
	$(BIN)/mypy

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the targets made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
