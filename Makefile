# The two commands: `make demo` and `make test`. Both do all set-up first and may be run again at any time.
BUILD := build/cpu
JOBS ?= $(shell nproc)
PYTHON := .venv/bin/python

.PHONY: demo test build build-all cuda setup check clean distclean

demo: build
	@echo "[demo] all-MiniLM-L6-v2 on two CPU ranks"
	@$(PYTHON) examples/minilm/demo.py --tandem $(BUILD)/bin/tandem --work build/demo

test: build-all
	@echo "[test] running the tests"
	@JOBS=$(JOBS) tools/run_tests.sh cpu

build: setup
	@echo "[build] the program tandem in $(BUILD)/bin"
	@cmake --preset cpu >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS) --target cli

build-all: setup
	@echo "[build] everything in $(BUILD)"
	@cmake --preset cpu >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)
	@$(PYTHON) tools/link_package.py $(BUILD)/python

# The same programs with GPUs as devices, in build/cuda; needs the CUDA toolkit (nvcc) from 12.8 on.
cuda: setup
	@$(PYTHON) tools/cuda_headers.py
	@echo "[cuda] everything in build/cuda"
	@cmake --preset cuda >build/cuda.log 2>&1 || { cat build/cuda.log; exit 1; }
	@cmake --build build/cuda -j $(JOBS)

setup:
	@tools/setup.sh
	@mkdir -p build

check: setup
	@$(PYTHON) tools/check_layers.py

clean:
	rm -rf build

distclean: clean
	rm -rf .venv .cache
