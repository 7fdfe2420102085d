# `make demo` and `make test` are enough to start; both make .venv by themselves.

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-oldest test-quantised test-fleet test-simulated-gpu check build format clean .venv

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := src tests benchmarks scripts

# The first Python that is new enough; `make PYTHON=/path/to/python3` takes another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3 python3.13 python3.12 python3.11
PYTHON ?= $(shell for each in $(CANDIDATES); do \
	"$$each" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$each"; exit; }; done; echo python3)

help:
	@echo 'make demo    build a tiny Wan2.2-like model, inspect it, plan it, run it and time it: demo/'
	@echo 'make test    the tests'
	@echo 'make check   format, lint, types, import law, sizes, stale generated files, golden plans'
	@echo 'make format  format and mend what ruff can mend'
	@echo 'make clean   remove caches, builds and demo/ (.venv stays)'
	@echo 'make test-fast    the tests that need no torch, in under a minute'
	@echo 'make test-oldest  the canaries, with the oldest diffusers and transformers that pyproject.toml admits'
	@echo 'make test-quantised  packed weights of torchao and bitsandbytes, which the other tests do without'
	@echo 'make test-fleet   fleets on Ray, which the other tests do without; minutes, one after another'
	@echo 'make test-simulated-gpu   the CUDA path, with the CUDA build of torch on a simulated GPU; TORCH=2.13.0 takes another'
	@echo 'make build        the wheel, in dist/, installed into a fresh environment and tried outside this folder'

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

# Two workers with one torch thread each: small models gain nothing from a second thread.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# What needs torch is skipped where it would be imported: tests/conftest.py.
test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --fast

test-oldest: $(STAMP)
	$(BIN)/python scripts/oldest_libraries.py build/oldest
	OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -m canary

# torchao and bitsandbytes cost every process that imports diffusers seconds: their tests have an environment of their own.
test-quantised:
	"$(PYTHON)" -m venv build/quantised
	build/quantised/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	build/quantised/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,quantised]'
	OMP_NUM_THREADS=1 build/quantised/bin/python -m pytest -n 2 --dist worksteal $(wildcard tests/test_packed_*.py)

# Ray is a quarter of a gigabyte. One process: a cluster takes what two cores have.
test-fleet:
	"$(PYTHON)" -m venv build/fleet
	build/fleet/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	build/fleet/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,fleet]'
	OMP_NUM_THREADS=1 build/fleet/bin/python -m pytest $(wildcard tests/test_on_ray*.py)

# The environment is made once, in ~/.cache/roost-simulated-gpu; torch's CUDA wheel alone is half a gigabyte.
SIMULATED := tests/simulated_gpu
GPU_TESTS := $(addprefix tests/test_,cuda.py cuda_device.py cuda_elastic.py peers.py probe.py streaming_benchmark.py trace_out.py)
test-simulated-gpu:
	"$(PYTHON)" $(SIMULATED)/environment.py python -m pytest $(SIMULATED)
	"$(PYTHON)" $(SIMULATED)/environment.py python -m pytest -p gpu_tests -m gpu $(GPU_TESTS)

# build/lib would bring files into the wheel that are no more.
build: $(STAMP)
	rm -rf build/lib dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python scripts/try_wheel.py dist

check: $(STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini $(filter-out tests/test_%,$(wildcard tests/*.py))
	$(BIN)/mypy --config-file tests/mypy.ini $(filter-out %/conftest.py %/sitecustomize.py $(SIMULATED)/test_%,$(wildcard $(SIMULATED)/*.py))
	$(BIN)/python scripts/check_house.py
	$(BIN)/python scripts/generate_class_facts.py --check
	$(BIN)/python scripts/generate_families.py --check
	$(BIN)/python scripts/generate_layouts.py --check
	$(BIN)/python scripts/generate_docs.py --check
	$(BIN)/python benchmarks/golden_plans.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(STAMP)

# torch goes first, so that nothing that needs "some torch" brings a newer one.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 || { \
		echo 'error: Roost needs Python 3.11 or newer, and "$(PYTHON)" is not. Choose one: make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@echo 'Installing into $(VENV); torch is the largest part and takes a while.'
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
