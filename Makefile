# `make book` and `make test` are all that a newcomer types. Each makes .venv first.
PYTHON ?= python3
PY     := .venv/bin/python
STAMP  := .venv/installed
PORT   ?= 8000
NAME   ?=
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help book test test-slow smoke serve chapter zip lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

book: $(STAMP) ## execute the chapters and build the book into _build/html
	@$(PY) -m pqlib book build

test: smoke ## run the tests (brings the smoke book up to date first)
	@$(PY) -m pytest -n 2 --dist loadfile

test-slow: smoke ## run the tests, the slow ones too
	@$(PY) -m pytest -n 2 --dist loadfile -m "slow or not slow"

smoke: $(STAMP)
	@$(PY) -m pqlib book build --profile smoke

chapter: $(STAMP) ## re-run one chapter: make chapter NAME=distribution_error ARGS="-p n_bits 3"
	@$(PY) -m pqlib book run $(NAME) $(ARGS)

serve: book ## build, then serve the book on this machine (PORT=8000)
	@$(PY) -m pqlib book serve --port $(PORT)

zip: book ## build, then pack the book into _build/pqlib-book.zip
	@$(PY) -m pqlib book zip

lint: $(STAMP) ## check style, format, and that no notebook carries outputs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pqlib book check

clean: ## remove _build and caches (keeps .venv, and what is in runs)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

# Installed once, and again only when the pins change. The build tool is pinned by the same
# file: older pip reads PIP_CONSTRAINT when it builds, newer pip PIP_BUILD_CONSTRAINT.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 $@"; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  $(PY) -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[training,bounds,book,test]"
	@touch $(STAMP)
