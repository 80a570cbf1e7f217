# The commands for developers. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME := $(CURDIR)/.dagster_home

.DEFAULT_GOAL := help
.PHONY: help install demo ui test slice dbt test-all check security docs soak e2e pictures bench constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed $(DAGSTER_HOME)/dagster.yaml ## Create the environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "pip_dagster needs Python 3.11, 3.12 or 3.13; found " + sys.version.split()[0] + ". Set one: make PYTHON=python3.12 ...")'
	@echo "Creating $(VENV) with $$($(PYTHON) --version): about a minute, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@# uv is several times faster; pip knows mirrors and certificates that uv may not know.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,lake,sources]' || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,lake,sources]'
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: pip_dagster/scaffold/templates/dagster.yaml
	@mkdir -p $(DAGSTER_HOME) && cp $< $@

demo: install ## Score real flights, compare with labels, and report: from nothing, in under three minutes
	@$(BIN)/pip-dagster demo

ui: install ## Open Dagster on http://127.0.0.1:3000 with the pipelines loaded
	@$(BIN)/pip-dagster ui --port $${PORT:-3000}

TESTS := not soak and not slice
test: install ## Run the tests
	@# One worker more than the two cores that CI has: some tests wait for daemons, locks and processes. DuckDB and
	@# XGBoost use one thread in them, which takes less CPU; `TEST_THREADS= make test` uses all CPUs.
	@TEST_THREADS=$${TEST_THREADS-1} $(BIN)/python -m pytest -n 3 --dist worksteal -m '$(TESTS)'

slice: install ## Run what takes minutes and no change of a function is likely to break
	@$(MAKE) --no-print-directory test TESTS='slice and not soak'

DBT := .venv-dbt
dbt: install ## Run the tests of examples/dbt, whose libraries need an environment of their own
	@test -x $(DBT)/bin/python || $(BIN)/python -m venv $(DBT)
	@# Without the pins of what dbt needs older.
	@grep -vE '^(pathspec|importlib-metadata|more-itertools|sqlparse)==' constraints.txt > $(DBT)/constraints.txt
	@$(BIN)/uv pip install --quiet --python $(DBT)/bin/python -c $(DBT)/constraints.txt -e '.[dbt]' pytest hypothesis
	@$(DBT)/bin/python -m pytest -m slice tests/docs/test_dbt.py

test-all: install ## Run the tests on each supported Python, with the environments .venv-3.11 to .venv-3.13
	@for version in 3.11 3.12 3.13; do echo "== Python $$version"; python=$$(tools/find_python $$version) && \
	  TEST_THREADS= $(MAKE) --no-print-directory test TESTS='not soak' PYTHON=$$python VENV=.venv-$$version || exit 1; done

soak: install ## Run the long tests: kills, fuzzing, load, clusters, servers
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[soak]'
	@$(BIN)/python -m pytest -n 2 -m 'soak or slice'

e2e: install ## Click through Dagster's UI in the system's Chromium: under 4 minutes
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[e2e]'
	@$(BIN)/python -m pytest -m e2e tests/e2e

pictures: install ## Take the pictures of the documents again, in the system's Chromium
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[e2e]'
	@$(BIN)/python tools/pictures.py

bench: install ## Measure speed and memory, on an idle machine: under 15 minutes
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[bench]'
	@# It requires pandas below 3, but runs with 3.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps 'dagster-duckdb-pandas==0.29.27'
	@$(BIN)/python -m benchmarks

check: install ## Lint, type-check, and judge spelling and style of what people read
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && $(BIN)/mypy && \
	  $(BIN)/python tools/prose.py

security: install ## Search what is committed for secrets, and write build/sbom.json: what the environment consists of
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[security]'
	@# Not the tests, which invent passwords, and the data. A line that only resembles a secret says `pragma: allowlist secret`.
	@git ls-files -z -- ':!tests' ':!data' ':!*.png' ':!*.parquet' | xargs -0 $(BIN)/detect-secrets-hook
	@# Validating what it wrote against its schema takes 17 of 18 seconds.
	@mkdir -p build && $(BIN)/cyclonedx-py environment --no-validate --pyproject pyproject.toml --output-reproducible \
	  --of JSON -o build/sbom.json $(BIN)/python && echo "build/sbom.json"

docs: install ## Build the documentation site in build/site: no network, and a broken link is an error
	@# Not --quiet, with which mkdocs counts no warnings. mkdocs-material announces its successor on every build.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && echo "build/site/index.html"

constraints: ## Resolve constraints.txt again (needs uv)
	@uv pip compile pyproject.toml --extra dev --extra docs --extra lake --extra sources --extra soak --extra bench --extra e2e --extra security --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --quiet --constraint constraints.in --output-file constraints.txt

clean: ## Remove what the demo created; keep sources and environment
	rm -rf data/registry data/published data/reports data/report.* data/two-weeks.html data/*.duckdb data/*.duckdb.* $(DAGSTER_HOME)
