# `make demo` and `make test` are all a newcomer needs: each sets up .venv by itself, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo walkthrough test test-all test-python triton-test fuzz kills lint gpu-check needle extrapolation manpages box figures reproduce lock clean

demo: $(READY)
	$(BIN)/python -m examples.demo

walkthrough: $(READY)
	$(BIN)/python -m examples.walkthrough

test: $(READY)
	$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-all: $(READY)  # the slow tests too, and every command in an interpreter of its own
	LSG_TEST_FRESH=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m ""

# The suite on another Python, in an environment of its own: make test-python PYTHON=python3.13
test-python:
	$(MAKE) test VENV=.venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# The GPU kernels without a GPU: numbers in Triton's interpreter, sizes by its compiler.
triton-test: $(VENV)/.triton
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -n 2 tests/test_triton.py
	OMP_NUM_THREADS=1 TRITON_COMPILE=1 $(BIN)/python -m pytest -n 2 tests/test_triton_targets.py

fuzz: $(READY)  # mutated inputs; FUZZ_CASES and FUZZ_SEED choose how many and which
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py -m "" -s

kills: $(READY)  # kills at random moments; KILLS says how many a command
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_kills.py -m "" -s

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu_check

needle: $(READY)
	$(BIN)/python -m benchmarks.needle

extrapolation: $(READY)
	$(BIN)/python -m benchmarks.extrapolation

# Hours on two cores; interrupt it as you like, and the same command goes on. The order of these rules is that of the data.
MANPAGES := manpages-run
TRAINED := $(MANPAGES)/model-long/checkpoint_last.pt
SUMMARIZERS := --model $(MANPAGES)/box --short-model $(MANPAGES)/model-mixture/checkpoint_last.pt
TRAINING_LOGS := $(foreach stage,descriptions openings mixture long,$(MANPAGES)/model-$(stage)/train.log)
$(MANPAGES)/train.jsonl: | $(READY)
	$(BIN)/python scripts/prepare_manpages.py --out $(MANPAGES)
$(MANPAGES)/descriptions_train.jsonl: $(MANPAGES)/train.jsonl
	$(BIN)/python -m examples.manpages.descriptions.prepare --out $(MANPAGES)
$(MANPAGES)/baselines.json: $(MANPAGES)/train.jsonl
	$(BIN)/python -m examples.manpages.evaluation.baselines --data $(MANPAGES)
manpages: $(READY) $(MANPAGES)/descriptions_train.jsonl $(MANPAGES)/baselines.json
	$(BIN)/python -m examples.manpages.training.train --data $(MANPAGES)
	$(BIN)/python -m examples.manpages.box.pack --data $(MANPAGES) --model $(TRAINED) --tokenizer $(MANPAGES)/start/lsg/tokenizer
	$(BIN)/python -m examples.manpages.evaluation.results --data $(MANPAGES) $(SUMMARIZERS) --tokenizer $(MANPAGES)/start/lsg/tokenizer
	$(BIN)/python -m examples.manpages.training.curves --logs $(TRAINING_LOGS)

# What make manpages made, into the package.
box: $(READY)
	$(BIN)/python -m examples.manpages.box.put --data $(MANPAGES)

# Needs a network: published weights and test sets. REPRODUCE has flags, such as --only lsg_bart_base_4096_arxiv --every 100
reproduce: $(READY)
	$(BIN)/python -m benchmarks.reproduce $(REPRODUCE)

figures: $(READY)
	$(BIN)/python -m benchmarks.draw_attention_patterns

# First the lock file, every file of it checked by its hash: torch's own requirements on a CPU are in it. --no-deps leaves
# torchaudio out (see lock.in). Then torch by name, which takes the CPU build where pip is configured for one. No hash is
# known for torch, for NVIDIA's libraries where it is a CUDA build (it does not load without them), and for the
# setuptools with which pip builds antlr4-python3-runtime and rouge-score. On Python 3.13 fairseq is compiled last, with
# what is there by then (compiled.txt). `pip install .` pins little: fairseq alone.
$(READY): setup.py requirements/lock.txt requirements/compiled.txt
	@echo "Setting up $(VENV): about a minute (on Python 3.13 about ten, as fairseq is compiled), once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/lock.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps torch==2.13.0
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --require-hashes -r requirements/compiled.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# torch's CUDA builds bring it along; beside a CPU build it serves `make triton-test` alone.
$(VENV)/.triton: requirements/triton.txt $(READY)
	@echo "Installing triton into $(VENV): 700 MB, once"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/triton.txt
	@touch $@

# Needs pip-tools.
lock:
	$(PYTHON) requirements/make_lock.py

clean:
	rm -rf $(VENV) .venv-* build *.egg-info walkthrough-run needle-run extrapolation-run manpages-run reproduce-run
