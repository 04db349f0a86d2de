# pretrain-operator. `make help` lists the targets; every target does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
export PYTHONPATH := operator:llm:.
export PYTHONDONTWRITEBYTECODE := 1

operator_env = $(shell hack/envs.sh path operator)
train_env = $(shell hack/envs.sh path train)
IMAGE_PREFIX ?= ghcr.io/pretrain-dev
CHECKED := operator llm tests hack examples

# Tests of real processes on a busy machine: what failed runs once more, alone, and both are shown.
twice = $(1) || { echo "== What failed, once more and alone" >&2; \
  $(1) --last-failed --last-failed-no-failures none; }

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Set-up: everything is cached outside the repository (PRETRAIN_CACHE) and safe to delete

.PHONY: packages env-operator env-train env-serve kubernetes corpus setup
packages: ## Install missing system packages (Debian-like, root)
	@hack/system-packages.sh
env-operator: packages ## The Python environment of the operator and of these tools
	@hack/envs.sh build operator
env-train: packages ## The one of data, training and post-training
	@hack/envs.sh build train
env-serve: packages ## The one of vLLM, which pins its own torch
	@hack/envs.sh build serve
kubernetes: packages ## Build Kubernetes for the local cluster (6 minutes, once)
	@$(PYTHON) -m tests.cluster build
corpus: packages ## The demo's text: the documentation of Python and PostgreSQL
	@$(PYTHON) hack/corpus.py build/corpus
setup: env-operator env-train env-serve kubernetes corpus ## All of it

## The main job

.PHONY: demo demo-down
demo: $(if $(CLUSTER),env-operator corpus,setup) ## From text to a chat answer, with a killed worker (KEEP=1, CLUSTER=current)
	@$(operator_env)/bin/python -m hack.demo $(if $(KEEP),--keep) \
	  $(if $(CLUSTER),--cluster $(CLUSTER) --image-prefix $(IMAGE_PREFIX)) $(if $(VALUES),--values $(VALUES))
demo-down: ## Remove what `make demo KEEP=1` left
	@$(operator_env)/bin/python -m hack.demo --down

## Tests

.PHONY: test test-unit test-crash test-integration test-llm test-charts test-e2e test-faults soak
test: verify test-unit test-crash test-charts test-integration test-llm test-e2e ## Every kind of test
test-unit: env-operator ## The decision core, without a cluster
	@$(operator_env)/bin/python -m pytest tests/unit
test-crash: env-operator ## The operator killed before and after every write of runs with faults
	@$(operator_env)/bin/python -m pytest tests/unit/test_reconcile_crash.py -m "crash or not crash"
test-integration: env-operator kubernetes ## The operator and the CRD on a real control plane
	@$(call twice,$(operator_env)/bin/python -m pytest tests/integration)
test-charts: env-operator kubernetes ## The Helm chart
	@$(operator_env)/bin/python -m pytest tests/charts
test-llm: env-train ## Data, training, checkpoints, export, post-training on CPU
	@$(call twice,$(train_env)/bin/python -m pytest tests/llm)
test-e2e: setup ## The demo's run and more faults on a local multi-node cluster (root)
	@$(call twice,$(operator_env)/bin/python -m pytest tests/e2e -m e2e)
test-faults: setup ## Every kind of fault injected into a run on that cluster (root, 15 minutes)
	@$(operator_env)/bin/python -m pytest tests/e2e/test_faults.py -m "e2e or faults" $(ARGS)
soak: env-train ## Runs under seeded random faults end as the one without any (SEED=7 ARGS="--steps 1000")
	@$(train_env)/bin/python -m tests.llm.soak $(if $(SEED),--seeds $(SEED)) $(ARGS)

## Benchmarks: docs/benchmarks.md

.PHONY: bench-recovery
bench-recovery: setup ## Recovery from faults against two peers (root; ARGS="--resume --repetitions 3")
	@$(operator_env)/bin/python -m hack.bench $(ARGS)

.PHONY: bench-throughput bench-gpu
bench-throughput: env-train ## Tokens/s against bare torchtitan on CPU, the loader's share of a step
	@PYTHONPATH=llm:operator:. $(train_env)/bin/python -m hack.throughput $(ARGS)
bench-gpu: env-train ## The same on a GPU: MFU, a save's stall, peak memory; without one it says so
	@PYTHONPATH=llm:operator:. $(train_env)/bin/python -m hack.throughput --gpu $(ARGS)

.PHONY: bench-memory
bench-memory: env-train ## How fast checkpoints in memory are written, copied to a peer and loaded
	@PYTHONPATH=llm:operator:. $(train_env)/bin/python -m hack.memory_rates $(ARGS)

## Checks

.PHONY: verify fmt lint types imports crd golden
verify: lint types imports ## What must hold before every commit
	@$(operator_env)/bin/python -m pretrain_operator.crd --check
	@$(operator_env)/bin/python -m hack.recipes table --check
fmt: env-operator ## Format the code
	@$(operator_env)/bin/ruff check --no-cache --fix-only --quiet $(CHECKED)
	@$(operator_env)/bin/ruff format $(CHECKED)
# Without the cache: what ruff takes for first-party depends on files that are not in its key.
lint: env-operator ## ruff
	@$(operator_env)/bin/ruff check --no-cache $(CHECKED)
	@$(operator_env)/bin/ruff format --check $(CHECKED)
types: env-operator ## mypy, strict
	@MYPYPATH=operator:llm $(operator_env)/bin/mypy
imports: env-operator ## The layers of docs/architecture.md
	@$(operator_env)/bin/lint-imports
crd: env-operator ## Write the CRD and docs/api.md from operator/pretrain_operator/api
	@$(operator_env)/bin/python -m pretrain_operator.crd
golden: env-operator ## Write the golden manifests anew, to be read in the diff
	@$(operator_env)/bin/python -m tests.unit.test_manifests_golden
	@$(operator_env)/bin/python -m tests.unit.test_bench_peers

## Recipes

.PHONY: recipes recipes-dry-run
recipes: env-operator ## Write recipes/README.md from the recipes and their plans
	@$(operator_env)/bin/python -m hack.recipes table
recipes-dry-run: env-operator env-train ## A step of each changed recipe (or RECIPES="…") at its true mesh
	@$(operator_env)/bin/python -m hack.recipes dry-run --python $(train_env)/bin/python $(RECIPES)

## Delivery

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
.PHONY: images clean
images: ## Build the container images (needs docker)
	@set -e; for image in operator trainer data post-train serve serve-cpu; do \
	  docker build -f images/$$image/Dockerfile -t $(IMAGE_PREFIX)/$$image:$(VERSION) .; \
	done
clean: ## Remove build output of this checkout (not the cache)
	@rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
