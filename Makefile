# `make` alone lists ten targets, `make help-all` every one; MAINTAINING.md says more of each.
# Everything happens in one environment, $(VENV), made on first use.
PYTHON ?= python3
VENV ?= .venv
# Which build of torch, asked only when the environment is made:
#   make book             what PyPI offers (on Linux: with CUDA, several GB)
#   make book TORCH=cpu   the CPU build from PyTorch's own index (also cu126, cu128, ...: see pytorch.org/get-started)
TORCH ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))
TORCH_LOCKED := 2.13.0
# From pyproject.toml to pinned versions; without what torch's CUDA build brings, which TORCH= decides.
COMPILE := echo "torch==$(TORCH_LOCKED)" | $(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --no-emit-package torch --constraint - pyproject.toml
NO_CUDA := awk '/^[a-z]/ {kept = !/^(nvidia-|cuda-|triton)/} kept'
# Processes that share the rows of `make experiments`, and the cores.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help help-all env book zip pdf linkcheck number address picture test equations test-fast test-browser lowest coverage mutants faults fuzz scores benchmark experiments claims scoreboard model record lab lint format lock audit clean distclean

# Prints target and text of each line with ##: all of them, or those whose text begins with a group in [].
LIST = awk -F ':.*\#\# ' '/^[a-z-]+:.*\#\# $(1)/ {sub(/^\[[a-z]+\] /, "", $$2); printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

help:  ## list ten targets
	@echo "Use";      $(call LIST,\[use\])
	@echo "Write";    $(call LIST,\[write\])
	@echo "Maintain"; $(call LIST,\[maintain\])
	@echo "All targets: make help-all, and MAINTAINING.md."

help-all:  ## list all targets
	@$(call LIST)

env: $(STAMP)  ## make the environment and nothing else

$(STAMP): pyproject.toml lock.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python has no venv module: install it first (Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Making the environment in $(VENV) (some minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement lock.txt
	@$(BIN)/python -m pip install --quiet $(TORCH_INDEX) torch==$(TORCH_LOCKED)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check >/dev/null || $(BIN)/python -m pip check
	@touch $@

book: $(STAMP)  ## [use] run every chapter and build the pages into _build/html
	$(BIN)/python tools/book.py build

zip: book  ## the pages as one file that opens from disk: _build/diffusion-on-wavelets.zip
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/diffusion-on-wavelets', 'zip', '_build', 'html')"

number: $(STAMP)  ## [write] number chapters, equations and links by the order in _toc.yml (`make book` does it too)
	$(BIN)/python tools/book.py number

address: $(STAMP)  ## write the book's public address, from _config.yml, into the chapters' first cells
	$(BIN)/python tools/book.py address

picture: $(STAMP)  ## draw the picture of the README: assets/noise_to_wavelet.svg
	$(BIN)/python tools/picture.py

pdf: book  ## the pages as one PDF, printed by Chromium: _build/diffusion-on-wavelets.pdf
	$(BIN)/python tools/pdf.py

linkcheck: $(STAMP)  ## check every external link of the book (needs a network)
	BOOK_EXECUTE=off $(BIN)/jupyter-book build --builder linkcheck --path-output _build/linkcheck .

test: $(STAMP)  ## [use] all tests: library, doctests, every cell of every chapter, pages in a browser
	$(BIN)/python -m pytest --nbval -m "not browser"
	$(MAKE) test-browser

equations: $(STAMP)  ## [use] check the report's 52 equations; prints a summary
	$(BIN)/python -m ddpm_lib.equations

test-fast: $(STAMP)  ## [maintain] the tests of the library alone, about a minute
	OMP_NUM_THREADS=1 SHAPES=off $(BIN)/python -m pytest tests ddpm_lib -m "not browser and not slow" -n auto

test-browser: $(STAMP)  ## the tests of the built pages alone
	$(BIN)/python -m pytest $$(grep -rl --include='test_*.py' mark.browser tests) -m browser -n auto --maxprocesses 4 -rP

lowest: $(STAMP)  ## the tests of the library with the lowest versions that pyproject.toml allows (not of torch); Python 3.11
	mkdir -p _build
	$(COMPILE) --upgrade --resolution lowest-direct --extra book --extra parquet --extra test --output-file _build/lowest.in
	$(NO_CUDA) _build/lowest.in > _build/lowest.txt
	$(PYTHON) -m venv --clear _build/lowest
	_build/lowest/bin/pip install --quiet --no-deps --requirement _build/lowest.txt
	_build/lowest/bin/pip install --quiet $(TORCH_INDEX) torch==$(TORCH_LOCKED)
	_build/lowest/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	_build/lowest/bin/python -m pytest tests ddpm_lib -m "not browser and not slow"

coverage: $(STAMP)  ## which lines and branches of the library the tests reach; fails below 95 %
	$(BIN)/python -m coverage run -m pytest tests ddpm_lib -m "not browser" -q
	$(BIN)/python -m coverage report

mutants: $(STAMP)  ## change the central files in every small way and count the changes that the tests notice; resumes if stopped
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/python tools/mutants.py

faults: $(STAMP)  ## kill a training run 60 times and resume it bit for bit; resumes if stopped; prints a summary
	$(BIN)/python tools/faults.py

fuzz: $(STAMP)  ## hostile input for everything public, thousands of cases; prints a summary
	FUZZ=long $(BIN)/python -m pytest tests/test_fuzz.py -q

scores: $(STAMP)  ## measure the model in the package: one JSON line
	$(BIN)/python tools/scores.py

benchmark: $(STAMP)  ## train and sample this library and others side by side: a table and a figure; resumes if stopped
	$(BIN)/python -m pip install --quiet --no-deps denoising-diffusion-pytorch
	$(BIN)/python benchmarks/compare.py

experiments: $(STAMP)  ## train what the tables of the chapters lack, hours; resumes if stopped (RUN="models" only one)
	$(BIN)/python -m experiments $(RUN) --jobs $(JOBS)

claims: $(STAMP)  ## compare each sentence that claims a difference with its table; prints a summary
	$(BIN)/python -m experiments.claims

scoreboard: $(STAMP)  ## every method of the book on the benchmark family, one row each
	$(BIN)/python -m experiments.scoreboard

model: $(STAMP)  ## train the model in the package again, and write its card
	$(BIN)/python tools/scores.py --train

record: $(STAMP)  ## [write] run chapters and store their outputs (some only: make record CHAPTERS="forward training")
	$(BIN)/python tools/book.py record $(CHAPTERS)

lab: $(STAMP)  ## [use] open the chapters in JupyterLab
	$(BIN)/jupyter lab chapters

lint: $(STAMP)  ## [maintain] check style, imports and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## [write] put code and chapters into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## compile lock.txt again from pyproject.toml (after make env)
	$(COMPILE) --universal --upgrade --all-extras --generate-hashes --output-file lock.new
	{ echo "# Compiled by 'make lock' from pyproject.toml. Not in it: torch, which is chosen by TORCH=, and what its CUDA build brings."; \
	  $(NO_CUDA) lock.new; } > lock.txt
	rm lock.new

audit: $(STAMP)  ## ask PyPI for known vulnerabilities in what an installation without extras brings
	mkdir -p _build
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --constraint lock.txt pyproject.toml \
	  --output-file _build/runtime.txt
	$(BIN)/uv tool run pip-audit --strict --requirement _build/runtime.txt --no-deps --disable-pip

clean:  ## [maintain] remove _build: the pages, the kept runs of the chapters, the trained models
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean  ## remove the environment as well
	rm -rf $(VENV)
