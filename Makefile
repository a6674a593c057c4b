# Every command of the project. `make help` lists them; the two that matter first are `make demo` and `make test`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
PREFIX ?= /usr/local
PROGRAMS := meshctl meshd meshagent bookinfo
TOOL := $(GO) tool -modfile=.tools/go.mod
# The revision is stamped where git will say it: in another user's checkout it refuses, and the build must not fail for that.
BUILD_FLAGS := -trimpath -buildvcs=$(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false) -ldflags '-s -w'
# For every other build, those of the suites included.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# What `make gen` writes.
GENERATED := docs/reference completions rules/crds rules/install internal/api/v1alpha2

# Where test runs leave their records; the last step reads them for skips.
RECORDS := .cache/test
TEST_TIMEOUT := 30m
FUZZTIME ?= 5s
# The end-to-end suites have the machine to themselves: beside three compilers a probe misses its second.
SUITES := ./internal/e2e/... ./internal/tour/...
UNITS = $(shell $(GO) list ./... | grep -v -E '/internal/(e2e|tour)(/|$$)')

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/meshbox bin/pause ## put every program into bin/
	CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o bin/ $(PROGRAMS:%=./cmd/%) ./cmd/demo

# Linking Kubernetes takes a while even when nothing changed, so this one goes by its sources' times.
bin/meshbox bin/pause &: $(wildcard cmd/meshbox/*.go cmd/meshbox/*/*.go cmd/meshbox/go.* cmd/meshbox/build.sh)
	cmd/meshbox/build.sh bin
	@touch bin/meshbox bin/pause

.PHONY: deps
deps: ## install what the sandbox and the tests need from the distribution (root), and fetch Envoy
	.ci/deps

.PHONY: images
images: deps build ## make the OCI images of every program
	bin/meshctl sandbox images

.PHONY: demo
demo: build ## bring up a sandbox and watch the walk-through happen in it (DEMO_ONCE=1: then stop)
	@.ci/deps sandbox && exec bin/demo

.PHONY: test
test: export CI := true
test: deps build ## run every test, with everything they need; a skipped test is a failure
	@rm -rf $(RECORDS) && mkdir -p $(RECORDS)
	$(TOOL) gotestsum --format pkgname --jsonfile $(RECORDS)/units.json -- -race -timeout $(TEST_TIMEOUT) $(UNITS)
	$(MAKE) --no-print-directory gen-check fuzz
	$(TOOL) gotestsum --format testname --jsonfile $(RECORDS)/suites.json -- -p 1 -timeout $(TEST_TIMEOUT) $(SUITES)
	@if grep -h '"Action":"skip"' $(RECORDS)/*.json | grep '"Test":'; then echo 'the tests above were skipped' >&2; exit 1; fi
	@grep -hc '"Action":"pass".*"Test":' $(RECORDS)/*.json | awk '{ n += $$1 } END { print "ok: " n " tests passed, none skipped" }'

.PHONY: test-short
test-short: ## run the tests that need no process, root or network (under a minute)
	CGO_ENABLED=0 $(GO) test -trimpath -short ./...

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (5s)
	@grep -rlE '^func Fuzz' --include='*_test.go' internal cmd | while read -r file; do \
	  grep -oE '^func Fuzz\w+' "$$file" | while read -r _ target; do \
	    echo "fuzz $$(dirname "$$file") $$target"; \
	    $(GO) test "./$$(dirname "$$file")" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x </dev/null; \
	  done; \
	done

.PHONY: bench
bench: build ## measure against peers and limits, and write docs/benchmarks.md (under 8 minutes)
	$(GO) build -o .cache/bench ./internal/bench
	.cache/bench

.PHONY: gen
gen: ## write what is generated: deep copies, CRDs, command reference, completions
	$(GO) generate ./...
	$(GO) run ./cmd/gendocs

.PHONY: gen-check
gen-check: # fails when `make gen` changes anything
	@sums() { find $(GENERATED) -type f -exec sha256sum {} + | sort -k 2; }; \
	before=$$(sums); $(MAKE) --no-print-directory gen; \
	diff <(echo "$$before") <(sums) || { echo 'generated files were not current: commit what make gen wrote' >&2; exit 1; }

.PHONY: fmt
fmt: ## format the Go files
	$(TOOL) golangci-lint fmt

.PHONY: lint
lint: ## check the Go files
	$(TOOL) golangci-lint run ./...
	cd cmd/meshbox && $(GO) vet ./...

.PHONY: verify
verify: gen-check lint test ## generated files are current, lint is quiet, tests pass

.PHONY: install
install: build ## install meshctl and its completions under PREFIX (/usr/local)
	install -D -m 755 bin/meshctl $(DESTDIR)$(PREFIX)/bin/meshctl
	install -D -m 644 completions/meshctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/meshctl
	install -D -m 644 completions/meshctl.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_meshctl
	install -D -m 644 completions/meshctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/meshctl.fish

.PHONY: clean
clean: ## remove what was built, and the caches
	@if [ -d .cache/demo ]; then bin/meshctl sandbox down --dir .cache/demo; fi
	rm -rf bin .cache
