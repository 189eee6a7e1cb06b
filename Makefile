# Needs make and Python 3.11 to 3.13; everything else is installed into .venv (about 7 GB with torch).
PYTHON ?= python3
# The environment may live elsewhere, so that several checkouts share one.
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
STAMP = $(VENV)/.installed-$(shell cat pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: help install demo test test-all lint docs clean

help:
	@echo "make demo      install, run active learning on generated images, show the learning curve"
	@echo "make test      install, lints, types and the test suite"
	@echo "make test-all  the slow and real tests besides"
	@echo "make docs      the documentation site, in site/"
	@echo "make clean     remove the environment and caches"

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "alseg needs Python 3.11 to 3.13: make PYTHON=python3.12 ..." >&2; exit 1; }
	@# an installation that was broken off leaves no stamp: start it afresh
	@ls $(VENV)/.installed-* >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: install
	$(BIN)/alseg run

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	@# a file's tests go to one process, which makes what they share once
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -m slow

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf site .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
