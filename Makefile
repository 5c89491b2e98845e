# Two commands do everything on a fresh machine: `make run` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench
SOURCES := wire sdk watchdog gateway builder cli
ARGS ?=
ONLY ?=

.PHONY: help run test check format bench fuzz lock clean

help:
	@echo "make run [ARGS=...]    install, serve on this machine, deploy the example; Ctrl-C stops all"
	@echo "make test              install what the tests need, and pass them (minutes)"
	@echo "make check             format, lint, types, import rules, quick tests (about a minute)"
	@echo "make bench [ONLY=KEY]  measure against peers; writes bench/out/latest.json"
	@echo "make fuzz              hostile input of every kind for FUZZ_SECONDS (600); not part of the tests"
	@echo "make lock              take up new versions of the dependencies (constraints.txt)"
	@echo "make format            format the code"
	@echo "make clean             remove the virtual environment and caches"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stoker needs Python 3.11 or newer; $(PYTHON) is older: set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: install python3-venv (Debian: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	@touch $@

$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[test]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[bench]'
	@touch $@

run: $(STAMP)
	@$(BIN)/python stack-examples/run.py $(ARGS)

test: $(TEST_STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" tests/needs.sh
	$(BIN)/python -m pytest $(ARGS)

check: $(TEST_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit tests/contract -m "not slow"

format: $(TEST_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" bench/needs.sh
	$(BIN)/python -m bench $(ONLY)

fuzz: $(TEST_STAMP)
	$(BIN)/python -m tests.fuzz $(ONLY)

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check '.[test,bench]'
	{ sed -n '/^#/p' constraints.txt; .venv-lock/bin/python -m pip freeze | grep -v '^stoker @'; } > constraints.new
	mv constraints.new constraints.txt && rm -rf .venv-lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
