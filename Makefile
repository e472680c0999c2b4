GO_BUILD = CGO_ENABLED=0 go build -trimpath -ldflags="-s -w"

STACK = cflinuxfs4

.DEFAULT_GOAL := help
.PHONY: help build fixtures binaries test unit demo bench lint golden package clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## HotROD through the mesh on a local Cloud Foundry cell (KEEP=1 leaves it running, SECURE=1 closes it by default)
	@mkdir -p build && go build -o build/demo ./integration/demo
	@build/demo $(if $(KEEP),-keep) $(if $(SECURE),-secure)

binaries: ## get real Consul, Envoy and HotROD into the user's cache
	@go run ./integration/binaries/get

test: binaries ## all tests, with real Consul, Envoy and apps
	go test -count=1 -p 1 -timeout 40m ./...

unit: ## the buildpack's own tests, without a cell
	go test ./src/...

bench: ## measure against the naive way, into build/bench.json
	@mkdir -p build && go build -o build/bench ./integration/bench
	@build/bench

build: ## the staging program, the container program and meshctl, into build/
	@mkdir -p build
	@$(GO_BUILD) -o build/ ./src/cmd/buildpack ./src/cmd/mesh ./src/cmd/meshctl

fixtures: ## the programs of the tests' own apps and buildpack
	@mkdir -p build
	@$(GO_BUILD) -o build/ ./fixtures/echo ./fixtures/counting/... ./fixtures/activities/...
	@$(GO_BUILD) -o fixtures/procfile-buildpack/build/procfile ./fixtures/procfile-buildpack

lint: ## vet, staticcheck, formatting, and the walls between the parts
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go tool staticcheck ./...
	go test -run "TestWalls|TestOnly" ./integration/repository

golden: ## write the golden files and the reference anew
	go test ./src/meshfile ./src/render -update

package: build ## a zip for cf create-buildpack and meshctl beside it, into build/ (STACK=cflinuxfs4)
	@go tool buildpack-packager build -stack $(STACK)
	@mv mesh_buildpack-$(STACK)-v$$(cat VERSION).zip build/
	@GOOS=linux GOARCH=amd64 $(GO_BUILD) -o build/meshctl-linux-amd64 ./src/cmd/meshctl
	@GOOS=darwin GOARCH=arm64 $(GO_BUILD) -o build/meshctl-darwin-arm64 ./src/cmd/meshctl
	@GOOS=windows GOARCH=amd64 $(GO_BUILD) -o build/meshctl-windows-amd64.exe ./src/cmd/meshctl

clean: ## remove what was built; the cache of downloads stays
	rm -rf build fixtures/procfile-buildpack/build
