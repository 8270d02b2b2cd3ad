# Shortcuts for everything; `make help` lists them. On a fresh Debian or Ubuntu missing packages are installed first (see
# contrib/setup.sh). To choose an interpreter: make PYTHON=python3.12 test

export PYTHON
VENV := .venv
BIN := $(VENV)/bin
COVERAGE_ENV := COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage
SOURCES := agent tests benchmarks contrib packaging
# A different interpreter than the environment's creates a new environment.
ifneq ($(PYTHON),)
$(shell [ "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" ] || rm -f $(VENV)/*.ready)
endif

.PHONY: world world-bugs fuzz mutants soak vm-test vm-check vm-long vm-machines docs/kernels.md docs/performance.md docs/schemas pictures help run test check style coverage demo bench deb rpm clean
.DELETE_ON_ERROR:

help:
	@echo 'make run    follow this host with the built-in defaults and print incidents to the terminal (stop with Ctrl-C)'
	@echo 'make demo   play a made-up incident and show the notifications, in under a minute'
	@echo 'make test   run the tests, or some of them: TESTS=tests/cli'
	@echo 'make check  check formatting, lint, types and imports, run the demo and the tests; CI runs this and vm-check'
	@echo 'make soak   run the agent for an hour through everything that happens to it (MINUTES=60)'
	@echo 'make world  play a thousand simulated hours with faults; make world SEED=17 MINUTES=10 plays one again'
	@echo 'make bench  measure the cost beside SEC, fail2ban, mtail, swatchdog, grep and ss; ROWS="latency scan" only that'
	@echo 'make fuzz   feed every reader of foreign bytes random input for a minute (TARGET=log SECONDS=600, or RUNS=10000000)'
	@echo 'make mutants  change each module that differs from main in one place at a time; print what no test notices'
	@echo 'make deb    build the package for Debian and Ubuntu in dist/; make rpm builds the one for Fedora and derivatives'
	@echo 'make vm-test  boot real kernels under QEMU and test the package on them (KERNEL=6.1 SCENARIO=orphans; root, Debian)'
	@echo 'make vm-check   the part that CI runs: all scenarios on 6.12, the main ones on 6.1'
	@echo 'make vm-long    the scenarios that take long: floods, damage, a million lines, twenty power cuts (KERNEL=6.12)'
	@echo 'make pictures  photograph what the program sends today, for README.md (needs chromium)'
	@echo 'make clean  remove everything the other targets created here'

# State stays in the clone: root's files in /var/lib/sockmem-agent would block the installed service.
run: export STATE_DIRECTORY ?= $(CURDIR)/.state
run: $(VENV)/run.ready
	$(BIN)/sockmem-agent run

demo: $(VENV)/run.ready
	$(BIN)/python -m contrib.demo

test: $(VENV)/test.ready
	$(BIN)/python -m pytest $(TESTS)

check: style demo test

style: $(VENV)/test.ready
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy --explicit-package-bases -p agent -p benchmarks -p contrib
	$(BIN)/mypy packaging/build.py packaging/lock.py packaging/schemas.py
	$(BIN)/lint-imports

# What no test reaches, in the processes that tests start too (COVERAGE_PROCESS_START).
coverage: $(VENV)/test.ready
	rm -f .coverage .coverage.*
	$(COVERAGE_ENV) $(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

soak: $(VENV)/test.ready
	$(BIN)/python -m pytest -s -p no:cacheprovider tests/soak --soak-minutes $(or $(MINUTES),60)

# Some of it: make bench ROWS="latency idle"
bench: $(VENV)/test.ready
	$(BIN)/python -m benchmarks.all $(ROWS)

# contrib/setup.sh bench installs what it is compared with.
docs/performance.md: $(VENV)/test.ready
	$(BIN)/python -m benchmarks.all --page $@

# FILES="agent/core/dispatch.py ..." names other modules, MUTANTS="--tests tests/core" other tests; see contrib/mutants.
mutants: $(VENV)/test.ready
	$(BIN)/python -m contrib.mutants $(FILES) $(MUTANTS)

# For SECONDS in all, or RUNS inputs of each target; TARGET="log kmsg" are some of those in tests/fuzz/targets.py.
fuzz: $(VENV)/fuzz.ready
	$(BIN)/python tests/fuzz/fuzz.py $(if $(RUNS),--runs $(RUNS),--seconds $(or $(SECONDS),60)) $(TARGET)
# Simulated hours under one seed each: tests/world/world.py.
world: $(VENV)/test.ready
	$(BIN)/python tests/world/play.py $(if $(SEED),--first=$(SEED) --seeds=1) $(if $(MINUTES),--minutes=$(MINUTES))

# Bugs put back, and how many seeds find each: the table in docs/testing.md.
world-bugs: $(VENV)/test.ready
	$(BIN)/python tests/world/world_bugs.py $(BUGS)

deb: $(VENV)/package.ready
	$(BIN)/python packaging/build.py deb $(PACKAGE_OPTIONS)

rpm: $(VENV)/package.ready
	$(BIN)/python packaging/build.py rpm $(PACKAGE_OPTIONS)

# Real kernels under QEMU with the package installed: make vm-test KERNEL=6.1 SCENARIO=orphans. Machine images and the
# results of each scenario are kept outside the tree, in VM_CACHE.
VM_CACHE := $(or $(SOCKMEM_VM_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sockmem-agent-vm)
VM_TEST = SOCKMEM_VM_CACHE=$(VM_CACHE) $(BIN)/python -m pytest --vm -p no:cacheprovider --durations=0 --durations-min=1
# An emulated machine on a busy host may miss a deadline. Such a timeout is retried once, and the output says so; a wrong
# result is not.
VM_CHECK_KERNELS = 6.12,6.1
VM_CHECK = --kernel=$(VM_CHECK_KERNELS) --all-scenarios-on=6.12 --reruns 1 --only-rerun 'in the machine' --only-rerun MachineError -r aR --vm-minutes 18

vm-test: $(VENV)/test.ready deb
	contrib/setup.sh vm
	$(VM_TEST) tests/vm --kernel=$(KERNEL) --scenario=$(SCENARIO) $(VM_OPTIONS)

# In CI: every scenario on 6.12; on 6.1 the main ones, with what the witness does before 6.12. Scenarios without time left
# are skipped by name.
vm-check: VM_OPTIONS = $(VM_CHECK)
vm-check: vm-test

# The scenarios that take long, which no other target runs.
vm-long: VM_OPTIONS = --on-demand
vm-long: KERNEL ?= 6.12
vm-long: vm-test

# Only the machines the scenarios start from: CI builds them in parallel with `make check`.
vm-machines: $(VENV)/test.ready deb
	contrib/setup.sh vm
	$(VM_TEST) tests/vm/test_machines.py --kernel=$(VM_CHECK_KERNELS)

docs/kernels.md: $(VENV)/test.ready
	SOCKMEM_VM_CACHE=$(VM_CACHE) $(BIN)/python tests/vm/kernels_page.py $(VM_CACHE)/results > $@.new || { rm -f $@.new; false; }
	mv $@.new $@

# docs/slack.png and docs/incident-page.png, as the program sends them today; needs chromium.
pictures: $(VENV)/test.ready
	PYTHONPATH=tests $(BIN)/python tests/page/pictures.py

docs/schemas: $(VENV)/test.ready
	$(BIN)/python packaging/schemas.py

# A stamp older than its prerequisites means that setup must run again.
$(VENV)/run.ready: pyproject.toml contrib/setup.sh
	contrib/setup.sh run
	@touch $@

$(VENV)/package.ready: pyproject.toml contrib/setup.sh
	contrib/setup.sh package
	@touch $@ $(VENV)/run.ready

$(VENV)/test.ready: pyproject.toml contrib/setup.sh
	contrib/setup.sh test
	@touch $@ $(VENV)/run.ready $(VENV)/package.ready

$(VENV)/fuzz.ready: $(VENV)/test.ready
	contrib/setup.sh fuzz
	@touch $@

clean:
	rm -rf $(VENV) .state .fuzz build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
