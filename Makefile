# tare: `make help` lists the targets.
#
# Variables: GO, PKGS (packages for unit and lint), RUN (-run for the tests), TARE_RUNTIME (the runtime under test,
# default bin/tare-runtime; runc or crun to compare), FUZZTIME (per target), ROUNDS (of the benchmarks).
export CGO_ENABLED = 0
GO ?= go
PKGS ?= ./...
RUN ?= .
FUZZTIME ?= 30s
ROUNDS ?= 100
BIN = $(CURDIR)/bin

# Between releases the version is the next one's pre-release.
VERSION := $(or $(patsubst v%,%,$(shell git describe --tags --match 'v*' --dirty 2>/dev/null)),0.1.0-dev)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS = -s -w -buildid= -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# tare-runtime has an entry of its own before Go's: see cmd/tare-runtime/entry_amd64.s.
ENTRY = [ -e cmd/$$c/entry_$$($(GO) env GOARCH).s ] && echo "-E $${c%-runtime}_entry"

UNIT = $$($(GO) list $(PKGS) | grep -v '/tare/test\(/\|$$\)')
SUITES = $$($(GO) list ./test/... 2>/dev/null)
STATICCHECK = $(GO) run -modfile=tools/go.mod honnef.co/go/tools/cmd/staticcheck
SUMMARY = $(GO) run ./internal/tools/testsummary
# The ports that must compile; amd64 and arm64 are tested.
PORTS = amd64 arm64 386 arm riscv64 s390x ppc64le loong64

.PHONY: help build demo lint unit test test-long conformance mutants test-vm bench fuzz deps deps-update clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14 | sort

build: ## static binaries into bin/
	@mkdir -p bin
	@for c in $$(ls cmd 2>/dev/null); do \
		$(GO) build -trimpath -ldflags="$(LDFLAGS) $$($(ENTRY))" -o bin/$$c ./cmd/$$c || exit 1; done

demo: build ## make an image from Debian's packages and run a limited, isolated process from it (root)
	@scripts/deps.sh demo
	@scripts/demo.sh

lint: ## gofmt, go vet on every port, the scripts' syntax, staticcheck, the rules of internal/house
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	@for a in $(PORTS); do GOARCH=$$a $(GO) vet $(PKGS) || { echo "go vet for linux/$$a found the above"; exit 1; }; done
	@for a in $(PORTS); do GOARCH=$$a $(GO) build -o /dev/null ./cmd/tare-runtime || { echo "the child's code needs too much stack on linux/$$a"; exit 1; }; done
	@for s in scripts/*.sh; do bash -n $$s || exit 1; done
	@$(STATICCHECK) $(PKGS)
	@$(GO) test ./internal/house

unit: ## unit tests of the packages, without the black-box suites
	@$(GO) test -run '$(RUN)' $(UNIT)

test: build ## everything: unit tests, then the black-box suites over bin/ (root)
	@scripts/deps.sh auto
	@scripts/peers.sh
	@export TARE_RUNTIME=$${TARE_RUNTIME:-$(BIN)/tare-runtime} PATH="$(BIN):$(CURDIR)/.cache/bin:$$PATH"; \
	{ $(GO) test -json -run '$(RUN)' $(UNIT); \
	   [ -z "$(SUITES)" ] || $(GO) test -json -count=1 -p 1 -timeout 30m -run '$(RUN)' $(SUITES); } 2>&1 | $(SUMMARY)

test-long: ## the same with TARE_LONG=1: tests that take minutes run too
	@TARE_LONG=1 $(MAKE) --no-print-directory test

conformance: build ## the validation of the runtime-tools and the schemas of the specification, whole (root)
	@scripts/deps.sh auto
	@scripts/peers.sh runtime-tools
	@TARE_LONG=1 TARE_RUNTIME=$${TARE_RUNTIME:-$(BIN)/tare-runtime} $(GO) test -json -count=1 -timeout 30m ./test/conformance 2>&1 | $(SUMMARY)

mutants: ## take each defence away (test/mutants) and require that its tests are red (root)
	@TARE_LONG=1 $(GO) test -count=1 -timeout 60m -v -run 'TestPatches|TestMutants/$(RUN)' ./test/mutants | grep -v '^=== '

test-vm: build ## the suites in virtual machines, one per kernel
	@[ -d test/vm ] || { echo "there are no tests in virtual machines yet"; exit 1; }
	@scripts/deps.sh auto
	@TARE_VM=1 $(GO) test -json -count=1 -timeout 240m ./test/vm/... 2>&1 | $(SUMMARY)

bench: build ## measure against the peers, write docs/benchmarks.md (root, a quiet machine)
	@scripts/deps.sh auto
	@$(GO) run ./test/bench -n $(ROUNDS) -o docs/benchmarks.md
	@$(GO) run ./test/bench/images -o docs/benchmarks.md

fuzz: ## every fuzz target for FUZZTIME
	@for p in $$($(GO) list $(PKGS)); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

deps: ## install what the tests use, by apt; without a network say what is missing
	@scripts/deps.sh

deps-update: ## rewrite cmd/*/deps.txt, the lists of linked packages
	@$(GO) test -count=1 -run TestDependencyLists ./internal/house -args -update

clean: ## remove what was built
	rm -rf bin .cache
