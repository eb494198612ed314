# make quickstart   set up, train teacher, baseline and RadOcc student on the synthetic world, print the table
# make keyframe     run the real nuScenes keyframe through every stage
# make test         set up and run the tests
# make lint, docs   check style, types and spelling; build the site in work_dirs/site
# make test-versions   other versions of Python and packages, ROWS="numpy2 oldest ..." for some
# make setup        the environment of the quickstart; SET=full: of the tests; MMCV=compiled: with mmcv's ops
VENV ?= .venv
export VENV
export SET MMCV
PY := $(VENV)/bin/python
OUT ?= work_dirs/quickstart
RADOCC_SHARED ?= ../shared
# Spinning threads cost more than they gain where processes share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
export RADOCC_SHARED

.PHONY: setup setup-full quickstart keyframe test test-versions lint docs api doctor clean

setup:
	@bash tools/setup_env.sh

setup-full:
	@SET=full bash tools/setup_env.sh

doctor: setup
	@$(PY) -m radocc_plugin.doctor

quickstart: setup
	@$(PY) tools/reproduce_table.py quickstart --work-dir $(OUT) --shared $(RADOCC_SHARED)

keyframe: setup
	@$(PY) tools/reproduce_table.py quickstart --work-dir $(OUT) --shared $(RADOCC_SHARED) --only keyframe

test: setup-full
	@$(PY) -m pytest -n 2 --dist loadgroup -q

lint: setup-full
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .
	@$(PY) -m mypy
	@$(VENV)/bin/codespell

docs: setup-full
	@$(PY) -m mkdocs build -q

test-versions:
	@bash tests/versions.sh $(ROWS)

api: setup-full
	@$(PY) tests/test_public_api.py

clean:
	rm -rf work_dirs data/synthetic
