# How to set up, run and check e-MASS. `make help` lists what there is.
#
# Every target works alone in a fresh clone: those that need the virtual environment make it first,
# and it is made again only when pyproject.toml or constraints.txt is newer. Nothing is installed on
# the machine: libraries go to .venv, the mail servers that some tests talk to are unpacked in a cache
# folder (see bench/peers).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
HALF := tests/engine/mta tests/engine/runtime tests/sim tests/bench tests/services tests/test_tidy.py
WAITING := tests/chaos tests/loopback
FAST := not slow and not long and not peers
export PYTHONUNBUFFERED := 1
# Tests start hundreds of processes, and pytest rewrites each test file: without compiled files every one of
# them would begin with compiling.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo check test test-long soak bench clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything installed (.venv/bin/emass), when it is not up to date

# Wheels are pinned and tested for 3.11; a newer Python serves as well.
$(READY): pyproject.toml constraints.txt
	@set -e; found=; \
	for candidate in python3.11 python3 python3.12 python3.13 python3.14; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "e-MASS needs Python 3.11 or newer and finds none. On Debian: apt-get install python3 python3-venv" >&2; exit 1; \
	fi; \
	if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  rm -rf $(VENV); \
	  echo "making $(VENV) with $$($$found --version)"; \
	  $$found -m venv $(VENV) || { echo "Python cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "installing e-MASS and its libraries into $(VENV)"; \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'; \
	$(PYTHON) -m compileall -q -j 0 engine services control bench; \
	touch $(READY)

demo: setup ## Send a real signed campaign to a built-in world of receivers and watch it (ARGS="--messages 1000")
	@$(VENV)/bin/emass demo $(ARGS)

check: setup ## Format, lint, types, tidy test and fast tests, in under a minute
	@$(PYTHON) -m ruff format --check --quiet . || { echo "cure: $(PYTHON) -m ruff format ." >&2; exit 1; }
	@$(PYTHON) -m ruff check --quiet .
	@mkdir -p .cache; export HYPOTHESIS_PROFILE=quick; \
	$(PYTHON) -m mypy >.cache/mypy.log 2>&1 & types=$$!; \
	$(PYTHON) -m pytest -q -p no:cacheprovider -m "$(FAST)" $(HALF) >.cache/half.log 2>&1 & other=$$!; \
	$(PYTHON) -m pytest -q -m "$(FAST)" $(HALF:%=--ignore=%); tests=$$?; \
	wait $$other; other=$$?; wait $$types; types=$$?; \
	echo "the other half ($(HALF)):"; grep -v '^\.' .cache/half.log | tail -n 60; \
	echo "mypy: $$(tail -n 40 .cache/mypy.log)"; \
	exit $$(( tests ? tests : other ? other : types ))

# Kills and real hops wait more than they compute: they run beside everything else.
test: setup ## All tests but the long ones; unpacks the mail servers they talk to, where it can
	@$(PYTHON) -m bench.peers install || echo "tests that need a missing server are skipped and named at the end"
	@if [ -n "$(ARGS)" ]; then exec $(PYTHON) -m pytest -m "not long" $(ARGS); fi; \
	mkdir -p .cache; \
	$(PYTHON) -m pytest -p no:cacheprovider -m "not long" $(WAITING) >.cache/waiting.log 2>&1 & other=$$!; \
	$(PYTHON) -m pytest -m "not long" $(WAITING:%=--ignore=%); tests=$$?; \
	wait $$other; other=$$?; \
	echo "beside it ($(WAITING)):"; cat .cache/waiting.log; \
	exit $$(( tests ? tests : other ))

test-long: setup ## The tests that take minutes: chaos, many seeds, fuzzing
	@$(PYTHON) -m bench.peers install || true
	@HYPOTHESIS_PROFILE=long $(PYTHON) -m pytest -m long $(ARGS) || { code=$$?; [ $$code -eq 5 ] && echo "there is no long test"; }

soak: setup ## The long tests with far more examples, for an hour or a night
	@HYPOTHESIS_PROFILE=soak $(PYTHON) -m pytest -m long $(ARGS)

bench: setup ## Measure composing, the spool and the whole engine (ARGS="--json")
	@$(PYTHON) -m bench.peers install || true
	@for name in compose spool engine; do $(PYTHON) -m bench $$name $(ARGS) || exit 1; done

clean: ## Remove .venv, caches and build leftovers; the cache of unpacked servers stays
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
