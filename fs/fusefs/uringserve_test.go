//go:build linux

package fusefs

import (
	"encoding/binary"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// newTestConn returns a connection of a tree that has no kernel at its other
// end.
func newTestConn(t testing.TB, raw *rawFS) *uringConn {
	t.Helper()
	c := &uringConn{answerer: answerer{raw: raw, opts: &Options{}}, done: make(chan struct{})}
	c.ps = fuse.NewProtocolServer(raw, serverOptions(raw, c.opts))
	return c
}

// readRequest is a READ as the kernel sends it.
func readRequest(id, node uint64, off int64, size uint32) []byte {
	b := make([]byte, readEnd)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[opcodeOffset:], opRead)
	binary.NativeEndian.PutUint64(b[uniqueOffset:], id)
	binary.NativeEndian.PutUint64(b[nodeOffset:], node)
	binary.NativeEndian.PutUint64(b[readOffset:], uint64(off))
	binary.NativeEndian.PutUint32(b[readSize:], size)
	return b
}

// What is answered at once is what go-fuse would have answered.
func TestURingReads(t *testing.T) {
	opened, err := openedTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	tree := opened.Tree()
	c := newTestConn(t, newRawFS(tree, &Options{Logf: t.Logf}))
	id, atOnce := uint64(2), 0
	for _, name := range []string{"/", "etc/passwd", "bin/big", "empty", "new"} {
		n := mustLookup(t, tree, name)
		size := n.Attr().Size
		for _, at := range []struct {
			off  int64
			size uint32
		}{{0, 4096}, {0, 1 << 20}, {1 << 20, 1 << 20}, {size - 1, 4096}, {size, 4096}, {size + 1, 1}, {-1, 1}, {0, 0}, {3, 7}} {
			// Reading makes it be in memory.
			request := readRequest(id, n.Ino(), at.off, at.size)
			wantHead, want := make([]byte, outHeader), make([]byte, maxRead)
			want = want[:c.Answer(request, wantHead, want)]
			head, got := make([]byte, outHeader), make([]byte, maxRead)
			if k, ok := c.Try(request, head, got); ok {
				atOnce++
				if string(head) != string(wantHead) || string(got[:k]) != string(want) {
					t.Errorf("%s, %d bytes at %d: % x and %d bytes, want % x and %d", name, at.size, at.off, head, k, wantHead, len(want))
				}
			}
			id += 2
		}
	}
	if atOnce == 0 {
		t.Error("nothing was answered at once")
	}
	if _, ok := c.Try(readRequest(id, 1<<40, 0, 1), make([]byte, outHeader), make([]byte, 1)); ok {
		t.Error("a read of no inode was answered at once")
	}
}

// Requests that make no sense are errors.
func TestURingAnswersNonsense(t *testing.T) {
	c := newTestConn(t, newRawFS(treeNamed(t, "plain"), &Options{}))
	request := readRequest(42, 1, 0, 1<<30) // larger than any buffer
	head := make([]byte, outHeader)
	if n := c.Answer(request, head, make([]byte, 4096)); n != 0 || unique(head) != 42 || int32(binary.NativeEndian.Uint32(head[4:])) != -int32(unix.EIO) {
		t.Errorf("%d bytes and % x, want EIO", n, head)
	}
}

// An interrupt may come before its request, and after.
func TestURingInterrupt(t *testing.T) {
	events := make(chan string, 2)
	broken := &faulty{released: make(chan struct{}), event: func(s string) { events <- s }}
	tree, err := (&task{Tree: "faulty"}).tree(broken)
	if err != nil {
		t.Fatal(err)
	}
	c := newTestConn(t, newRawFS(tree, &Options{Logf: t.Logf}))
	const id = 42
	c.interruptSoon(id)
	head := make([]byte, outHeader)
	if n := c.Answer(readRequest(id, mustLookup(t, tree, "slow").Ino(), 0, 4096), head, make([]byte, 4096)); n != 0 {
		t.Errorf("%d bytes, want an error", n)
	}
	if got := -int32(binary.NativeEndian.Uint32(head[4:])); got != int32(unix.EINTR) {
		t.Errorf("errno %d, want EINTR", got)
	}
	c.interruptSoon(id)
	close(c.done)
	c.others.Wait()
	if n := c.retrying.Load(); n != 0 {
		t.Errorf("%d tries to interrupt are left", n)
	}
}

// BenchmarkURingLookup shows what go-fuse's part in a reply costs.
func BenchmarkURingLookup(b *testing.B) {
	c := newTestConn(b, newRawFS(treeNamed(b, "sample"), &Options{}))
	request := append(readRequest(2, 1, 0, 0)[:inHeader], "etc\x00"...)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint32(request[opcodeOffset:], 1)
	head, payload := make([]byte, outHeader), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		c.Answer(request, head, payload)
	}
}
