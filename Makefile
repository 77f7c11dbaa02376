.PHONY: demo test test-slow lint format bench clean
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

# everything runs on the two cores there are; a caller may say otherwise
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

bench: $(STAMP)
	$(BIN)/python -m benchmarks

$(STAMP): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $(STAMP)

clean:
	rm -rf .venv runs
