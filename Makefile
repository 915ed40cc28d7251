# `make demo` runs the main job, `make test` the tests; both set everything up first.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SEED ?=
MINUTES ?= 5

.PHONY: demo test test-limits test-acceptance test-others check chaos pins clean bench

demo: bridge/web/dist/app.js .venv/installed
	@$(BIN)/python -m tasks.demo $(ARGS)

test: .venv/installed bridge/web/dist/app.js check
ifeq ($(strip $(ARGS)),)
	@$(MAKE) --no-print-directory -j3 test-limits test-acceptance test-others
else
	@$(BIN)/python -m pytest $(ARGS)
endif

# Side by side, in parts of about the same length: the acceptance tests mostly wait, for leases and processes.
LIMITS := tests/acceptance/limits tests/acceptance/limits_pools tests/acceptance/leases
RESTARTS := tests/acceptance/restarts

test-limits:
	@$(BIN)/python -m pytest $(LIMITS)

test-acceptance:
	@$(BIN)/python -m pytest tests/acceptance $(patsubst %,--ignore=%,$(LIMITS) $(RESTARTS))

test-others:
	@$(BIN)/python -m pytest $(filter-out tests/acceptance,$(patsubst %/,%,$(wildcard tests/[a-z]*/))) $(RESTARTS)

check: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

.venv/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("taskcast needs Python 3.11 or newer; this is %d.%d: run make PYTHON=python3.11" % v[:2])'
	@echo "Installing the pinned packages into .venv (a minute the first time)..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

bridge/web/dist/app.js: bridge/web/package-lock.json $(wildcard bridge/web/src/*) | .venv/installed
	@$(BIN)/python -m bridge.web.build

# Faults at random on the whole system; fails if a run is lost, doubled or wrong. ARGS="--only redis-kill" picks some.
chaos: .venv/installed
	@PYTHONPATH=. $(BIN)/python -m tests.acceptance.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: .venv/installed
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || exit 1; done

# Maintainers only: needs uv on PATH.
pins:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make pins" --all-extras --group dev pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make pins" --extra operators --extra tasks pyproject.toml -o requirements/app.txt

clean:
	rm -rf .venv .taskcast bridge/web/dist bridge/web/node_modules
