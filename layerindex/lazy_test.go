package layerindex

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A value is read once for all; after an error it is read again, by the next
// one who comes, and those who waited for the try that failed get its error.
func TestLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lazy[string]
		var reads atomic.Int64
		broken := errors.New("broken")
		get := func(value string, err error) (string, error) {
			return l.get(func() (string, error) {
				reads.Add(1)
				time.Sleep(time.Second)
				return value, err
			})
		}
		together := func(value string, err error) (failed int64) {
			var bad atomic.Int64
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					if got, e := get(value, err); e != err || got != value {
						t.Errorf("got %q, %v; want %q, %v", got, e, value, err)
					} else if e != nil {
						bad.Add(1)
					}
				})
			}
			wg.Wait()
			return bad.Load()
		}
		if n := together("", broken); n != 5 || reads.Load() != 1 {
			t.Errorf("%d of 5 failed by %d reads, want all by one", n, reads.Load())
		}
		if n := together("x", nil); n != 0 || reads.Load() != 2 {
			t.Errorf("%d of 5 failed, by then %d reads, want none and 2", n, reads.Load())
		}
		if got, err := get("y", broken); got != "x" || err != nil || reads.Load() != 2 {
			t.Errorf("%q, %v after %d reads: it was not kept", got, err, reads.Load())
		}
	})
}

// changingBytes is an index file that changes.
type changingBytes struct {
	b   []byte
	end int64 // where it has been cut, -1 if not
}

func (c *changingBytes) ReadAt(p []byte, off int64) (int, error) {
	b := c.b
	if c.end >= 0 {
		b = b[:c.end]
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

func (c *changingBytes) flip(at int64) { c.b[at] ^= 0x40 }

// A section that changes on disk before it is read is an error for as long as
// it is wrong, and no longer.
func TestSectionsChange(t *testing.T) {
	testenv.Slow(t)
	const middle = 4 << 20
	tar := samples.Tar(t, 2*middle)
	blob := samples.Gzip(t, tar)
	file := encoded(t, mustBuild(t, blob, tar, nil))
	p := make([]byte, 100)
	read := func(x *Index, r LayerForTest) error {
		_, err := r.ReadAt(t.Context(), p, middle)
		if err == nil && !bytes.Equal(p, tar[middle:middle+len(p)]) {
			t.Error("wrong bytes")
		}
		return err
	}
	uses := map[indexfile.Kind]func(x *Index, r LayerForTest) error{
		indexfile.Entries: func(x *Index, _ LayerForTest) error { _, err := x.Entries(); return err },
		indexfile.Chunks:  func(x *Index, _ LayerForTest) error { _, err := x.ChunkSums(); return err },
		indexfile.Spans:   read,
		indexfile.Windows: read,
		indexfile.Digests: func(x *Index, _ LayerForTest) error { _, err := x.EntriesWithDigests(); return err },
	}
	for kind, use := range uses {
		t.Run(fmt.Sprint("kind ", kind), func(t *testing.T) {
			src := &changingBytes{b: bytes.Clone(file), end: -1}
			x, err := ReadIndex(src, int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			r := ReaderForTest(x, blob)
			defer r.Close()
			s, ok := x.file.Find(kind)
			if !ok || s.Stored == 0 {
				t.Fatal("there is no such section")
			}
			for _, at := range []int64{s.Off, s.Off + s.Stored/2, s.Off + s.Stored - 1} {
				src.flip(at)
				for range 2 {
					if err := use(x, r); !errors.Is(err, ErrIndex) {
						t.Errorf("with byte %d changed: %v, want ErrIndex", at, err)
					}
				}
				src.flip(at)
			}
			src.end = s.Off + 1
			if err := use(x, r); !errors.Is(err, ErrIndex) {
				t.Errorf("cut in it: %v, want ErrIndex", err)
			}
			src.end = -1
			if err := use(x, r); err != nil {
				t.Errorf("when it is right again: %v", err)
			}
		})
	}
}

func TestSameEntries(t *testing.T) {
	tar := samples.Tar(t, 100_000)
	blob := samples.Gzip(t, tar)
	x := mustBuild(t, blob, tar, nil)
	if y := mustBuild(t, blob, tar, nil); !x.SameEntries(y) {
		t.Error("an index made again has other entries")
	}
	if y := mustBuild(t, blob, tar, &buildOptions{ChunkSize: 4096}); !x.SameEntries(y) {
		t.Error("an index with other chunks has other entries")
	}
	other := append(samples.TarOf(t, "x", nil)[:512], tar...)
	if y := mustBuild(t, samples.Gzip(t, other), other, nil); x.SameEntries(y) {
		t.Error("that of another layer has the same entries")
	}
	y := mustBuild(t, blob, tar, nil)
	for i := range y.file.Sections {
		if y.file.Sections[i].Kind == indexfile.Entries {
			y.file.Sections[i].Sum[5] ^= 1
		}
	}
	if x.SameEntries(y) {
		t.Error("other entries of the same layer are the same")
	}
}
