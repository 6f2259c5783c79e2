# Two commands do everything on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
# CLUSTER=current uses the kubeconfig's context instead of a local cluster.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOCKS := requirements/dev.txt requirements/operator.txt requirements/trainer.txt
COMPILE := uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11
# `local_cluster env` prints exports: kubeconfig, PATH with kubectl and helm, image names.
IN_CLUSTER := eval "$$($(PYTHON) -m local_cluster env)" && export PATH="$(CURDIR)/$(VENV)/bin:$$PATH" &&

.PHONY: help
help: ## List the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(STAMP): requirements/dev.txt operator/pyproject.toml trainer_image/pyproject.toml cuda_kernels/pyproject.toml scripts/setup
	@scripts/setup $(VENV)
	@touch $@

.PHONY: setup
setup: $(STAMP) ## Make the Python environment in .venv.

.PHONY: up
up: $(STAMP) ## Start the local cluster, or mend it.
	@$(PYTHON) -m local_cluster up

.PHONY: down
down: $(STAMP) ## End the local cluster; what was built stays cached.
	@$(PYTHON) -m local_cluster down

.PHONY: demo
demo: up ## Train real digits in real pods, serve them, ask held-out ones. EXAMPLE=reviews for the other example.
	@$(IN_CLUSTER) $(PYTHON) examples/demo.py $(or $(EXAMPLE),digits)

.PHONY: test
test: $(STAMP) ## Everything: unit, API server, end to end.
	@# On a cold cache, programs and images are built beside the unit tests, which need neither.
	@setsid $(PYTHON) -m local_cluster prepare & prepare=$$!; \
	trap 'kill -- -$$prepare 2>/dev/null || true' EXIT; \
	$(PYTHON) -m pytest --numprocesses 2 --no-loadscope-reorder $(PYTEST_FLAGS)

.PHONY: test-quick
test-quick: $(STAMP) ## Unit tests alone: no cluster, under a minute or two.
	@$(PYTHON) -m pytest -m 'not apiserver and not e2e' $(PYTEST_FLAGS)

.PHONY: kernels
kernels: $(STAMP) ## Build the wheel of the CUDA kernels; no GPU needed. Prints its path.
	@PYTHON=$(CURDIR)/$(PYTHON) scripts/kernels build

.PHONY: check-kernels
check-kernels: $(STAMP) ## That wheel builds, loads, has code for every GPU, and spills no register.
	@PYTHON=$(CURDIR)/$(PYTHON) scripts/kernels inspect $(PYTEST_FLAGS)

.PHONY: test-kernels
test-kernels: $(STAMP) ## That wheel under the oldest and the newest torch; gigabytes on a cold cache.
	@PYTHON=$(CURDIR)/$(PYTHON) scripts/kernels test $(PYTEST_FLAGS)

.PHONY: check
check: $(STAMP) ## Linters, types, layers, generated files.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) -m datahall.api.crds --check
	$(PYTHON) -m datahall.api.reference --check

.PHONY: generate
generate: $(STAMP) ## Write what is generated: CRDs, the chart's copies, the API reference.
	$(PYTHON) -m datahall.api.crds --write
	$(PYTHON) -m datahall.api.reference --write

.PHONY: bench-control
bench-control: $(STAMP) ## Jobs per second of the operator, as one JSON object.
	@$(PYTHON) -m bench.control

.PHONY: bench-packing
bench-packing: $(STAMP) ## How full a hall gets, beside the published rules. TRACES="default gpuspec33" SEEDS=10.
	@$(PYTHON) -m bench.packing $(if $(TRACES),--traces "$(TRACES)") $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: bench-admission
bench-admission: $(STAMP) ## The peers' own sets: SET=kueue-baseline, kai-fill, ...; SCALE=0.1, PODS=1, CONTROL=1 for kube-scheduler alone.
	@$(PYTHON) -m bench.admission --set "$(SET)" $(if $(SCALE),--scale $(SCALE)) $(if $(PODS),--pods) $(if $(CONTROL),--control)

.PHONY: bench-kernels
bench-kernels: $(STAMP) ## Speed of the CUDA kernels beside torch and its peers. ONLY="rms_norm" for some, KEEP=1 to keep the result.
	@PYTHONPATH=cuda_kernels/bench $(PYTHON) -m kernel_bench $(if $(ONLY),--only "$(ONLY)") $(if $(KEEP),--keep)

.PHONY: kernels-table
kernels-table: $(STAMP) ## Write the table of cuda_kernels/bench/README.md anew, from its results.
	@PYTHONPATH=cuda_kernels/bench $(PYTHON) -m kernel_bench.table

.PHONY: kernel-errors
kernel-errors: $(STAMP) ## Errors of the kernels, run on the CPU, and of torch's own ops against float64, as JSON lines.
	@$(PYTHON) -m pytest -q -s tests/kernels/bindings/test_errors.py | grep '^{'

.PHONY: bench-planner
bench-planner: $(STAMP) ## How long the planner takes, case by case. ONLY="preemption" for some of the cases.
	@$(PYTHON) -m bench.planner $(if $(ONLY),--only "$(ONLY)")

.PHONY: lock
lock: ## Resolve the pinned requirements anew (hashes, no addresses).
	$(COMPILE) -o requirements/dev.txt --extra operator operator/pyproject.toml trainer_image/pyproject.toml requirements/dev.in
	$(COMPILE) -o requirements/operator.txt -c requirements/dev.txt --extra operator operator/pyproject.toml
	$(COMPILE) --no-deps -o requirements/kernels-build.txt requirements/kernels-build.in
	for torch in 2.11 2.15; do \
		echo torch==$$torch.0 | $(COMPILE) -o requirements/kernels-torch-$$torch.txt - requirements/kernels-test.in; \
	done
	$(COMPILE) -o requirements/trainer.txt -c requirements/dev.txt trainer_image/pyproject.toml
