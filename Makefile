# The same sources give the same bytes: no path and no state of the checkout in them.
# Without inlining they are a tenth smaller, and none of them is short of calls.
GO_BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -gcflags=all=-l -ldflags="-s -w"

STACK = cflinuxfs4
MANIFEST = manifest.yml
OUT = build

# What the buildpack may depend on: licences that ask for no more than a notice,
# and MPL-2.0, which asks for changes to its own files.
LICENCES = Apache-2.0,BSD-2-Clause,BSD-3-Clause,CC0-1.0,ISC,MIT,MPL-2.0,Unicode-DFS-2016

.DEFAULT_GOAL := help
.PHONY: help programs build fixtures binaries test unit demo bench chaos lint audit golden package clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## HotROD through the mesh on a local Cloud Foundry cell (KEEP=1 leaves it running, SECURE=1 closes it by default, AGENTLESS=1 has no agents)
	@mkdir -p build && go build -o build/demo ./integration/demo
	@build/demo $(if $(KEEP),-keep) $(if $(SECURE),-secure) $(if $(AGENTLESS),-agentless)

binaries: ## get real Consul, Envoy, HotROD and Go modules into the user's cache: nothing after it needs a network
	@go run ./integration/binaries/get

# The packages that take longest come first; they mostly wait, and each has cells of
# its own.
test: binaries ## all tests, with real Consul, Envoy and apps
	go test -count=1 -p 3 -timeout 40m ./integration/mesh ./integration/install ./integration/chaos ./integration/compat ./...

unit: ## the buildpack's own tests, without a cell
	go test ./src/...

bench: ## measure against the naive way, into build/bench.json (ONLY=NAME,… RUNS=N IDLE=1m)
	@mkdir -p build && go build -o build/bench ./integration/bench
	@build/bench $(if $(ONLY),-only $(ONLY)) $(if $(RUNS),-runs $(RUNS)) $(if $(IDLE),-idle $(IDLE))

chaos: ## break everything that can break, under load, and run beside 0.1.0 (CHAOS_SEED=N does the same again)
	CHAOS=long go test -count=1 -p 1 -v -timeout 90m ./integration/chaos ./integration/compat

programs: ## the staging program and the container program for Cloud Foundry, into build/
	@mkdir -p build
	@GOOS=linux GOARCH=amd64 $(GO_BUILD) -o build/ ./src/cmd/buildpack ./src/cmd/mesh

build: programs ## those and meshctl, into build/
	@$(GO_BUILD) -o build/ ./src/cmd/meshctl

fixtures: ## the programs of the tests' own apps and buildpack
	@mkdir -p build
	@$(GO_BUILD) -o build/ ./fixtures/echo ./fixtures/counting/... ./fixtures/activities/...
	@$(GO_BUILD) -o fixtures/procfile-buildpack/build/procfile ./fixtures/procfile-buildpack

lint: ## formatting, vet, staticcheck, walls, licences (needs no network after make binaries)
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go tool staticcheck ./...
	go test -run "TestWalls|TestOnly" ./integration/repository
	@mkdir -p build
	@go tool -modfile=src/cmd/package/tools/go.mod go-licenses check ./src/... --allowed_licenses=$(LICENCES) 2> build/licences.log || \
		{ cat build/licences.log >&2; exit 1; }

audit: ## known vulnerabilities, by a database on the network (GOVULNDB names another)
	@mkdir -p build && go -C fixtures/audit build -o $(CURDIR)/build/ tool
	@build/govulncheck $(if $(GOVULNDB),-db $(GOVULNDB)) ./src/...

golden: ## write the golden files and the reference anew
	go test ./src/meshfile ./src/render -update

package: programs ## a zip for cf create-buildpack and meshctl for each system, into OUT=build (STACK=cflinuxfs4, CACHED=1, MANIFEST=manifest.yml, DEFAULTS=FILE)
	@go run ./src/cmd/package -stack $(STACK) -manifest $(MANIFEST) -out $(OUT) $(if $(CACHED),-cached) $(if $(DEFAULTS),-defaults $(DEFAULTS))
	@GOOS=linux GOARCH=amd64 $(GO_BUILD) -o $(OUT)/meshctl-linux-amd64 ./src/cmd/meshctl
	@GOOS=darwin GOARCH=amd64 $(GO_BUILD) -o $(OUT)/meshctl-darwin-amd64 ./src/cmd/meshctl
	@GOOS=darwin GOARCH=arm64 $(GO_BUILD) -o $(OUT)/meshctl-darwin-arm64 ./src/cmd/meshctl
	@GOOS=windows GOARCH=amd64 $(GO_BUILD) -o $(OUT)/meshctl-windows-amd64.exe ./src/cmd/meshctl

clean: ## remove what was built; the cache of downloads stays
	rm -rf build fixtures/procfile-buildpack/build
