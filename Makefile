# `make demo`, `make test`, and `make check` while working. All set up .venv first; a second call is instant.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
STORE ?= store

.PHONY: setup demo test check lint lock
setup: .venv/.ready

# uv installs the lock in parallel; where it cannot be had, pip does the same, slower. Every worker is a new process
# that imports torch and diffusers: from bytecode that is a third of the time, so it is made here, once.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("lmia needs Python 3.11 or later, found " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 || true
	{ [ -x $(BIN)/uv ] && UV_SYSTEM_CERTS=1 $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -r requirements.lock; } \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/lmia run quick --store $(STORE)

test: setup lint
	$(BIN)/pytest

# All tests but those with Ray, on two cores in minutes. Tests of one file stay together: they share what they made.
check: setup lint
	$(BIN)/pytest -m "not ray" -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff format --check lmia bench tests
	$(BIN)/ruff check lmia bench tests
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup
	echo "# Exact versions, tested together. Remade by: make lock" > requirements.lock
	UV_SYSTEM_CERTS=1 $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header \
	  | grep -v "== 'emscripten'" | sed "s/ ; sys_platform != 'emscripten'//" | sed 's/^opencv-python==/opencv-python-headless==/; s/^\(setuptools==[^ ]*\).*/\1/' >> requirements.lock
	echo wheel==0.48.0 >> requirements.lock
