# Every target sets up what it needs; `make help` lists them.
# Variables: PYTHON (interpreter the environment is made from), ARGS (more arguments for the command a target runs),
# VENV (folder of the environment), EXTRAS (optional parts to install), TESTERS (processes that run tests).
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
ARGS ?=
TESTERS ?= 2

BIN := $(VENV)/bin
PACKAGES := $(VENV)/.packages-installed
RUNS := runs/openvla-ppo/execution-builtin runs/openvla-sft/execution-builtin

.DEFAULT_GOAL := help
.PHONY: help setup vulkan eval test test-tools test-ecosystem bench gallery results docs doctor lint clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(PACKAGES) vulkan  ## Prepare .venv and a Vulkan driver, nothing else

eval: setup  ## The main job: PPO against SFT on the execution suite (ARGS="--episodes 16" for a quick look)
	$(BIN)/vgb eval --policy openvla-ppo --suite execution --num-envs 8 $(ARGS)
	$(BIN)/vgb eval --policy openvla-sft --suite execution --num-envs 8 $(ARGS)
	$(BIN)/vgb report $(RUNS) --baseline openvla-sft --plots runs/execution-plots
	@echo "Next: every episode on a page   $(BIN)/vgb report $(RUNS) --out report.html"
	@echo "      another suite             $(BIN)/vgb eval --policy openvla-ppo --suite vision --episodes 16"
	@echo "      a policy of your own      policies/README.md"

test: setup test-tools  ## Run the tests
	$(BIN)/python -m pytest -q -n $(TESTERS) --dist loadfile $(ARGS)

# What some tests need and most machines lack. Where it cannot be had, those tests skip and name it.
test-tools: $(PACKAGES)
	@sh tools/install-chromium.sh
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("wordllama") is None)' || \
	  $(BIN)/python -m pip install --quiet --no-deps --only-binary :all: wordllama==0.4.0.post1 2>/dev/null || \
	  echo "no package with the Llama-2 tokenizer: its test skips" >&2

test-ecosystem: setup  ## Install other projects' packages in environments of their own and test against them
	$(BIN)/python tools/ecosystem.py
	$(BIN)/python -m pytest -q -rs tests/policies/remote/test_ecosystem.py $(ARGS)

references: setup  ## Train the reference policies from nothing, resumably: hours (ARGS=base: only so far; SEEDS="0 1 2")
	VGB=$(BIN)/vgb sh tools/references.sh $(ARGS)

bench: setup  ## Measure against the targets; prints a table, writes JSON
	$(BIN)/vgb bench $(ARGS)

gallery: setup  ## Draw the contact sheets of the suites
	$(BIN)/vgb gallery $(ARGS)

results: $(PACKAGES)  ## Write the pages of results, and the results in README and cards, from the committed logs
	$(BIN)/python tools/make_results.py

docs: $(PACKAGES)  ## Build the documentation site into build/site
	@$(BIN)/python -c 'import mkdocs, mkdocstrings' 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open build/site/index.html, or serve it: $(BIN)/python -m http.server --directory build/site --bind 127.0.0.1"

doctor: $(PACKAGES)  ## Show what this machine can run
	$(BIN)/vgb doctor $(ARGS)

lint: $(PACKAGES)  ## Check style with ruff and the public API's types with pyright (make setup EXTRAS=test,lint)
	@if [ -x $(BIN)/ruff ] && [ -x $(BIN)/pyright ]; then $(BIN)/ruff check . && $(BIN)/pyright --pythonpath $(BIN)/python; \
	else echo "ruff or pyright is not installed: make setup EXTRAS=test,lint" >&2; exit 2; fi

clean:  ## Remove what the build and the tests left; keeps .venv and results
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Installed anew when a version range, a pin or the wanted extras change, or the environment last served another checkout.
ifneq ($(shell cat $(PACKAGES) 2>/dev/null),$(CURDIR))
.PHONY: $(PACKAGES)
endif
$(PACKAGES): setup.cfg pyproject.toml constraints.txt $(VENV)/.extras-$(EXTRAS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@echo '$(CURDIR)' > $@

$(VENV)/.extras-$(EXTRAS): | $(BIN)/python
	@rm -f $(VENV)/.extras-*
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.10 to 3.12 (Debian: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), 3.10 to 3.12 is needed (mani_skill needs mplib 0.1.1, which has no build for a newer one): make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Tried every time, not stamped: an environment may outlive the machine's driver. Takes under a second.
PROBE = $(BIN)/python -m vla_gen_bench.doctor.probe render

vulkan: $(PACKAGES)
	@answer=$$($(PROBE)) || { echo "cannot render: $$answer" >&2; sh tools/install-vulkan.sh && \
	  { answer=$$($(PROBE)) || sh tools/install-vulkan.sh --advise "what apt-get offers does not render: $$answer"; }; }
