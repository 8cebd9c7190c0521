# make demo   create the environment and relax the structures in examples/structures and examples/alloys
# make test   the same environment, then the test suite
#
# PYTHON=/path/to/python3.12   the interpreter to build the environment with (found by itself otherwise)
# VENV=.venv                   where the environment goes
# PIP_ARGS=                    further arguments of pip install

VENV ?= .venv
PYTHON ?=
PIP_ARGS ?=
DEMO_DIR ?= build/demo

bin := $(VENV)/bin
installed := $(VENV)/.installed
docs_installed := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help env demo test stress model dft lint format reference docs dist lowest clean distclean

help:
	@echo "make demo       relax the structures in examples/structures and examples/alloys"
	@echo "make test       run the test suite"
	@echo "make stress     run the long forms of tests: more kills, more samples"
	@echo "make model      train the default model again, and compare it (MODEL=mmace-fe-pbe: the other one)"
	@echo "make dft        install GPAW and ABINIT for mmace-sim label, and test both"
	@echo "make lint       ruff check, ruff format --check and mypy"
	@echo "make reference  write the pages of docs/reference anew"
	@echo "make docs       build the documentation in docs/_build/html"
	@echo "make dist       build wheel and sdist, unpack the sdist and run tests in it"
	@echo "make lowest     run tests with the lowest versions that pyproject.toml allows"
	@echo "make clean      remove what was built (distclean: and the environment)"

$(bin)/python:
	@python=$$(sh tools/find_python.sh "$(PYTHON)") || exit 1; \
	echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear "$(VENV)"

# Installed again only if pyproject.toml changed: an editable install follows the sources by itself.
$(installed): pyproject.toml | $(bin)/python
	@echo "Installing mmace_sim and its dependencies (PyTorch is large: some minutes the first time)"
	$(bin)/python -m pip install --quiet $(PIP_ARGS) -e ".[dev]"
	@touch $@

$(docs_installed): pyproject.toml $(installed)
	$(bin)/python -m pip install --quiet $(PIP_ARGS) -e ".[docs]"
	@touch $@

env: $(installed)

demo: $(installed)
	$(bin)/mmace-sim relax examples/structures examples/alloys --output $(DEMO_DIR) --force

# two at a time: the tests compute on one thread each; compiled modules are kept, since many tests start processes
test: $(installed)
	PYTHONDONTWRITEBYTECODE= $(bin)/python -m pytest -n 2 --dist loadfile

# long forms of tests that `make test` runs in a short one
stress: $(installed)
	$(bin)/python -m pytest -n 2 -m stress

# an embedded model from the data in examples/data, on one thread, and whether its weights are those of the package to the last bit:
# PyTorch and processor must be those of the card for that
MODEL ?= mmace-3d-pbe
model: $(installed)
	$(bin)/mmace-sim train examples/data/$(MODEL).yaml --threads 1 --device cpu --output build/model --force
	$(bin)/python tools/same_weights.py build/model/model.safetensors mmace_sim/models/$(MODEL).safetensors

# free DFT codes for `mmace-sim label`; minutes, and the tests skip what could not be installed
dft: $(installed)
	sh tools/install_dft.sh $(bin)/python
	$(bin)/python -m pytest -m dft -rs tests/test_label_engines.py

lint: $(installed)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format: $(installed)
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

# pages of docs/reference that follow from the code
reference: $(installed)
	$(bin)/python tools/reference_pages.py

docs: $(docs_installed)
	$(bin)/sphinx-build -nW --keep-going -b html docs docs/_build/html

# The tests of the unpacked sources run in their own tree: what is missing from MANIFEST.in fails here.
DIST_TESTS ?= tests/test_packaging.py tests/test_extras.py tests/test_imports.py tests/test_formats.py tests/test_plugins.py
dist: $(installed)
	rm -rf dist build/sdist
	$(bin)/python -m build --outdir dist .
	mkdir -p build/sdist
	tar -xzf dist/mmace_sim-*.tar.gz -C build/sdist --strip-components=1
	cd build/sdist && PYTHONPATH="$$PWD" "$(abspath $(bin))/python" -m pytest -n 2 --dist loadfile $(DIST_TESTS)

# Warnings of old versions are not ours to repair: here they are no errors.
LOWEST_TESTS ?= tests
LOWEST := build/lowest
# uv asks the first index that knows a package: of a CPU, it is told which PyTorch, as PIP_ARGS tells pip
uv_args := $(if $(findstring /whl/cpu,$(PIP_ARGS)),--torch-backend cpu)
lowest: pyproject.toml
	python=$$(sh tools/find_python.sh "$(PYTHON)") && "$$python" -m venv "$(LOWEST)"
	"$(LOWEST)/bin/python" -m pip install --quiet $(PIP_ARGS) uv
	"$(LOWEST)/bin/uv" pip compile --quiet $(uv_args) --resolution lowest-direct --extra test pyproject.toml -o "$(LOWEST)/lowest.txt"
	"$(LOWEST)/bin/uv" pip install --quiet $(uv_args) --python "$(LOWEST)/bin/python" -r "$(LOWEST)/lowest.txt"
	"$(LOWEST)/bin/uv" pip install --quiet --python "$(LOWEST)/bin/python" --no-deps -e .
	"$(LOWEST)/bin/python" -m pytest -n 2 --dist loadfile -W default $(LOWEST_TESTS)

clean:
	rm -rf build dist docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)"
