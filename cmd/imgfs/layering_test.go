package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// module is the prefix of our own packages in the tables below.
const module = "github.com/imgfs/imgfs"

// layering lists the imports of each package besides the standard library: a
// line a package, its own packages by their place in the module, others by
// the module's name. docs/architecture.md says why. Tests are not held to it.
const layering = `
cmd/imgfs/internal/cli: remote/printable pflag x/term
cmd/imgfs/internal/completion: cmd/imgfs/internal/cli remote/printable
cmd/imgfs/internal/config: toml x/sys
cmd/imgfs/internal/containerd: fs/fusefs fs/snapshotter remote remote/printable remote/registry/hosts containerd containerd-api errdefs grpc protobuf go-digest image-spec systemd x/sys
cmd/imgfs/internal/container: cmd/imgfs/internal/cli fs fs/fusefs fs/overlayfs remote/printable runtime-spec x/sys x/term
cmd/imgfs/internal/du: cmd/imgfs/internal/cli cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/show fs pflag x/sys
cmd/imgfs/internal/diff: cmd/imgfs/internal/entry cmd/imgfs/internal/show fs fs/packages fs/treediff remote/printable go-internal x/sys
cmd/imgfs/internal/entry: cmd/imgfs/internal/show fs remote/printable x/sys
cmd/imgfs/internal/explore: cmd/imgfs/internal/show fs fs/treediff remote/printable tcell x/term
cmd/imgfs/internal/find: cmd/imgfs/internal/cli cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/ls cmd/imgfs/internal/show fs pflag x/sys
cmd/imgfs/internal/gnu: cmd/imgfs/internal/cli pflag
cmd/imgfs/internal/grep: cmd/imgfs/internal/cli cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/ordered cmd/imgfs/internal/show fs remote/printable pflag x/sys
cmd/imgfs/internal/holder: fs/fusefs/privilege remote/printable x/sys
cmd/imgfs/internal/ls: cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/show fs remote/printable pflag runewidth x/sys x/term
cmd/imgfs/internal/metrics:
cmd/imgfs/internal/ordered:
cmd/imgfs/internal/serve: cmd/imgfs/internal/cli cmd/imgfs/internal/config cmd/imgfs/internal/holder cmd/imgfs/internal/show fs fs/fusefs fs/image fs/overlayfs fs/profile remote/cache remote/cache/meta remote/printable remote/registry go-digest systemd image-spec x/sys
cmd/imgfs/internal/spill: x/sys
cmd/imgfs/internal/show: remote/printable go-digest runewidth x/sys
cmd/imgfs/internal/sum: cmd/imgfs/internal/cli cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/ordered cmd/imgfs/internal/show fs pflag x/sys
cmd/imgfs/internal/tree: cmd/imgfs/internal/entry cmd/imgfs/internal/gnu cmd/imgfs/internal/ls cmd/imgfs/internal/show fs remote/printable pflag x/sys
cmd/imgfs: cmd/imgfs/internal/cli cmd/imgfs/internal/entry cmd/imgfs/internal/completion cmd/imgfs/internal/config cmd/imgfs/internal/container cmd/imgfs/internal/containerd cmd/imgfs/internal/du cmd/imgfs/internal/diff cmd/imgfs/internal/explore cmd/imgfs/internal/find cmd/imgfs/internal/grep cmd/imgfs/internal/holder cmd/imgfs/internal/ls cmd/imgfs/internal/metrics cmd/imgfs/internal/serve cmd/imgfs/internal/show cmd/imgfs/internal/spill cmd/imgfs/internal/sum cmd/imgfs/internal/tree fs fs/bundle fs/fusefs fs/image fs/overlayfs fs/podstore fs/profile fs/snapshotter fs/treecopy fs/treetar fs/packages fs/treediff layerindex layerindex/reader remote remote/cache remote/cache/blobs remote/cache/indexes remote/cache/meta remote/containersstorage remote/dockerdaemon remote/indexrepo remote/localname remote/memfile remote/printable remote/registry remote/registry/hosts go-digest image-spec pflag runtime-spec x/sys

fs/bundle: fs remote/printable image-spec moby-seccomp moby-user runtime-spec x/sys
fs/fusefs/internal/journal: x/sys
fs/fusefs/internal/uring: x/sys
fs/fusefs/privilege: x/sys
fs/fusefs: fs fs/fusefs/internal/journal fs/fusefs/internal/uring fs/fusefs/privilege remote/printable go-fuse x/sys
fs/overlayfs: fs/fusefs remote/printable x/sys
fs/image/internal/counters: fs fs/image/internal/filetable
fs/image/internal/filetable: fs
fs/image/internal/firstreads: fs fs/image/internal/filetable fs/profile
fs/image/internal/keptfile: fs fs/image/internal/filetable go-digest
fs/image: fs fs/image/internal/counters fs/image/internal/firstreads fs/image/internal/keptfile fs/profile layerindex layerindex/build layerindex/estargz layerindex/reader layerindex/soci layerindex/zstdchunked remote remote/anyarchive remote/cache remote/cache/blobs remote/cache/files remote/cache/indexes remote/cache/meta remote/containerdstore remote/containersstorage remote/dockerarchive remote/dockerdaemon remote/held remote/indexrepo remote/ocilayout remote/registry remote/registry/hosts go-digest image-spec x/sync
fs/internal/layertest: layerindex
fs/snapshotter: remote/memfile remote/printable containerd continuity errdefs go-digest image-spec moby-user moby-userns x/sys
fs/treecopy: fs x/sys
fs/profile:
fs/podstore: go-digest image-spec x/sys
fs/packages: fs go-debian go-sqlite3 rpmversion x/sys
fs/treediff: fs layerindex go-digest x/sys
fs/treetar: fs layerindex

fs: layerindex go-digest

layerindex/build: layerindex layerindex/internal/decoders layerindex/internal/nestedsum layerindex/internal/tarscan go-digest
layerindex/estargz: layerindex layerindex/internal/tarscan layerindex/internal/toc go-digest
layerindex/internal/codec:
layerindex/internal/column:
layerindex/internal/decoders: layerindex layerindex/internal/codec layerindex/internal/gzip layerindex/internal/zstd remote/magic
layerindex/internal/gzip: layerindex/internal/codec layerindex/internal/inflate
layerindex/internal/indexfile: layerindex/internal/column compress
layerindex/internal/inflate/inflatetest:
layerindex/internal/inflate: layerindex/internal/codec
layerindex/internal/nestedsum:
layerindex/internal/samples: go-digest compress
layerindex/internal/spool: remote/seal
layerindex/internal/stringpool:
layerindex/internal/tarscan: layerindex layerindex/internal/nestedsum layerindex/internal/stringpool remote/magic
layerindex/internal/toc: layerindex layerindex/internal/codec layerindex/internal/decoders layerindex/internal/stringpool layerindex/internal/tarscan go-digest compress
layerindex/internal/toctest: layerindex layerindex/build layerindex/internal/codec layerindex/internal/decoders layerindex/reader testdata/testenv go-digest
layerindex/internal/zstd: layerindex/internal/codec compress
layerindex/reader: layerindex layerindex/internal/codec layerindex/internal/decoders layerindex/internal/spool
layerindex/soci: layerindex layerindex/internal/gzip layerindex/internal/tarscan remote/magic flatbuffers go-digest image-spec
layerindex/zstdchunked: layerindex layerindex/internal/toc go-digest

layerindex: layerindex/internal/codec layerindex/internal/column layerindex/internal/indexfile layerindex/internal/stringpool go-digest compress

remote/anyarchive: remote remote/dockerarchive remote/internal/kindof remote/ocilayout image-spec
remote/beneath: x/sys
remote/cache/blobs: remote remote/beneath remote/cache/internal/blobfile remote/cache/internal/directory remote/cache/meta remote/seal go-digest x/sys
remote/cache/files: remote remote/cache/internal/blobfile remote/cache/internal/directory remote/seal go-digest x/sys
remote/cache/indexes: layerindex remote remote/beneath remote/cache/internal/directory remote/internal/nameless go-digest x/sys
remote/cache/internal/blobfile: x/sys
remote/cache/internal/cachetest: remote remote/beneath remote/cache/internal/blobfile remote/cache/internal/directory testdata/testenv go-digest image-spec x/sys
remote/cache/internal/directory: remote remote/beneath remote/cache/internal/blobfile remote/internal/nameless go-digest x/sys
remote/cache/meta: remote remote/beneath remote/cache/internal/blobfile remote/cache/internal/directory go-digest image-spec x/sys
remote/cache: remote/beneath remote/cache/blobs remote/cache/files remote/cache/internal/directory remote/cache/meta go-digest
remote/containerdstore: remote remote/beneath remote/internal/localblob remote/printable go-digest image-spec toml x/sys
remote/containersstorage: remote remote/beneath remote/internal/tarball remote/printable compress go-digest image-spec toml x/sys
remote/dockerarchive: remote remote/internal/kindof remote/internal/localblob remote/internal/tarball go-digest image-spec x/sync
remote/dockerdaemon: remote remote/dockerarchive remote/internal/kindof remote/internal/localblob remote/printable go-digest image-spec
remote/held: remote remote/internal/localblob remote/internal/nameless go-digest image-spec
remote/indexrepo: remote remote/cache/meta remote/registry go-digest image-spec x/sync
remote/internal/kindof: remote remote/internal/tarball remote/magic remote/printable image-spec
remote/internal/localblob: remote go-digest image-spec
remote/internal/nameless: remote/beneath x/sys
remote/internal/tarball: remote remote/internal/nameless remote/magic compress xz x/sys
remote/localname: remote remote/internal/kindof remote/printable
remote/magic:
remote/memfile: x/sys
remote/ocilayout: remote remote/internal/kindof remote/internal/localblob remote/internal/tarball go-digest image-spec
remote/printable:
remote/registry/hosts: remote remote/printable remote/registry/internal/address remote/registry/internal/scrub reference toml
remote/registry/internal/address:
remote/registry/internal/scrub: remote/printable
remote/registry/registrytest: go-digest image-spec
remote/registry: remote remote/printable remote/registry/hosts remote/registry/internal/address remote/registry/internal/scrub go-digest image-spec oras-go
remote/seal: x/sys
remote/sourcetest: remote go-digest image-spec platforms

remote: remote/printable go-digest image-spec reference platforms

testdata/bench/figures:
testdata/bench/internal/fuse: testdata/bench/figures testdata/bench/internal/runner testdata/labimage
testdata/bench/internal/foreign: layerindex layerindex/soci testdata/bench/internal/runner testdata/labimage go-digest image-spec
testdata/bench/internal/index: fs/image layerindex layerindex/build layerindex/estargz layerindex/reader layerindex/soci layerindex/zstdchunked testdata/bench/figures testdata/bench/internal/foreign testdata/bench/internal/runner testdata/bench/peers testdata/labimage go-digest compress x/sync
testdata/bench/internal/live: testdata/bench/figures testdata/bench/internal/runner testdata/labimage x/sys
testdata/bench/internal/network: layerindex testdata/bench/figures testdata/bench/internal/foreign testdata/bench/internal/runner testdata/bench/peers testdata/labimage image-spec compress
testdata/bench/internal/runner/runnertest: testdata/bench/figures testdata/bench/internal/runner testdata/labimage
testdata/bench/internal/runner: testdata/bench/figures testdata/engines testdata/labimage go-digest image-spec x/sys
testdata/bench/internal/starts: testdata/bench/figures testdata/bench/internal/foreign testdata/bench/internal/network testdata/bench/internal/runner testdata/engines testdata/labimage
testdata/bench/internal/tools: testdata/bench/figures testdata/bench/internal/network testdata/bench/internal/runner testdata/labimage
testdata/bench/peers: compress
testdata/bench: testdata/bench/figures testdata/bench/internal/fuse testdata/bench/internal/index testdata/bench/internal/live testdata/bench/internal/network testdata/bench/internal/runner testdata/bench/internal/starts testdata/bench/internal/tools testdata/labimage
testdata/demo: remote/registry/registrytest testdata/labimage
testdata/engines:
testdata/hostile: go-digest image-spec compress
testdata/labimage: go-digest image-spec compress
testdata/nightly: testdata/bench/figures
testdata/picture: remote/registry/registrytest testdata/labimage x/sys
testdata/probe: x/sys
testdata/testenv: x/sys
`

// strangers lists packages of the standard library that are none of a package's
// business.
var strangers = map[string][]string{
	"cmd/imgfs":                     {"net/http", "archive/tar", "compress/gzip"},
	"cmd/imgfs/internal/cli":        {"net/http", "net", "os/exec"},
	"cmd/imgfs/internal/container":  {"net/http", "net"},
	"cmd/imgfs/internal/containerd": {"net/http"},
	"cmd/imgfs/internal/holder":     {"net/http", "net", "os/exec", "encoding/json"},
	"cmd/imgfs/internal/serve":      {"net/http", "net"},
	"cmd/imgfs/internal/show":       {"net/http", "net", "os/exec"},
	"fs":                            {"net/http", "net", "archive/tar", "compress/gzip", "os"},
	"fs/bundle":                     {"net/http", "net", "os/exec"},
	"fs/podstore":                   {"net/http", "net", "os/exec"},
	"fs/fusefs":                     {"net/http", "archive/tar"},
	"fs/image":                      {"net/http", "net", "archive/tar", "compress/gzip"},
	"fs/image/internal/counters":    {"net/http", "net", "os"},
	"fs/image/internal/keptfile":    {"net/http", "net", "os"},
	"fs/snapshotter":                {"net/http", "net", "os/exec"},
	"layerindex":                    {"net/http", "net", "archive/tar", "compress/gzip", "compress/flate"},
	"layerindex/build":              {"net/http", "net", "archive/tar", "compress/gzip", "compress/flate", "os"},
	"layerindex/soci":               {"net/http", "net", "compress/gzip", "compress/flate", "os"},
	"layerindex/estargz":            {"net/http", "net", "archive/tar", "compress/gzip", "encoding/json", "os"},
	"layerindex/internal/toc":       {"net/http", "net", "archive/tar", "compress/gzip", "encoding/json", "os"},
	"layerindex/zstdchunked":        {"net/http", "net", "archive/tar", "compress/gzip", "encoding/json", "os"},
	"layerindex/reader":             {"net/http", "net", "archive/tar", "compress/gzip", "compress/flate", "os"},
	"remote":                        {"net/http", "net", "archive/tar", "compress/gzip", "os"},
	"remote/cache":                  {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/cache/indexes":          {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/cache/blobs":            {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/cache/files":            {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/cache/meta":             {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/indexrepo":              {"net/http", "net", "archive/tar", "compress/gzip"},
	"remote/registry":               {"archive/tar", "compress/gzip"},
	"remote/registry/hosts":         {"archive/tar", "compress/gzip", "net"},
}

// modules are the short names of the modules that we depend on.
var modules = map[string]string{
	"containerd":     "github.com/containerd/containerd/v2",
	"containerd-api": "github.com/containerd/containerd/api",
	"continuity":     "github.com/containerd/continuity",
	"errdefs":        "github.com/containerd/errdefs",
	"grpc":           "google.golang.org/grpc",
	"protobuf":       "google.golang.org/protobuf",
	"moby-userns":    "github.com/moby/sys/userns",
	"systemd":        "github.com/coreos/go-systemd/v22",
	"go-fuse":        "github.com/hanwen/go-fuse/v2",
	"go-digest":      "github.com/opencontainers/go-digest",
	"image-spec":     "github.com/opencontainers/image-spec",
	"runtime-spec":   "github.com/opencontainers/runtime-spec",
	"moby-seccomp":   "github.com/moby/profiles/seccomp",
	"moby-user":      "github.com/moby/sys/user",
	"reference":      "github.com/distribution/reference",
	"platforms":      "github.com/containerd/platforms",
	"oras-go":        "oras.land/oras-go/v2",
	"compress":       "github.com/klauspost/compress",
	"flatbuffers":    "github.com/google/flatbuffers",
	"xz":             "github.com/therootcompany/xz",
	"go-debian":      "pault.ag/go/debian",
	"rpmversion":     "github.com/knqyf263/go-rpm-version",
	"go-sqlite3":     "github.com/ncruces/go-sqlite3",
	"go-internal":    "github.com/rogpeppe/go-internal",
	"pflag":          "github.com/spf13/pflag",
	"toml":           "github.com/BurntSushi/toml",
	"runewidth":      "github.com/mattn/go-runewidth",
	"tcell":          "github.com/gdamore/tcell/v3",
	"x/sync":         "golang.org/x/sync",
	"x/sys":          "golang.org/x/sys",
	"x/term":         "golang.org/x/term",
}

// A listed package is what go list says of one.
type listed struct {
	ImportPath, Dir string
	Imports         []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	var all []listed
	for _, dir := range []string{"../..", "../../testdata"} { // ./... leaves out testdata
		cmd := exec.Command("go", "list", "-C", dir, "-json=ImportPath,Dir,Imports", "./...")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -C %s: %v", dir, err)
		}
		all = append(all, parseListed(t, out)...)
	}
	return all
}

func parseListed(t *testing.T, out []byte) []listed {
	t.Helper()
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func allowedImports(t *testing.T) map[string][]string {
	t.Helper()
	allowed := map[string][]string{}
	for line := range strings.Lines(layering) {
		if name, list, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			allowed[name] = strings.Fields(list)
		}
	}
	return allowed
}

// TestLayering holds the walls between the packages: which may import which.
func TestLayering(t *testing.T) {
	allowed := allowedImports(t)
	packages := listPackages(t)
	if len(packages) != len(allowed) {
		t.Errorf("%d packages, %d lines in the table", len(packages), len(allowed))
	}
	used := map[string]bool{}
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		list, ok := allowed[name]
		if !ok {
			t.Errorf("package %s is not in the table", name)
			continue
		}
		for _, imported := range p.Imports {
			what := shortName(imported)
			used[name+" "+what] = true
			if what != "" && !slices.Contains(list, what) {
				t.Errorf("%s imports %s, which the table does not allow", name, imported)
			}
			if slices.Contains(strangers[name], imported) {
				t.Errorf("%s imports %s, which is none of its business", name, imported)
			}
		}
		for _, what := range list {
			if !used[name+" "+what] {
				t.Errorf("the table lets %s import %s, which it does not", name, what)
			}
		}
	}
}

// shortName is how the table calls an import: "" for the standard library.
func shortName(imported string) string {
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		return own
	}
	for short, prefix := range modules {
		if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
			return short
		}
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return ""
	}
	return imported
}

// TestPackages: what make checks and tests are all packages of the module,
// though ./... leaves out testdata.
func TestPackages(t *testing.T) {
	testenv.Slow(t)
	_, list, _ := strings.Cut(readDoc(t, "Makefile"), "\nPACKAGES = ")
	list, _, _ = strings.Cut(list, "\n")
	out, err := exec.Command("go", append([]string{"list", "-C", "../.."}, strings.Fields(list)...)...).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", list, err)
	}
	named := strings.Fields(string(out))
	for _, p := range listPackages(t) {
		if !slices.Contains(named, p.ImportPath) {
			t.Errorf("the Makefile's PACKAGES leave out %s", p.ImportPath)
		}
	}
}

// TestModules: no direct dependency without its line in docs/dependencies.md.
func TestModules(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	doc := readDoc(t, "docs/dependencies.md")
	for _, m := range strings.Fields(string(out)) {
		if !strings.Contains(doc, "`"+m+"`") {
			t.Errorf("docs/dependencies.md has no reason for %s", path.Clean(m))
		}
	}
}
