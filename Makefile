# tare: `make help` lists the targets.
export CGO_ENABLED = 0
GO ?= go
PKGS = ./...

.PHONY: help build lint unit test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

build: ## static binaries into bin/
	@mkdir -p bin
	@for c in $$(ls cmd 2>/dev/null); do $(GO) build -trimpath -ldflags='-s -w' -o bin/$$c ./cmd/$$c || exit 1; done

lint: ## gofmt, go vet on every port
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	@for a in amd64 arm64; do GOARCH=$$a $(GO) vet $(PKGS) || exit 1; done

unit: ## unit tests of the packages, without the black-box suites
	@$(GO) test $$($(GO) list ./... | grep -v /test/)

test: build unit ## everything

clean: ## remove what was built
	rm -rf bin .cache
