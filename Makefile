# Each target does its own set-up in a fresh clone, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UNLOCKED := $(VENV)/.installed
LOCK := $(VENV)/.installed-locked
STAMP := $(if $(LOCKED),$(LOCK),$(UNLOCKED))
LOCKING := .cache/pip-tools
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 20

.PHONY: setup lock sbom demo test coverage test-emulated check campaign clean

# LOCKED=1, here and with each other target: only archives whose hashes are in requirements.lock.
setup: $(STAMP)

$(UNLOCKED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	rm -f $(LOCK)
	touch $@

# From nothing, since pip does not hash what is installed already. setuptools comes first: it builds what has no wheel.
$(LOCK): pyproject.toml requirements.lock
	$(PYTHON) -m venv --clear $(VENV)
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > $(VENV)/setuptools.lock
	$(BIN)/pip install --quiet --require-hashes --requirement $(VENV)/setuptools.lock
	$(BIN)/pip install --quiet --require-hashes --no-build-isolation --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The packages of '.[dev]' and what builds them, as this machine's pip finds them; takes minutes.
# What follows an empty line is a warning that sekron-edge itself, which '.[dev]' names, is not among them.
lock:
	test -x $(LOCKING)/bin/pip-compile || $(PYTHON) -m venv $(LOCKING)
	$(LOCKING)/bin/pip install --quiet pip-tools==7.6.2
	rm -f $(LOCKING)/requirements.lock
	CUSTOM_COMPILE_COMMAND='make lock' $(LOCKING)/bin/pip-compile --quiet --generate-hashes --no-annotate \
		--extra dev --all-build-deps --unsafe-package sekron-edge --no-allow-unsafe --constraint constraints.txt \
		--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras \
		--output-file $(LOCKING)/requirements.lock pyproject.toml
	sed '/^$$/,$$d' $(LOCKING)/requirements.lock > requirements.lock

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

# Damaged files, hostile boards, kills and full disks: what becomes of 100 000 faults. Ten minutes on two cores.
FAULTS ?= 100000
campaign: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign --faults $(FAULTS) --markdown dist/campaign.md

clean:
	rm -rf $(VENV) build dist .cache *.egg-info
