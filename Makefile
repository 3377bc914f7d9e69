# make check test: what CI runs. make quick: what finds most.
# make demo: the main job, without a network.
# make bench: figures beside peers. make nightly: the long checks.

GO ?= go
# As packages are built: so all of it is compiled once. grpc's tracing brings html/template,
# for which the linker keeps what nothing calls: 4 MB, and 2.4 MB in memory.
export GOFLAGS := $(GOFLAGS) -trimpath -tags=grpcnotrace
# ./... leaves out testdata, which holds Go packages too.
PACKAGES = ./... ./testdata/bench/... ./testdata/demo ./testdata/engines ./testdata/hostile ./testdata/labimage ./testdata/nightly ./testdata/picture ./testdata/testenv ./testdata/probe
# Those in which goroutines share something. The command itself runs with the race
# detector in nightly: its tests take long.
SHARED = ./cmd/imgfs/internal/... ./fs/... ./layerindex/build ./layerindex/reader ./layerindex/internal/zstd ./remote/...
FUZZTIME ?= 60s
ELSEWHERE = darwin/arm64

.PHONY: all build install install-files package check elsewhere quick test nightly hostile fuzz bench demo docs setup clean

all: build

# Without cgo: Go has to know all threads, to drop their capabilities.
build:
	CGO_ENABLED=0 $(GO) build -o bin/imgfs ./cmd/imgfs

# The binary, manual pages and completions, where shells and man look by themselves.
PREFIX ?= /usr/local
install: build
	@$(MAKE) --no-print-directory install-files

# What install does, of PROGRAM; HERE is the same for this machine, and prints the manual.
PROGRAM ?= bin/imgfs
HERE ?= $(PROGRAM)
ZSH ?= site-functions
# mount(8) looks for its helpers nowhere else.
HELPERS ?= /usr/sbin
install-files:
	install -D -m 0755 "$(PROGRAM)" "$(DESTDIR)$(PREFIX)/bin/imgfs"
	install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	"$(HERE)" help --man >"$(DESTDIR)$(PREFIX)/share/man/man1/imgfs.1"
	"$(HERE)" help --man-names | while read -r name; do \
		"$(HERE)" help --man $$name >"$(DESTDIR)$(PREFIX)/share/man/man1/imgfs-$$(echo "$$name" | tr ' ' -).1" || exit 1; done
	install -d "$(DESTDIR)$(PREFIX)/share/man/man8"
	for name in mount.fuse.imgfs mount.imgfs; do echo .so man1/imgfs-mount.1 >"$(DESTDIR)$(PREFIX)/share/man/man8/$$name.8" || exit 1; done
	install -d "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" "$(DESTDIR)$(PREFIX)/share/zsh/$(ZSH)" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	"$(HERE)" completion bash >"$(DESTDIR)$(PREFIX)/share/bash-completion/completions/imgfs"
	"$(HERE)" completion zsh >"$(DESTDIR)$(PREFIX)/share/zsh/$(ZSH)/_imgfs"
	"$(HERE)" completion fish >"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/imgfs.fish"
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system" "$(DESTDIR)$(PREFIX)/lib/systemd/user"
	if [ -z "$(DESTDIR)" ] && [ ! -w "$(HELPERS)" ]; then echo "mount -t fuse.imgfs stays unknown: $(HELPERS) cannot be written"; exit; fi; \
	install -d "$(DESTDIR)$(HELPERS)"; \
	for name in mount.fuse.imgfs mount.imgfs; do ln -srf "$(DESTDIR)$(PREFIX)/bin/imgfs" "$(DESTDIR)$(HELPERS)/$$name" || exit 1; done
	sed 's|/usr/bin/|$(PREFIX)/bin/|' cmd/imgfs/package/imgfs@.service >"$(DESTDIR)$(PREFIX)/lib/systemd/system/imgfs@.service"
	sed 's|/usr/bin/|$(PREFIX)/bin/|' cmd/imgfs/package/imgfs-snapshotter.service >"$(DESTDIR)$(PREFIX)/lib/systemd/system/imgfs-snapshotter.service"
	cp cmd/imgfs/package/imgfs-snapshotter.socket "$(DESTDIR)$(PREFIX)/lib/systemd/system/imgfs-snapshotter.socket"
	sed 's|/usr/bin/|$(PREFIX)/bin/|' cmd/imgfs/package/user/imgfs@.service >"$(DESTDIR)$(PREFIX)/lib/systemd/user/imgfs@.service"

# A .deb and an .rpm in bin, for GOARCH. VERSION=1.2.3 if not the commit's tag says it.
package:
	@GO='$(GO)' cmd/imgfs/package/build

check:
	@out="$$(gofmt -l cmd fs layerindex remote testdata)"; if [ -n "$$out" ]; then echo "gofmt -w is due for:"; echo "$$out"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) tool staticcheck $(PACKAGES)
	$(GO) test -count=1 -run '^TestLayering$$' ./cmd/imgfs
	@$(MAKE) --no-print-directory elsewhere

# Tests run on linux/amd64 alone. For other systems all that is seen is that
# everything builds, tests included, and that vet finds nothing. The others are in nightly.
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

# The tests of quick with the race detector, where it may find something, then all without
# it: what takes long takes ten times as long with it, and runs with it in nightly.
test: setup
	$(GO) test -race -short -vet=off -timeout 15m $(SHARED)
	$(GO) test -vet=off -timeout 40m -parallel 4 $(PACKAGES)

# The long checks, and one table of them, in less than 75 minutes on two processors. What
# they print is in bin/nightly.log. NIGHTLY='-only load' runs one; -list names them.
nightly: setup
	$(GO) run ./testdata/nightly $(NIGHTLY)

# Attacks by images, archives and registries in their full size, with a table of
# what imgfs took for each; then the readers of tars, registries.conf and compressed
# layers beside everybody else's, on more input than in nightly, which has these too.
# It takes some 20 minutes and 20 GB of disk.
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

# The picture in README.md, of a run that is made for it.
docs: build
	@.ci/setup fuse3 tmux
	$(GO) run ./testdata/picture -o docs/imgfs.svg -explore docs/explore.svg bin/imgfs

setup:
	@.ci/setup

clean:
	rm -rf bin
