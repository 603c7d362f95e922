# Kansei: make run is all that a newcomer needs; make help lists the rest.

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 10s
BENCH ?= .
BENCHTIME ?= 1s
COUNT ?= 1
# Packages and arguments to narrow things down: make test PKG=./hub, make run ARGS="--listen :8080"
PKG ?= ./...
ARGS ?=

# Tests find the servers that setup builds here.
export PATH := $(CURDIR)/bin:$(PATH)
# A recorded audience for the tests, by a path that holds in every package.
ifneq ($(KANSEI_TRACE),)
export KANSEI_TRACE := $(abspath $(KANSEI_TRACE))
endif

.PHONY: help build run cluster chaos upgrade setup test test-go test-web lint lint-go fuzz bench bench-go profile screenshots clean

help: ## List what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/kansei.
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=$(VERSION)" -o bin/kansei ./cmd/kansei

run: build ## Build and start a node with a crowd on it, data in ./data.
	@exec bin/kansei serve --demo --data-dir ./data $(ARGS)

cluster: build bin/nats-server ## Start a cluster on this machine: 3 NATS servers, Redis, 3 nodes.
	@go build -o bin/cluster ./deploy/cluster
	@exec bin/cluster $(ARGS)

chaos: bin/nats-server ## Break a cluster on purpose, in an order drawn from a seed, and check that nobody lost anything. ARGS="--seed 7 --only drain".
	@go build -o bin/chaos ./deploy/chaos
	@bin/chaos --out bin/chaos.md $(ARGS)

upgrade: bin/nats-server ## Run an earlier build (test/earlier-commit) beside this one in one cluster, with 300 viewers, to and fro.
	go test -count=1 -timeout 30m -v ./test/upgrade -args -long

setup: ## Install what the tests need: browsers, fonts, Redis, NATS servers, npm packages.
	@.ci/setup

# Without flags of its own: lint has compiled most of it then.
bin/nats-server: go.mod go.sum
	go build -o $@ github.com/nats-io/nats-server/v2
	@touch $@

# One that is too old, for the tests of what a node says of it.
OLD_NATS := v2.10.29
bin/nats-server-2.10:
	@mkdir -p bin/.old
	GOBIN=$(CURDIR)/bin/.old go install github.com/nats-io/nats-server/v2@$(OLD_NATS)
	@mv bin/.old/nats-server $@ && rmdir bin/.old

test: setup test-go test-web ## Run all tests, with the race detector.

# -count=1: the tests of the whole run a binary that the test cache does not see. The timeout is that of a package,
# some of which take five minutes on two cores, and twice as long on a busy machine.
test-go:
	go test -race -count=1 -timeout 20m $(PKG)

test-web:
	npm test --prefix web

lint: lint-go $(GOLANGCI_LINT) ## Check format, vet, lint, and that go.mod is tidy.
	$(GOLANGCI_LINT) run $(PKG)

lint-go:
	@files=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs -r ls -d 2>/dev/null | xargs -r gofmt -l) && \
		if [ -n "$$files" ]; then echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; fi
	go vet $(PKG)
	go mod tidy -diff

$(GOLANGCI_LINT):
	@mkdir -p .tools
	GOBIN=$(CURDIR)/.tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv .tools/golangci-lint $@

fuzz: ## Run every fuzz target for FUZZTIME (10s).
	@set -e; for pkg in $$(go list $(PKG)); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: build bin/nats-server ## Measure a node against a bare program, into bin/bench.md, then hub and socket alone. ARGS="--scenario hot" picks some.
	@bin/kansei bench --report --out bin/bench.md $(ARGS)
	@$(MAKE) --no-print-directory bench-go PKG="./hub ./internal/socket"

bench-go: ## Run the Go benchmarks, for benchstat; BENCH picks some, BENCHTIME and COUNT set how long and how often.
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -benchmem $(PKG)

profile: build bin/nats-server ## Take CPU and heap profiles of a node with a hot room into bin/profiles.
	@bin/kansei bench --report --scenario hot --pairs 1 --profiles bin/profiles $(ARGS)
	@echo "go tool pprof -top bin/profiles/hot.cpu.pprof"

screenshots: build ## Take the pictures of the documents anew, with the audience of KANSEI_TRACE if set.
	go run ./test/shots -kansei bin/kansei -out docs

clean: ## Remove what was built. Leaves ./data alone.
	rm -rf bin .tools web/node_modules test/conformance/node_modules test/duckdb/node_modules
