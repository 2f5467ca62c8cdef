# leasefs: build, test, demo. `make help` lists the targets.

SHELL       := /bin/sh
GO          ?= go
BIN         := bin
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)
# More flags of go test, such as TESTFLAGS='-count=1 -v'.
TESTFLAGS   ?=
# The packages that have tests with real servers. With -short they run only those of their tests that need none.
REAL        := ./pkg/vault/... ./cmd/... ./test/...
FUZZTIME    ?= 5s
# Flags of test/e2e/run.sh, such as -short, or -run 'TestOnANode/(Install|VaultSealed.*)'.
E2EFLAGS    ?=
LINT        := $(GO) tool -modfile=tools/lint/go.mod golangci-lint
LINTFLAGS   ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the driver into bin/leasefs (static, reproducible)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/leasefs ./cmd/driver

.PHONY: demo
demo: build vault ## See it work on this machine: publish, renew, rotate, kill, unpublish (KEEP=1 leaves it running)
	@KEEP=$(KEEP) $(GO) run ./test/demo --driver $(CURDIR)/$(BIN)/leasefs

.PHONY: test
test: ## All tests, each once: fast ones first, then those with a real Vault, PostgreSQL and processes
	$(GO) test -race $(TESTFLAGS) $$($(GO) list ./pkg/... | grep -v /pkg/vault)
	@$(MAKE) --no-print-directory test-real

.PHONY: test-unit
test-unit: ## Tests that need no server (seconds, once compiled)
	$(GO) test -race -short $(TESTFLAGS) ./pkg/... ./cmd/...

.PHONY: test-real
test-real: vault tools ## The packages that have tests with real servers
	$(GO) test -race -timeout 20m $(TESTFLAGS) $(REAL)
	@# go test does not show why a test was skipped. With CI=true each of these is a failure above.
	@unshare -m true 2>/dev/null || unshare -Urm true 2>/dev/null || \
	  echo "NOT RUN: the tests that mount; they need root, or user namespaces allowed to you" >&2
	@test -n "$$PG_BIN" || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || \
	  echo "NOT RUN: the tests with a database; they need a PostgreSQL server (Debian: apt-get install postgresql)" >&2

.PHONY: sanity
sanity: vault ## csi-sanity against the real node server, on real mounts, with a real Vault
	$(GO) test -race -count=1 -v ./test/sanity/...

.PHONY: e2e
e2e: ## Install the chart on a real one-node Kubernetes and look from inside pods (root; E2EFLAGS=-short for the quick part)
	test/e2e/run.sh $(E2EFLAGS)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (5s)
	@set -e; for pkg in $$($(GO) list ./pkg/...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "fuzz $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

.PHONY: bench
bench: build vault ## Print publish latency and throughput beside the floor, republish, memory (docs/performance.md)
	$(GO) run ./test/bench --driver $(CURDIR)/$(BIN)/leasefs

.PHONY: soak
soak: build vault ## Kill the daemon 1000 times at random moments and count orphans (KILLS=1000)
	$(GO) run ./test/bench --driver $(CURDIR)/$(BIN)/leasefs --kills $(or $(KILLS),1000)

.PHONY: vault
vault: ## Make sure that there is a Vault server for tests (built once, about 4 minutes, then cached)
	@tools/vault/ensure.sh >/dev/null

.PHONY: lint
lint: ## Run the pinned golangci-lint (built once, a few minutes, then cached)
	$(LINT) run $(LINTFLAGS) ./...

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt ./...

.PHONY: verify
verify: ## Check that everything generated is up to date and the modules are tidy
	$(GO) mod tidy -diff
	$(GO) vet -tags e2e ./...
	deploy/render.sh --check

.PHONY: manifests
manifests: ## Render deploy/manifests from the Helm chart
	deploy/render.sh

.PHONY: tools
tools: ## Make sure that there are the tools of the chart's tests: helm, kustomize and the like (built once, about 5 minutes)
	@$(GO) tool -n -modfile=tools/helm/go.mod helm >/dev/null
	@$(GO) tool -n -modfile=tools/kustomize/go.mod kustomize >/dev/null
	@$(GO) tool -n -modfile=tools/sbom/go.mod cyclonedx-gomod >/dev/null
	@$(GO) -C tools/promql test -run '^$$' ./... >/dev/null

.PHONY: kind
kind: ## Install into a kind cluster with Docker (VALUES=FILE; docs/install.md). Not tried by CI
	deploy/kind.sh leasefs:$(VERSION) $(VALUES)

.PHONY: image
image: IMAGEFLAGS := --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) -t leasefs:$(VERSION)
image: ## Build the container image with docker or buildah
	@if command -v docker >/dev/null 2>&1; then DOCKER_BUILDKIT=1 docker build $(IMAGEFLAGS) .; \
	elif command -v buildah >/dev/null 2>&1; then buildah build $(IMAGEFLAGS) .; \
	else echo "make image needs docker or buildah" >&2; exit 1; fi

.PHONY: sbom
sbom: build ## Write bin/leasefs.cdx.json, an SBOM (CycloneDX) of bin/leasefs (its tool is built once, 2 minutes)
	@# The modules' sources, in which the licences are, are there after the build, compared with go.sum: nothing is asked for again.
	tool=$$($(GO) tool -n -modfile=tools/sbom/go.mod cyclonedx-gomod) && GOPROXY=off GOSUMDB=off "$$tool" bin -json -std -licenses \
	  -version '$(VERSION)' -output $(BIN)/leasefs.cdx.json $(BIN)/leasefs

.PHONY: clean
clean: ## Remove what was built here (not the cache in ~/.cache/leasefs)
	rm -rf $(BIN)
