# The short way to everything; `make help` lists it. What is missing on a fresh Debian or Ubuntu is installed first
# (contrib/setup.sh says what and how). The interpreter can be named: make PYTHON=python3.12 test

export PYTHON
VENV := .venv
BIN := $(VENV)/bin
COVERAGE_ENV := COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage
SOURCES := agent tests benchmarks contrib

.PHONY: help run test check style coverage demo bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make run    follow this host with the built-in defaults and print incidents to the terminal (Ctrl-C ends it)'
	@echo 'make demo   play a made-up incident and show what a user would get, in under a minute'
	@echo 'make test   the tests'
	@echo 'make check  what CI runs: formatting, lint, types, import rules, the demo, the tests with coverage'
	@echo 'make bench  latency, idle cost and scan speed, each beside its target'
	@echo 'make clean  remove what the others made here'

run: $(VENV)/run.ready
	$(BIN)/sockmem-agent run

demo: $(VENV)/run.ready
	$(BIN)/python -m contrib.demo $(DEMO_OPTIONS)

test: $(VENV)/test.ready
	$(BIN)/python -m pytest

check: style demo coverage

style: $(VENV)/test.ready
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --explicit-package-bases -p agent -p benchmarks -p contrib
	$(BIN)/lint-imports

# The processes that tests start are measured too: coverage starts in each of them by COVERAGE_PROCESS_START.
coverage: $(VENV)/test.ready
	rm -f .coverage .coverage.*
	$(COVERAGE_ENV) $(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(VENV)/test.ready
	$(BIN)/python -m benchmarks.all

# A stamp is older than what it depends on when the set-up has to be done again.
$(VENV)/run.ready: pyproject.toml contrib/setup.sh
	contrib/setup.sh run
	@touch $@

$(VENV)/test.ready: pyproject.toml contrib/setup.sh
	contrib/setup.sh test
	@touch $@ $(VENV)/run.ready

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
