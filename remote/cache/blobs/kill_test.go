package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

const (
	hammerSize  = 24*cachetest.TestChunk + 99
	killRounds  = 200
	hammerBlobs = 2
	// hammerBudget has room for the directories and one of the blobs, so
	// that room is made all the time.
	hammerBudget = 200 << 10
)

// A plainBlob is a source that only gives.
type plainBlob struct{ *cachetest.FakeBlob }

func (b plainBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return copy(p, b.Data[off:]), nil
}

func hammerBlob(i int) plainBlob {
	return plainBlob{&cachetest.FakeBlob{Data: cachetest.RandomBytes(hammerSize, uint64(30+i))}}
}

// hammerCuts are three ways to cut a blob of the hammer, the same in each process.
func hammerCuts(i int) []Cuts {
	data := hammerBlob(i).Data
	r := rand.New(rand.NewPCG(uint64(i), 3))
	return []Cuts{chunksOf(data, cachetest.TestChunk), randomCuts(r, data, false), evenCuts(data, 0, 5000)}
}

// hammer does everything that a process does in a cache directory, over and
// over, until it is killed. It says so when it begins, and what went wrong.
func hammer(dir string) {
	fail := func(format string, args ...any) {
		fmt.Printf("wrong: "+format+"\n", args...)
		os.Exit(1)
	}
	opts := &testOptions{MaxRequest: 3 * cachetest.TestChunk, Budget: hammerBudget}
	c, err := openTest(dir, opts)
	if err != nil {
		fail("%v", err)
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		c.Idle = 0 // so that contents come and go
		src := hammerBlob(i % hammerBlobs)
		chunks, cuts := chunksOf(src.Data, cachetest.TestChunk), hammerCuts(i % hammerBlobs)[rand.IntN(3)]
		var from remote.Blob = src
		if rand.IntN(2) == 0 {
			from = &wholeSource{data: src.Data}
		}
		b, err := c.Blob(from, cuts)
		if err != nil {
			fail("%v", err)
		}
		if err := randomRead(b, src); err != nil {
			fail("%v", err)
		}
		switch rand.IntN(16) {
		case 0:
			r, _ := c.Record(src)
			r.Write(src.Data[:hammerSize/2])
			r.Write(src.Data[hammerSize/2:])
			r.Commit(chunks)
		case 1:
			cachetest.Evict(c.at(c.KeyName(directory.Blobs, src.Digest(), Key(cuts))), []int64{rand.Int64N(25), rand.Int64N(25)}, nil)
		case 2:
			os.Remove(c.at(c.KeyName(directory.Blobs, src.Digest(), Key(cuts))))
		case 3:
			c.KeepMeta(src.Digest(), src.Data)
			if data, ok := c.KeptMeta(src.Digest()); ok && !bytes.Equal(data, src.Data) {
				fail("metadata")
			}
		case 4:
			if i%2 == 0 {
				c.Close()
			}
			if c, err = openTest(dir, opts); err != nil {
				fail("%v", err)
			}
		case 5:
			if _, err := c.Prune(directory.PruneOptions{To: hammerBudget / 2}); err != nil && !errors.Is(err, directory.ErrBusy) {
				fail("%v", err)
			}
		case 6:
			c.NoteImage(meta.Image{Name: "a", Manifest: src.Digest()})
		case 7, 8:
			if err := useContent(c, src.Data[:1+rand.IntN(8)*cachetest.TestChunk]); err != nil {
				fail("%v", err)
			}
		}
	}
}

// useContent opens a content, or stores it if there is room, and reads it.
func useContent(c *testCache, data []byte) error {
	d, n := digest.FromBytes(data), int64(len(data))
	x, err := c.Open(context.Background(), d, n)
	if errors.Is(err, fs.ErrNotExist) {
		x, err = c.Store(context.Background(), d, n, bytes.NewReader(data))
	}
	if errors.Is(err, directory.ErrFull) {
		return nil
	}
	if err != nil {
		return err
	}
	defer x.Close()
	got := make([]byte, n+1)
	if k, _ := x.File().ReadAt(got, 0); int64(k) != n || !bytes.Equal(got[:n], data) {
		return fmt.Errorf("content of %d bytes has %d, or others", n, k)
	}
	return nil
}

func randomRead(b *Blob, src remote.Blob) error {
	off := rand.Int64N(src.Size() - 1)
	p := make([]byte, min(1+rand.Int64N(6*cachetest.TestChunk), src.Size()-off))
	want := make([]byte, len(p))
	src.ReadAt(context.Background(), want, off)
	if _, err := b.ReadAt(context.Background(), p, off); err != nil {
		return fmt.Errorf("read of %d bytes at %d: %w", len(p), off, err)
	}
	if !bytes.Equal(p, want) {
		return fmt.Errorf("read of %d bytes at %d gave wrong bytes", len(p), off)
	}
	return nil
}

// A process is killed at a random moment while it and others read, write and
// remove: nobody ever reads anything wrong, nothing unfinished stays, and what
// the dead had leased is found again.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, &testOptions{Warnf: t.Errorf, Budget: hammerBudget})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range hammerBlobs * 3 {
		src := hammerBlob(i / 3)
		b, err := c.Blob(src, hammerCuts(i / 3)[i%3])
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(3 * time.Millisecond):
				}
				if err := randomRead(b, src); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rounds := killRounds
	if testing.Short() {
		rounds = 10
	}
	// Two at a time, so that the one that lives on meets what the other left.
	for range rounds / 2 {
		if !killTwo(t, dir) {
			break
		}
	}
	close(done)
	wg.Wait()
	c.Close()
	checkAfterKill(t, dir)
}

func killTwo(t *testing.T, dir string) bool {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			cmd := child(t, "hammer", dir)
			var out strings.Builder
			cmd.Stderr = &out
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Error(err)
				return
			}
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			p := make([]byte, 6)
			n, _ := stdout.Read(p)
			time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
			cmd.Process.Kill()
			var rest bytes.Buffer
			rest.ReadFrom(stdout)
			cmd.Wait()
			if string(p[:n]) != "ready\n" || rest.Len() > 0 || out.Len() > 0 {
				t.Errorf("child said %q %q %q", p[:n], rest.String(), out.String())
			}
		})
	}
	wg.Wait()
	return !t.Failed()
}

func checkAfterKill(t *testing.T, dir string) {
	c := openCache(t, dir, &testOptions{Budget: hammerBudget})
	cachetest.CheckTmp(t, dir)
	for i := range hammerBlobs {
		src := hammerBlob(i)
		for _, cuts := range hammerCuts(i) {
			b, err := c.Blob(src, cuts)
			if err != nil {
				t.Fatal(err)
			}
			checkRead(t, b, src.FakeBlob, 0, hammerSize)
			checkRead(t, b, src.FakeBlob, 0, hammerSize)
		}
	}
	contents, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range contents {
		if check, _, err := c.filesPart.Verify(t.Context(), x.Digest); check.Bad || err != nil {
			t.Errorf("content %s: %+v, %v", x.Digest, check, err)
		}
	}
	c.Close()
	checkSpace(t, dir)
}
