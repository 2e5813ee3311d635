# `make lab` opens the course, `make test` proves it. Python 3.11-3.13 and make are all it needs.
PYTHON ?= python3
ARGS ?=
REPO ?=
VENV := .venv
BIN := $(VENV)/bin
COLAB_PYTHON = $(shell python3.13 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
OFFLINE := PYTHONPATH=$(CURDIR)/tests/offline

.PHONY: lab test unit notebooks lessons new-lesson bench images data weights colab test-colab clean

lab: $(VENV)/.lab  ## open the course in JupyterLab; ARGS="--no-browser --port=8899" is passed on
	$(BIN)/jupyter lab $(ARGS) notebooks/00_start_here.ipynb

test: $(VENV)/.test  ## everything that proves the course: style, types, unit tests, notebooks, browser
	$(BIN)/python scripts/run_tests.py

unit: $(VENV)/.test  ## the fast part
	$(BIN)/python scripts/run_tests.py --fast

notebooks: $(VENV)/.test  ## execute notebooks and save them with outputs; NB="notebooks/01*.ipynb" picks some
	$(OFFLINE) $(BIN)/python scripts/run_notebooks.py $(NB)

lessons: $(VENV)/.test  ## write the table of lessons into README, notebook 00 and the map; shown sources into all notebooks
	$(BIN)/python scripts/stamp_lessons.py
	$(BIN)/python scripts/stamp_sources.py
	$(BIN)/python scripts/build_images.py lesson_map

new-lesson: $(VENV)/.test  ## begin a lesson: make new-lesson NAME=my_topic TITLE="My topic" QUESTION="What is it?"
	PYTHONPATH=tests/offline $(BIN)/python scripts/new_lesson.py "$(NAME)" --title "$(TITLE)" --question "$(QUESTION)"

bench: $(VENV)/.test  ## time the modules beside torch's, print ratios: make bench ARGS="norms --repeats 21"
	$(BIN)/python -m benchmarks $(ARGS)

images: $(VENV)/.test  ## draw the pictures of README and docs again
	$(BIN)/python scripts/build_images.py

weights: $(VENV)/.test  ## train the shipped weights again, by the recorded studies that they belong to
	$(BIN)/python scripts/build_weights.py

data: $(VENV)/.test  ## make the files of data/ again from their packages (needs a network and Debian's apt)
	$(INSTALL) -e ".[test,data]"
	$(BIN)/python scripts/build_data.py

colab: $(VENV)/.test  ## write the repository's address into badges and set-up cells: make colab REPO=owner/name
	$(BIN)/python scripts/stamp_colab.py $(REPO)

test-colab: $(VENV)/.test  ## notebooks and unit tests on Google Colab's versions (COLAB_PYTHON=python3.13)
	$(BIN)/python scripts/imitate_colab.py --python $(COLAB_PYTHON) $(ARGS)

clean:  ## remove the virtual environments and caches
	rm -rf $(VENV) .venv-colab .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"Python {v[0]}.{v[1]} is not supported: 3.11, 3.12 or 3.13 is needed (make lab PYTHON=python3.12)")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[lab]"
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[test]"
	@touch $@
