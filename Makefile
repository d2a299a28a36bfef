# pygw: `make demo` and `make test` need only Python 3.11+ and a C compiler; everything else is installed into .venv.
# What is there is not made again: the stamps in build/make/ say when something was made and from what.

VENV   ?= .venv
# The first of these that is Python 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
              $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

PY      := $(VENV)/bin/python
STAMPS  := build/make
SOURCES := setup.py $(shell find pygw -name '*.pyx' -o -name '*.pxd')
PYTEST  := $(PY) -m pytest

.PHONY: help demo build test test-full lint tools atheris fuzz sanitize conformance bench bench-full bench-gate bench-micro \
    wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: build  ## build, start example backends and a gateway, show calls being routed; Ctrl-C ends it (ONCE=1: by itself)
	@$(PY) -m pygw demo $(if $(ONCE),--once)

build: $(STAMPS)/compiled  ## .venv, the dependencies and the compiled modules

test: build  ## all tests that need nothing else and are quick
	$(PYTEST) -m "not full and not slow"

test-full: build tools atheris sanitize  ## what `make test` leaves out: slow tests, grpcurl, grpc-go interop, h2spec, sanitizers
	$(PYTEST) -m "full or slow"

lint: build  ## ruff, mypy, cython-lint and the rules of ARCHITECTURE.md
	$(PYTEST) tests/test_sourcecode.py

tools:  ## the Go programs that test-full drives, into .tools/bin (says so where it cannot)
	@sh tests/tools/install.sh

sanitize: build  ## build a copy with bounds checks and ASan+UBSan, run tests and gateways on it; ALL=1 for all there are
	@sh tests/tools/sanitize.sh $(abspath $(PY))

atheris: build  # the fuzzer; it has no wheel for every Python, and the tests say so where it is absent
	@$(PY) -m pip install --quiet --group fuzz || echo "atheris: not installed; nothing will be fuzzed"

fuzz: atheris  ## fuzz the parsers and the state machine (tests/fuzz), SECONDS=60 each; needs clang
	$(PY) -m tests.fuzz all --seconds $(or $(SECONDS),60)

conformance: build  ## the official Gateway API suite and our cluster tests on a real API server; RUNS=5 repeats the suite
	$(PY) -m tests.conformance all --runs $(or $(RUNS),1)

bench: build  ## pygw beside other gateways: the table of the numbers to reach, in about 4 minutes (bench/README.md)
	$(PY) -m bench $(BENCH)

bench-full: build  ## all scenarios, in about 15 minutes; BENCH="--only NAME" for options
	$(PY) -m bench --full $(BENCH)

bench-gate: build  ## instructions of each operation against the merge base (BASE=COMMIT): fails where one costs 2 % more
	$(PY) -m bench.gate $(if $(BASE),--base $(BASE))

bench-micro: build  ## one operation of one compiled module each (pytest-benchmark)
	$(PYTEST) bench/micro

wheel: $(STAMPS)/venv  ## one wheel into dist/, and what auditwheel says about it
	$(PY) -m pip install --quiet build auditwheel
	rm -rf build/wheel dist/*.whl
	$(PY) -m build --wheel --outdir dist .
	$(PY) -m auditwheel show dist/*.whl

clean:  ## remove everything that make made, but not .venv and .tools
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find pygw -name '*.so' -o -name '*.c' -o -name '*.html' | xargs rm -f
	find pygw tests -name __pycache__ | xargs rm -rf

$(STAMPS)/venv: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer is on the PATH; name one: make PYTHON=/path/to/python3"; exit 1; }
	@mkdir -p $(STAMPS)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	    > $(STAMPS)/requirements.txt
	$(PY) -m pip install --quiet --group dev --requirement $(STAMPS)/requirements.txt
	@touch $@

$(STAMPS)/compiled: $(STAMPS)/venv $(SOURCES)
	@$(PY) -c 'import sysconfig, pathlib, sys; header = pathlib.Path(sysconfig.get_path("include"), "Python.h"); \
	    header.exists() or sys.exit(f"make: {header} is missing: install the development files of Python (python3-dev)")'
	@command -v $${CC:-cc} > /dev/null || { echo "make: no C compiler: install gcc or clang, or set CC"; exit 1; }
	$(PY) setup.py --quiet build_ext --inplace --parallel $(shell nproc 2>/dev/null || echo 2)
	@touch $@
