.PHONY: demo test test-slow lint format bench clean
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

export PIP_CONSTRAINT = $(CURDIR)/constraints.txt

demo: $(STAMP)
	$(BIN)/python recipes/demo.py --run runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# nothing else may run on the cores; about three hours in all, and an interrupted one goes on where it stopped
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.solver_overhead
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.quality_per_minute
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.measure_speed
	$(BIN)/python -m pip download --quiet --no-deps --dest .venv/peers torch-fidelity==0.4.0
	$(BIN)/python -m benchmarks.inception_peer .venv/peers/torch_fidelity-0.4.0-py3-none-any.whl
	$(BIN)/python -m benchmarks.sources
	$(BIN)/python -m benchmarks.planted_faults
	$(BIN)/python -m benchmarks.planted_faults --speed
	$(BIN)/python -m benchmarks.planted_text
	$(BIN)/python -m benchmarks.data_matters imbalance
	$(BIN)/python -m benchmarks.data_matters clean
	$(BIN)/python -m benchmarks.data_matters collapse
	$(BIN)/python -m benchmarks.canvas_oracle
	$(BIN)/python -m benchmarks.policy
	$(BIN)/python -m benchmarks.tables

$(STAMP): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(STAMP)

clean:
	rm -rf .venv runs
