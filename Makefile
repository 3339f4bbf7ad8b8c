# Each target does its own set-up in a fresh clone, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 20

.PHONY: setup sbom demo test coverage test-emulated check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# What sekron-edge stands on, with licences, in CycloneDX's form; prints them, too.
sbom: $(STAMP)
	$(BIN)/python -m sekron_edge.sbom dist/sekron-edge.cdx.json

# The main job, small: a CNN on data that ships with the install, for this machine. --resume: a killed demo goes on.
demo: $(STAMP)
	$(BIN)/sekron-edge run examples/digits.toml --out dist/demo --resume

# Tests on as many processes as there are cores, four at most, each with one thread: who is done takes from the others.
test: $(STAMP)
	./tests/debian-packages.sh
	$(PYTEST)

# The same, and the lines that none of them reaches in the processes of pytest. Tracing takes two fifths more of the
# processor's time with Python 3.11, so `make test` does without.
coverage: $(STAMP)
	./tests/debian-packages.sh
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

# An arm64 board under qemu-user; as root, with debootstrap and qemu-user-static. Slow.
test-emulated: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" ./tests/emulated/rootfs.sh .cache/arm64 \
		"$$($(BIN)/python -c 'from importlib.metadata import version; print(version("ai-edge-litert"))')"
	SEKRON_EDGE_ARM64="$(CURDIR)/.cache/arm64" $(BIN)/python -m pytest tests/emulated/arm64.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell sekron_edge exporters profiles tests examples benchmarks docs README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md

clean:
	rm -rf $(VENV) build dist .cache *.egg-info
