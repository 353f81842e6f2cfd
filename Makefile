# tega-zmq. `make` lists what there is. Each target makes its own .venv first, from a bare checkout too.

PYTHON ?= python3
PORT ?= 8740
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test lint format unit integration bench fuzz lab chaos soak sim sim-mutants docs notebook clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PORT=8740 is the broker's port in make run, PYTHON=python3 what makes the .venv, ARGS what is"
	@echo "  passed on to the tool: make unit ARGS='-k tree -x'"

run: $(READY)  ## a broker with its bridge and two agents on loopback; Ctrl-C stops all of it
	@exec $(BIN)/python -m tega_broker.fleet --port $(PORT) $(ARGS)

demo: $(READY)  ## the same fleet, a scripted story, a few seconds
	@exec $(BIN)/python -m tega_broker.story $(ARGS)

# What needs nothing but the processor runs on all cores: tests/unit and tests/sim, which are to cover the core; and
# tests/knife, which cuts the log at every byte, untraced, since to be traced doubles its time. What starts programs
# and waits for them comes last: two files at a time where they have a broker of their own to talk to, and one test
# at a time where programs are killed, stopped and cut off. 5 is the status when ARGS leaves no test.
PURE := tests/unit tests/sim
PAIRS := tests/bridge tests/fuzz
test: lint demo lab  ## every check that CI makes
	$(BIN)/python -m pytest --no-skips -n auto tests/knife $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest --no-skips -n auto --cov --cov-report=term $(PURE) $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest --no-skips -n 2 --dist loadfile $(PAIRS) $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest --no-skips $(addprefix --ignore=,tests/knife $(PURE) $(PAIRS)) $(ARGS)

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## bring the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(READY)  ## the unit tests alone
	$(BIN)/python -m pytest tests/unit $(ARGS)

integration: $(READY)  ## the tests with real programs alone
	$(BIN)/python -m pytest tests/integration $(ARGS)

bench: $(READY)  ## measure against the baselines
	$(BIN)/python tests/bench/run.py $(ARGS)

fuzz: $(READY)  ## random input to all that reads some, FUZZ_SECONDS=60 each
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(BIN)/python -m pytest tests/fuzz $(ARGS)

sim: $(READY)  ## simulate a fleet under faults, SEEDS=1-20 or fresh ones, EVENTS=15000 each
	$(BIN)/python -m tests.sim.run $(if $(SEEDS),--seeds $(SEEDS)) $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

sim-mutants: $(READY)  ## see whether the simulation finds each bug of tests/sim/mutants.py; minutes
	$(BIN)/python -m tests.sim.run_mutants $(ARGS)

# Hosts in namespaces and small filesystems, for tests/chaos; proxies, for tests/bridge. Without root those
# tests are skipped, and say so.
lab:
	@tests/chaos/prepare
	@tests/bridge/prepare

chaos: $(READY) lab  ## real programs that are killed, frozen and cut off, on full disks; 3 minutes
	$(BIN)/python -m pytest tests/chaos $(ARGS)

soak: $(READY) lab  ## 200 rounds of kill -9 under load, then the simulation, until told to stop or a bug is found
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-200} $(BIN)/python -m pytest tests/chaos/test_killed.py -s $(ARGS)
	@while $(BIN)/python -m tests.sim.run --jobs $$(nproc); do :; done; exit 1

docs: $(READY)  ## check the links and samples in the documents
	$(BIN)/python -m pytest tests/unit/test_docs.py $(ARGS)

# Jupyter itself is not installed here. To work in the notebook: .venv/bin/pip install jupyterlab, and then
# .venv/bin/jupyter lab docs/notebook.ipynb
notebook: $(READY)  ## run docs/notebook.ipynb, and keep it with its pictures in var/notebook.ipynb
	@mkdir -p var
	$(BIN)/jupyter execute docs/notebook.ipynb --output $(CURDIR)/var/notebook.ipynb $(ARGS)

clean:  ## remove what the tools left, not the data of make run
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build *.egg-info var/bench
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## remove the .venv and var/ too: data and logs of make run
	rm -rf $(VENV) var

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: Python 3.11 or newer is needed, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	  echo "      Name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' cannot make a virtual environment: a part of it is not installed."; \
	  echo "      On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@
