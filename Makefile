# On a fresh Debian or Ubuntu with Python 3.11 or newer: `make demo` shows what this is, `make test` proves that it works.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test check soak bench docs clean

BIN := .venv/bin
READY := .venv/.ready
SCREEN := .ci/with-display
OUT ?= demo-result
REPEAT ?= 5
WORKERS ?= 2

help:  ## Say what can be made.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(READY): pyproject.toml .ci/setup
	.ci/setup
	@touch $@

demo: $(READY)  ## Train, predict and export on sample_data/, then show the result where there is a display.
	$(BIN)/napari-semiseg demo --out $(OUT)
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && [ -z "$$CI" ]; then $(BIN)/python examples/open_demo.py $(OUT); fi

test: $(READY)  ## Pass every test: the flow of the dock with PySide6 first, then everything with PyQt6.
	QT_API=pyside6 PYTEST_QT_API=pyside6 $(BIN)/pytest -q -m flow tests/plugin
	QT_API=pyqt6 PYTEST_QT_API=pyqt6 $(BIN)/pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: $(READY)  ## Lint, types, spelling, layers, manifest.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos
	$(BIN)/lint-imports --no-cache
	$(BIN)/npe2 validate src/napari_semiseg/napari.yaml

soak: $(READY)  ## Kill journal, training, napari, predictions and exports hundreds of times, repeat every fault test, and write benchmarks/results/soak.md.
	QT_API=pyqt6 PYTEST_QT_API=pyqt6 $(SCREEN) $(BIN)/python benchmarks/soak.py --repeat $(REPEAT) $(ARGS)

bench: $(READY)  ## Measure time and memory (asv), and write the figures to benchmarks/results/speed.md.
	$(BIN)/python benchmarks/measure.py

docs: $(READY)  ## Build the documentation into site/, strictly.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## Remove what was built; projects and results stay.
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .asv
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
