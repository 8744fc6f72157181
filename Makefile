# All set-up happens in .venv of this checkout; nothing is installed globally.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1

.PHONY: demo deb test test-pure test-real test-vm mutants campaign fuzz requirements sbom lint clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

$(VENV)/demo-installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --root-user-action=ignore -e '.[demo]'
	touch $@

demo: $(VENV)/demo-installed
	$(BIN)/nicety demo

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The two halves run side by side: one computes, the other mostly waits for real programs.
test: lint
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-pure test-real

test-pure: $(VENV)/installed
	$(BIN)/pytest --junit-xml=build/junit-pure.xml tests/unit tests/property tests/replay tests/golden tests/faults tests/test_*.py

test-real: $(VENV)/installed
	$(BIN)/pytest --junit-xml=build/junit-real.xml tests/contracts tests/real

# Topology and cgroup v2 in an emulated machine: docs/testing-in-a-vm.md. Takes minutes and is no part of `test`.
test-vm: $(VENV)/installed
	$(BIN)/python tests/vm/run.py

# Which small faults in decide/, act/, hands/ and models/ the tests notice: docs/mutants.md. Takes most of an hour and is no part of `test`.
$(VENV)/mutants-installed: $(VENV)/installed
	$(BIN)/pip install --quiet -e '.[dev,mutants]'
	touch $@

mutants: $(VENV)/mutants-installed
	$(BIN)/python -m benchmarks.house.mutants $(MUTANTS)

# System calls that are killed at, fail or take long, in every program: docs/campaign.md. Takes hours; `test` has a sample of it.
campaign: $(VENV)/installed
	$(BIN)/python -m benchmarks.faults.campaign $(CAMPAIGN)

# What a service is installed from, pinned with hashes (docs/install.md), for Python 3.11 on Linux. Needs a network.
$(VENV)/supply-installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[supply]'
	touch $@

LOCK = $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --python-platform linux \
	--no-emit-index-url --custom-compile-command 'make requirements' pyproject.toml

requirements: $(VENV)/supply-installed
	$(LOCK) --extra train --output-file requirements/training.txt
	$(LOCK) --constraint requirements/training.txt --output-file requirements/service.txt
	$(LOCK) --extra tui --extra metrics --extra web --constraint requirements/training.txt --output-file requirements/views.txt

# The pinned packages as CycloneDX.
SBOM ?= build/sbom.json
sbom: $(VENV)/supply-installed
	mkdir -p $(dir $(SBOM))
	$(BIN)/cyclonedx-py requirements requirements/training.txt --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file $(SBOM)

# build/nicety_VERSION_ARCHITECTURE.deb, on the Debian that it is for (docs/install.md). Works on a copy: the checkout stays as it is.
DEB_TOOLS := dpkg-dev build-essential debhelper python3-venv
deb:
	@dpkg-checkbuilddeps || { echo "make deb: type: sudo apt-get install --no-install-recommends $(DEB_TOOLS)"; exit 1; } >&2
	rm -rf build/deb
	mkdir -p build/deb/nicety
	tar --create --exclude=__pycache__ configs debian docs models requirements scheduler src training \
		CHANGELOG.md LICENSE README.md SECURITY.md pyproject.toml | tar --extract --directory build/deb/nicety
	cd build/deb/nicety && dpkg-buildpackage --no-sign --build=binary
	mv build/deb/nicety_*.deb build/

# A million damaged and hostile inputs for every reader of bytes: docs/fuzzing.md. Takes an hour or more and is no part of `test`.
$(VENV)/fuzz-installed: $(VENV)/installed
	$(BIN)/pip install --quiet -e '.[dev,fuzz]'
	touch $@

CASES ?= 1000000
fuzz: $(VENV)/fuzz-installed
	$(BIN)/python -m benchmarks.fuzz.run --cases $(CASES) $(FUZZ)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
