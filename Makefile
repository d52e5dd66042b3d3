# Everything a newcomer needs. `make demo` and `make test` set themselves up.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo up test lint bench clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml requirements.lock
	@echo "Setting up .venv (first time: a few minutes) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## raw text to an aligned, evaluated, registered model, on CPU
	@$(BIN)/rlhf run --profile cpu-demo

up: $(STAMP)  ## Prefect and MLflow in the browser, flows ready to be triggered
	@$(BIN)/rlhf up

lint: $(STAMP)
	@echo "Checking style, types and import rules ..."
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-timings 2>/dev/null || $(BIN)/lint-imports

test: lint
	@echo "Running the tests (about 20 minutes on 2 cores) ..."
	@# One process more than cores: servers and browsers mostly wait.
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder

bench: $(STAMP)  ## the demo's figures over five seeds
	@$(BIN)/python tests/benchmarks/demo_seeds.py

clean:  ## remove what runs left behind; keeps the installation
	rm -rf data/runs data/mlflow data/prefect data/cache
