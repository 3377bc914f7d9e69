//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// The trees that a child process can serve, by name. Parent and child build
// the same one.
var trees = map[string]func() []fs.Layer{
	"sample": func() []fs.Layer { return []fs.Layer{sampleLayer(), topLayer()} },
	"plain":  func() []fs.Layer { return []fs.Layer{topLayer()} },
	"wide":   func() []fs.Layer { return []fs.Layer{wideLayer()} },
	"acl":    func() []fs.Layer { return []fs.Layer{aclLayer()} },
	"forged": func() []fs.Layer { return []fs.Layer{forgedLayer(), topLayer()} },
	"faulty": func() []fs.Layer { return []fs.Layer{sampleLayer(), faultyLayer(&faulty{})} },
	"names":  func() []fs.Layer { return []fs.Layer{namesLayer()} },
	"bench":  func() []fs.Layer { return []fs.Layer{benchLayer()} },

	"program": func() []fs.Layer { return []fs.Layer{programLayer()} },
	"survive": func() []fs.Layer { return []fs.Layer{sampleLayer(), programLayer(), crashLayer()} },
	"many":    func() []fs.Layer { return []fs.Layer{manyLayer()} },
}

func treeNamed(t testing.TB, name string) *fs.Tree {
	t.Helper()
	tree, err := fs.Merge(t.Context(), trees[name]())
	if err != nil {
		t.Fatalf("merging the tree %q: %v", name, err)
	}
	return tree
}

// pattern is an endless layer in which each byte follows from its offset.
type pattern struct{}

func patternAt(off int64) byte { return byte(off*7 + off>>8*13 + off>>20) }

func (pattern) ReadFileAt(ctx context.Context, p []byte, off, _ int64) (int, error) {
	for i := range p {
		p[i] = patternAt(off + int64(i))
	}
	return len(p), ctx.Err()
}

func layerOf(content fs.Stream, entries ...layerindex.Entry) fs.Layer {
	return fs.Layer{
		Name:    "sha256:test",
		Content: fs.StreamContent(content),
		Entries: func(yield func(*layerindex.Entry) bool) {
			for i := range entries {
				e := entries[i]
				if !yield(&e) {
					return
				}
			}
		},
	}
}

const (
	noon    = 1_700_000_000
	sparse  = 5<<30 + 123 // size of the sparse file
	sparse1 = 4<<30 + 77  // where its second extent is
	nobody  = 65534
)

// capability is a version 2 file capability: cap_net_raw, permitted and
// effective.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func dir(name string, mode uint32) layerindex.Entry {
	return layerindex.Entry{Name: name, Type: layerindex.TypeDir, Mode: mode, ModSec: noon}
}

func file(name string, mode uint32, off, size int64) layerindex.Entry {
	return layerindex.Entry{Name: name, Type: layerindex.TypeReg, Mode: mode, Off: off, Size: size, ModSec: noon, ModNsec: 1}
}

func symlink(name, target string) layerindex.Entry {
	return layerindex.Entry{Name: name, Type: layerindex.TypeSymlink, Linkname: target, Mode: 0o777, ModSec: noon}
}

// namesLayer has a file with as many names of attributes as one can have.
func namesLayer() fs.Layer {
	f := file("names", 0o644, 0, 5)
	for i := range xattrListMax / 256 {
		f.Xattrs = append(f.Xattrs, layerindex.Xattr{Name: fmt.Sprintf("user.%0250d", i)})
	}
	return layerOf(pattern{}, f)
}

// sampleLayer has an entry of every kind, with all that stat(2) can show.
func sampleLayer() fs.Layer {
	private := file("private", 0o600, 10, 20)
	private.UID, private.GID = nobody, 7
	secret := file("secret", 0o640, 10, 20)
	secret.UID, secret.GID = 1<<32-2, 1<<31
	old := file("old", 0o644, 0, 1)
	old.ModSec, old.ModNsec = -1_000_000_001, 999_999_999
	caps := file("caps", 0o755, 3, 5)
	caps.Xattrs = []layerindex.Xattr{
		{Name: "security.capability", Value: capability},
		{Name: "trusted.t", Value: "for root"},
		{Name: "user.empty", Value: ""},
		{Name: "user.binary", Value: "\x00\xff\n" + strings.Repeat("long", 1000)},
	}
	etc := dir("etc/", 0o755)
	etc.Xattrs = []layerindex.Xattr{{Name: "user.of-a-directory", Value: "d"}}
	holes := file("holes", 0o644, 1000, sparse)
	holes.Sparse = []layerindex.Extent{{Off: 100, Size: 50}, {Off: sparse1, Size: 5000}}
	hole := file("hole", 0o644, 1000, 1<<20)
	hole.Sparse = []layerindex.Extent{}
	return layerOf(pattern{},
		dir("./", 0o755), etc, dir("closed/", 0o700), dir("tmp/", 0o1777), dir("etc/deep/er/", 0o2755),
		file("etc/passwd", 0o644, 0, 1234), file("closed/inside", 0o644, 5, 6), file("empty", 0o644, 0, 0),
		file("setuid", 0o6755, 77, 8192), file("mega", 0o644, 12345, 3<<20+17),
		private, secret, old, caps, holes, hole,
		layerindex.Entry{Name: "etc/passwd-", Type: layerindex.TypeLink, Linkname: "etc/passwd", Mode: 0o644, ModSec: noon},
		layerindex.Entry{Name: "null", Type: layerindex.TypeChar, Mode: 0o666, Major: 1, Minor: 3, ModSec: noon},
		layerindex.Entry{Name: "disk", Type: layerindex.TypeBlock, Mode: 0o660, Major: 259, Minor: 70000, ModSec: noon},
		layerindex.Entry{Name: "fifo", Type: layerindex.TypeFifo, Mode: 0o644, ModSec: noon},
		symlink("link", "etc/passwd"), symlink("dangling", "no/such/file"), symlink("loop", "loop2"), symlink("loop2", "loop"),
		symlink("far", strings.Repeat("x/", 2000)+"y"),
		file("odd\n\\ \"\xff name", 0o644, 9, 99), file(strings.Repeat("n", 255), 0o644, 1, 2),
	)
}

// forgedLayer pretends to have attributes of the mount, where the mount has one
// and where it has none.
func forgedLayer() fs.Layer {
	var forged []layerindex.Xattr
	for _, name := range []string{"digest", "layer", "none", "offset", "size-1", "stats"} {
		forged = append(forged, layerindex.Xattr{Name: ownPrefix + name, Value: "forged"})
	}
	forged = append(forged, layerindex.Xattr{Name: "user.own", Value: "kept"})
	root, etc, sparse := dir("./", 0o755), dir("etc/", 0o755), file("sparse", 0o644, 0, 4096)
	sparse.Sparse = []layerindex.Extent{{Off: 0, Size: 1}}
	root.Xattrs, etc.Xattrs, sparse.Xattrs = forged, forged, forged
	return layerOf(pattern{}, root, etc, sparse)
}

// topLayer is an upper layer without extended attributes.
func topLayer() fs.Layer {
	return layerOf(pattern{},
		file("etc/.wh.gone", 0o644, 0, 0), file("etc/new", 0o444, 50, 4096), dir("srv/", 0o755), file("srv/index", 0o644, 4, 4097))
}

const wideCount = 50_000

func wideLayer() fs.Layer {
	entries := []layerindex.Entry{dir("./", 0o755), dir("wide/", 0o755), file("wide/"+strings.Repeat("z", 255), 0o644, 0, 1)}
	for i := range wideCount - 1 {
		entries = append(entries, file(fmt.Sprintf("wide/%05d%s", i, strings.Repeat("-", i%40)), 0o644, 0, 1))
	}
	return layerOf(pattern{}, entries...)
}

// aclLayer has a file that its mode closes and its ACL opens for nobody.
func aclLayer() fs.Layer {
	acl := "\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + // user::rw-
		"\x02\x00\x04\x00\xfe\xff\x00\x00" + // user:65534:r--
		"\x04\x00\x00\x00\xff\xff\xff\xff" + // group::---
		"\x10\x00\x04\x00\xff\xff\xff\xff" + // mask::r--
		"\x20\x00\x00\x00\xff\xff\xff\xff" // other::---
	open := file("open", 0o640, 0, 10)
	open.Xattrs = []layerindex.Xattr{{Name: "system.posix_acl_access", Value: acl}}
	return layerOf(pattern{}, dir("./", 0o755), open, file("shut", 0o640, 0, 10))
}

const (
	badOff  = 0 // of the file "bad" in the faulty layer
	badSize = 100_000
	slowOff = 1 << 20 // of the file "slow"
)

func faultyLayer(f *faulty) fs.Layer {
	return layerOf(f, file("srv/bad", 0o644, badOff, badSize), file("slow", 0o644, slowOff, 4096))
}

// A faulty layer fails to read one file until it is mended, and blocks reads
// of another until it is released.
type faulty struct {
	mended   atomic.Bool
	hangs    atomic.Bool   // reads that are blocked do not look at their context
	released chan struct{} // nil: not blocked
	event    func(string)
}

var errFaulty = errors.New("registry: chunk 7: the cable is cut")

func (f *faulty) ReadFileAt(ctx context.Context, p []byte, off, _ int64) (int, error) {
	switch {
	case off >= slowOff && f.released != nil:
		f.event("blocked")
		if f.hangs.Load() {
			<-f.released
		}
		select {
		case <-f.released:
		case <-ctx.Done():
			f.event("interrupted")
			return 0, fmt.Errorf("waiting: %w", ctx.Err())
		}
	case off < slowOff && !f.mended.Load():
		return 0, fmt.Errorf("layer: %w", errFaulty)
	}
	return pattern{}.ReadFileAt(ctx, p, off, 0)
}

// programLayer has a program: this machine's shell, with zeros behind it for
// it to be large enough.
func programLayer() fs.Layer {
	text, err := os.ReadFile("/bin/sh")
	if err != nil {
		panic(err)
	}
	text = append(text, make([]byte, minPassthrough)...)
	return layerOf(content(text), dir("./", 0o755), file("program", 0o755, 0, int64(len(text))))
}

// A content is a layer in memory.
type content []byte

func (c content) ReadFileAt(_ context.Context, p []byte, off, _ int64) (int, error) {
	return bytes.NewReader(c).ReadAt(p, off)
}

// manySize is the size of the files in the tree "many".
const manySize = minPassthrough + 1000

func manyLayer() fs.Layer {
	entries := []layerindex.Entry{dir("./", 0o755)}
	for i := range manyFiles {
		entries = append(entries, file(fmt.Sprint(i), 0o644, int64(i), manySize))
	}
	return layerOf(pattern{}, entries...)
}

const (
	benchFiles = 100_000
	benchDirs  = 5_000
)

// benchLayer is like the tree of the measurements in the research notes:
// 100,000 files in 5,000 directories.
func benchLayer() fs.Layer {
	return fs.Layer{Name: "sha256:bench", Content: fs.StreamContent(pattern{}), Entries: func(yield func(*layerindex.Entry) bool) {
		root := dir("./", 0o755)
		if !yield(&root) {
			return
		}
		for i := range benchFiles {
			e := file(fmt.Sprintf("d%02d/e%02d/module-%d.js", i%100, i/100%(benchDirs/100), i), 0o644, int64(i), int64(100+i%9000))
			if !yield(&e) {
				return
			}
		}
	}}
}

// contentOf reads a file of a tree.
func contentOf(n fs.Node) io.Reader {
	return io.NewSectionReader(readerAt{n}, 0, n.Attr().Size)
}

type readerAt struct{ n fs.Node }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.n.ReadAt(context.Background(), p, off)
}

func mustLookup(t testing.TB, tree *fs.Tree, name string) fs.Node {
	t.Helper()
	n, err := tree.Lookup(name, false)
	if err != nil {
		t.Fatalf("looking up %q: %v", name, err)
	}
	return n
}

func isRoot() bool { return os.Geteuid() == 0 }

// inNamespace reports whether this process is in a user namespace of its own,
// where root has no power over the machine.
func inNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}
