# Every target sets itself up from nothing. `make test ARGS="-k boundaries"` passes arguments on.

# The first interpreter that starts, is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo test lint check-cuda torture ci

help:
	@echo "make demo         the road end to end on a small budget: calibrate, plan, run, resume, report"
	@echo "make test         all tests"
	@echo "make lint         style, types, import contracts"
	@echo "make check-cuda   compile the CUDA kernels, without a GPU"
	@echo "make torture      1,200 kills of real trainings, resumed and compared bit for bit (a quarter of an hour)"
	@echo "make ci           lint, check-cuda and test, as a merge must pass them"

demo: .venv/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh

test: .venv/.ready
	@$(BIN)/python -m pytest $(ARGS)

lint: .venv/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# The CUDA kernels must compile to PTX: that needs the compiler from the package index, not a GPU. It has
# an environment of its own because numba-cuda replaces Numba's CUDA in every process.
check-cuda: .venv-cuda/.ready
	@.venv-cuda/bin/python -m pytest -q tests/traffic/physics/test_cuda.py -k compile

torture: .venv/.ready
	@$(BIN)/python scripts/torture.py $(ARGS)

ci:
	@.ci/run

# One stamp an environment: touched last, so a set-up that was cut short starts again.
.venv/.ready: EXTRAS := train,plot,dev
.venv-cuda/.ready: EXTRAS := cuda,dev
.venv/.ready .venv-cuda/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
		echo "error: no Python 3.11 or newer with the venv module was found (tried python3.11, python3)"; \
		echo "hint: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; } >&2
	@echo "setting up $(@D) with $(PYTHON) (once; minutes if the packages must be downloaded)"
	@$(PYTHON) -m venv $(@D)
	@PIP_CONSTRAINT=constraints.txt $(@D)/bin/python -m pip install -qq \
		--disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@
