# make app: the app on http://127.0.0.1:7860. make test: lint, types, every test. make demo: the main job, no browser.
# Test files run in two processes, in pytest's order: the file that takes longest comes first.
# make test-gpu: what needs CUDA, and the bench. make test-faults: 30 minutes of mutated inputs and requests; runs,
# imports and apps killed 210 times at random moments, and a study 20 times.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
BROWSER := $(VENV)/browser

# Two test processes share the cores with the runs that they start: a thread that waits must not keep a core busy.
test test-faults test-quick: export OMP_WAIT_POLICY = passive

.PHONY: app demo install test test-faults test-gpu test-quick

app: install
	$(BIN)/hydralora-app

demo: install
	$(BIN)/hydralora demo

install: $(STAMP) $(VENV)/model

test: install $(BROWSER)
	tests/find_slurm || true  # without it, the tests on a cluster are skipped
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not browser" --numprocesses 2 --dist loadfile --no-loadscope-reorder
	HYDRALORA_BROWSER="$$(cat $(BROWSER))" $(BIN)/pytest -m browser --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-faults: install
	HYDRALORA_FUZZ_SECONDS=1200 HYDRALORA_SEED=$$(date +%s) $(BIN)/pytest tests/fuzz
	HYDRALORA_KILLS=70 HYDRALORA_SEED=$$(date +%s) $(BIN)/pytest --timeout 5400 tests/engine/runs/test_faults.py tests/engine/runs/test_kills.py
	HYDRALORA_KILLS=20 HYDRALORA_SEED=$$(date +%s) $(BIN)/pytest --timeout 5400 tests/engine/experiments/test_study_runs.py

test-gpu: install
	$(BIN)/pytest -m gpu
	$(BIN)/hydralora bench

test-quick: install
	$(BIN)/pytest -m "not slow and not browser" --numprocesses 2 --dist loadfile --no-loadscope-reorder

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/model: $(STAMP)
	$(BIN)/hydralora models --fetch default
	touch $@

# A browser on PATH, else Debian's package where we are root, else Playwright's own download.
$(BROWSER): $(STAMP)
	tests/find_browser $(BIN) > $@.tmp
	mv $@.tmp $@
