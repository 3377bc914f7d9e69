# make check test: what CI runs. make quick: what finds most.
# make demo: the main job, without a network.
# make bench: figures beside peers. make nightly: the long checks.

GO ?= go
# ./... leaves out testdata, which holds Go packages too.
PACKAGES = ./... ./testdata/bench/... ./testdata/demo ./testdata/hostile ./testdata/labimage ./testdata/testenv
FUZZTIME ?= 60s
ELSEWHERE = linux/arm64 linux/riscv64 darwin/arm64 freebsd/amd64

.PHONY: all build check elsewhere quick test nightly hostile fuzz bench demo setup clean

all: build

# Without cgo: Go has to know all threads, to drop their capabilities.
build:
	CGO_ENABLED=0 $(GO) build -o bin/imgfs ./cmd/imgfs

check:
	@out="$$(gofmt -l cmd fs layerindex remote testdata)"; if [ -n "$$out" ]; then echo "gofmt -w is due for:"; echo "$$out"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) tool staticcheck $(PACKAGES)
	$(GO) test -count=1 -run '^TestLayering$$' ./cmd/imgfs
	@$(MAKE) --no-print-directory elsewhere

# Tests run on linux/amd64 alone. For other systems all that is seen is that
# everything builds, tests included, and that vet finds nothing.
elsewhere:
	@for system in $(ELSEWHERE); do \
		echo "GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) vet"; \
		export GOOS=$${system%/*} GOARCH=$${system#*/}; \
		$(GO) vet $(PACKAGES) && $(GO) build -o /dev/null ./cmd/imgfs || exit 1; \
	done

# What finds most, for use while working: no race detector, and no test that
# takes long. It takes a minute and a half on two processors, and less again.
# Tests wait more than they compute: many may run side by side. vet is in check.
quick:
	$(GO) test -short -vet=off -p 4 -parallel 16 $(PACKAGES)

test: setup
	$(GO) test -race -timeout 15m $(PACKAGES)

# It takes an hour. The stress tests take so long for each of six ways to mount.
nightly: setup
	IMGFS_STACKS=20000 $(GO) test -count=1 -timeout 60m $(PACKAGES)
	GOMAXPROCS=1 $(GO) test -count=1 -timeout 60m $(PACKAGES)
	IMGFS_SOAK=10m $(GO) test -count=1 -timeout 20m -run '^TestSoak$$' ./cmd/imgfs
	$(MAKE) hostile
	@.ci/setup fio
	IMGFS_STRESS=2m $(GO) test -count=1 -timeout 30m -run '^TestStress$$' ./cmd/imgfs
	IMGFS_STRESS=1m $(GO) test -count=1 -timeout 30m -run '^TestStressFio$$' ./cmd/imgfs
	$(MAKE) fuzz

# The section "hostile" of nightly: attacks by images, archives and registries in
# their full size, with a table of what imgfs took for each; then the readers of
# tars, registries.conf and compressed layers beside everybody else's. It takes
# some 20 minutes and 20 GB of disk.
hostile: setup
	IMGFS_HOSTILE=full $(GO) test -count=1 -v -timeout 120m -run '^TestHostile' ./testdata/hostile
	IMGFS_TARS=300000 $(GO) test -count=1 -timeout 30m -run '^TestScannerAgrees$$' ./layerindex/internal/tarscan
	IMGFS_STREAMS=5000 $(GO) test -count=1 -timeout 30m -run '^TestAgreesWithProgram$$' ./layerindex/internal/gzip ./layerindex/internal/zstd
	IMGFS_PODMAN=1m $(GO) test -count=1 -run '^TestAgreesWithPodman$$' ./remote/registry/hosts
	@.ci/setup gcc zlib1g-dev
	IMGFS_SOCI=build $(GO) test -count=1 -run '^TestReal' ./layerindex/soci
	IMGFS_DISTRIBUTION3=build $(GO) test -count=1 -timeout 30m -run '^TestPublishersAndGC$$' ./remote/registry

# Every fuzz target of every package, one after the other.
fuzz:
	@GO=$(GO) .ci/fuzz $(FUZZTIME) $(PACKAGES)

# The tables of docs/performance.md, with the lab's images if CORPORA says where
# they are, and then the packages' own benchmarks. BENCHFLAGS=-pull compares with
# podman pull too, which takes minutes; BENCHFLAGS=net measures one group alone.
bench: setup build
	@.ci/setup gcc libdeflate-tools isal zlib1g-dev fuse3 skopeo docker-registry zstd squashfuse squashfs-tools erofs-utils bindfs e2fsprogs mount util-linux gzip findutils
	$(GO) run ./testdata/bench $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench . -timeout 60m $(PACKAGES)

demo: build
	@.ci/setup fuse3
	$(GO) run ./testdata/demo bin/imgfs

setup:
	@.ci/setup

clean:
	rm -rf bin
