# The two commands that matter are `make run` and `make test`; `make help` lists all.
SHELL := /bin/bash
GO ?= go

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: run
run: ## Run the gateway on its embedded default with the demo going; console at http://127.0.0.1:8080
	$(GO) run ./cmd/hotline demo

.PHONY: build
build: ## Build bin/hotline
	$(GO) build -trimpath -o bin/hotline ./cmd/hotline

.PHONY: test
test: ## Install what the tests need, then run them all with the race detector
	deploy/test-deps
	$(GO) vet ./...
	$(GO) test -race -timeout 14m ./...

.PHONY: soak
soak: ## Fuzz every parser for 30 s each, load, flood and soak gateways in full, and repeat the tests of kills and races (long)
	deploy/test-deps
	deploy/fuzz 30s
	HOTLINE_SOAK=1 $(GO) test -run 'TheLawHolds|ArrivesTwice|InClearAfter' -v -timeout 30m ./abuse
	HOTLINE_SOAK=1 $(GO) test -run StreamsDecideAlike -v -timeout 4h ./abuse
	HOTLINE_SOAK=1 $(GO) test -run Reproducible -v -timeout 15m ./ivr/emergency
	HOTLINE_SOAK=1 $(GO) test -run '^TestCluster$$' -v -timeout 15m ./cmd/hotline
	HOTLINE_SOAK=1 $(GO) test -run '^TestRedisFailover$$' -v -timeout 20m ./cmd/hotline
	HOTLINE_SOAK=1 $(GO) test -run '^TestDemo' -v -timeout 15m ./cmd/hotline/internal/demo
	HOTLINE_SOAK=1 $(GO) test -run '^TestFlood$$|^TestFull|^TestInfoDigits$$' -v -timeout 15m ./cmd/hotline
	HOTLINE_SOAK=1 $(GO) test -run '^TestAsterisk$$|^TestAsteriskCut$$' -v -timeout 15m ./cmd/hotline
	HOTLINE_SOAK=1 $(GO) test -run '^TestSoak$$' -v -timeout 60m ./cmd/hotline # HOTLINE_SOAK_FOR=2m for so long
	$(GO) test -race -count=20 -timeout 4h -run 'Kill|Redis|Random|Property' ./...
	HOTLINE_SOAK=1 $(GO) test -run '^TestMutation$$' -v -timeout 60m ./abuse

.PHONY: bench
bench: ## Measure: packets, scripts, and 1,300 calls at once, 300 of them bridged and recorded
	deploy/test-deps
	$(GO) test -run '^$$' -bench . -benchmem ./sip/media ./internal/recording ./abuse ./queue ./ivr/emergency
	HOTLINE_BENCH=1 $(GO) test -run '^TestTheGate$$|^TestRedisFaultsUnderLoad$$' -v -timeout 30m ./abuse
	HOTLINE_BENCH=1 $(GO) test -run 'TestLoad1300' -v -timeout 20m ./cmd/hotline
	HOTLINE_BENCH=1 $(GO) test -run '^TestSideBySide$$' -v -timeout 30m ./cmd/hotline # HOTLINE_BENCH_CALLS=50 for so many alone

.PHONY: lint
lint: ## Run the linters
	$(GO) tool -modfile=deploy/tools/go.mod golangci-lint run ./...

.PHONY: generate
generate: ## Make the voices, the music and the generated pages anew (needs espeak-ng, sox and unicode-data)
	$(GO) generate ./...
	git diff --exit-code
