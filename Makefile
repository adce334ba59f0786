# Everything runs in a virtual environment of the project's own; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
CONTRACT := $(addprefix tests/test_,base_models.py variants.py twins.py global_draws.py few_steps.py own_families.py)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMFYUI_PYTHON ?= $(BIN)/python
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)
export HF_HUB_OFFLINE ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo web test test-slow test-web test-oldest test-comfyui lint format docs experiments tables experiments-quick report benchmarks bundled clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the pinned versions (skipped while nothing changed)

$(READY): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1); use make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# Without torchvision, which must be of the same build as torch, and which the tested models do not need.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps spandrel
	@touch $@

demo: $(READY) ## Make outputs/demo.png: base, direct and self-cascade at 4x and 16x the pixels
	$(BIN)/python -m selfcascade.demo

web: $(READY) ## Serve the page on http://127.0.0.1:7860
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[web]'
	$(BIN)/selfcascade web

test: lint ## Lint, check types, run the tests on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(READY) ## Run the tests that take long
	$(BIN)/python -m pytest -m slow

test-web: $(READY) ## Test the page's server, and the page in a headless Chromium that is installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[web,test-web]'
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/test_web_server.py tests/test_web_browser.py -m "browser or not browser"

test-oldest: ## Run the contract tests with the oldest versions that pyproject.toml allows
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[lora,video,schedulers]' pytest hypothesis sentencepiece
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest $(CONTRACT)

test-comfyui: $(READY) ## Check the ComfyUI nodes on a checkout: COMFYUI_PATH=DIR, COMFYUI_PYTHON=its python
	@test -f "$(COMFYUI_PATH)/main.py" || { echo "COMFYUI_PATH must be a folder with ComfyUI in it, not '$(COMFYUI_PATH)'"; exit 2; }
	@$(COMFYUI_PYTHON) -c 'import aiohttp, peft, pytest, torchsde' || \
	  { echo "COMFYUI_PYTHON must be the python that runs ComfyUI, with pytest and peft installed too, not '$(COMFYUI_PYTHON)'"; exit 2; }
	PYTHONPATH=src $(COMFYUI_PYTHON) -m pytest $(addprefix tests/test_comfyui_,checkout.py controlnet.py families.py)

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY) ## Put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation site, build/site; warnings are errors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html --conf-dir docs . build/site
	@echo build/site/index.html

experiments: $(READY) ## Make the missing results of all experiment suites (hours; resumable)
	for suite in training-curves tuning-free table3 ablation levers; do $(BIN)/selfcascade evaluate experiments/$$suite || exit; done
	$(BIN)/selfcascade evaluate experiments/learning-rates --split tuning
	$(BIN)/python experiments/designs.py micro-designs
	$(BIN)/python experiments/designs.py full-designs
	$(BIN)/python experiments/curves.py
	$(BIN)/python experiments/levers.py

tables: $(READY) ## Make the results on test captions, once validation is there, and the report from them (hours)
	for suite in table1 table2 ratios truth-4x presets-4x presets-16x; do $(BIN)/selfcascade evaluate experiments/$$suite --split test || exit; done
	$(BIN)/selfcascade report --costs benchmarks/methods.json

experiments-quick: $(READY) ## Table 1 with ten pictures a method, into outputs/quick (minutes)
	$(BIN)/selfcascade evaluate experiments/table1 --seed 0 --pictures 10 --real-pictures 100 --output outputs/quick
	$(BIN)/selfcascade report outputs/quick --output outputs/quick/report

report: $(READY) benchmarks/methods.json ## Write docs/results from the results there are
	$(BIN)/selfcascade report --costs benchmarks/methods.json

# What the report says of costs, measured where it is missing.
benchmarks/methods.json: | $(READY)
	$(BIN)/python benchmarks/methods.py

benchmarks: $(READY) ## Measure costs again: benchmarks/*.md
	$(BIN)/python benchmarks/flops.py
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/turns.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/seams.py
	$(BIN)/python benchmarks/seconds.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/planner.py
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/clip_decoding.py

bundled: $(READY) ## Train the bundled models again (hours; resumable; runs/bundled holds logs)
	cd recipes/bundled && SELFCASCADE_RUNS=$(CURDIR)/runs/bundled sh recipe.sh ../../$(BIN)

clean: ## Remove what make made, the trained runs excepted
	rm -rf $(VENV) $(OLDEST) outputs build/site .pytest_cache .ruff_cache
