package blobs

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// Of a blob that there is no room for a stream goes as far as reads wait, and a
// little longer; reads behind it have the next one together.
func TestStreamNoRoom(t *testing.T) {
	dir, src := t.TempDir(), newWholeSource(t, 7)
	synctest.Test(t, func(t *testing.T) {
		c := openCache(t, dir, &testOptions{Budget: streamSize / 2})
		src.t = t
		b := src.cached(c)
		for off := 0; off < streamSize/2; off += 1000 { // in order
			src.mustRead(b, off, 1000)
			time.Sleep(streamLinger / 8)
		}
		if got := src.streams(); len(got) != 1 {
			t.Errorf("streams from %v for reads in order", got)
		}
		if most := int64(streamSize/2 + 3*cachetest.TestChunk); src.sent() > most {
			t.Errorf("%d bytes came for half of %d", src.sent(), streamSize)
		}
		time.Sleep(2 * streamLinger)
		synctest.Wait()
		if b.s.streaming() {
			t.Error("the stream has not ended")
		}
		c.Remove(src.Digest())
		for i := range maxRecent / cachetest.TestChunk { // memory is for others
			c.sched.recent.put(b.s, streamSize+int64(i), make([]byte, cachetest.TestChunk))
		}

		// One at the end, and when it has gone by some at the beginning.
		n := len(src.streams())
		src.before = func(_ context.Context, _ int, off int64) error { time.Sleep(time.Millisecond); return nil }
		var wg sync.WaitGroup
		wg.Go(func() { src.mustRead(b, streamSize-10, 10) })
		time.Sleep(20 * time.Millisecond)
		for i := range 10 {
			wg.Go(func() { src.mustRead(b, i*cachetest.TestChunk, 10) })
		}
		wg.Wait()
		// The first of them may not be the one furthest at the beginning.
		if got := src.streams()[n:]; len(got) > 3 {
			t.Errorf("streams from %v", got)
		}
		if src.alone > 0 {
			t.Errorf("%d reads were for one", src.alone)
		}
		if used, err := c.Usage(); err != nil || used > streamSize/2 {
			t.Errorf("%d bytes on disk; %v", used, err)
		}
		c.Close()
	})
}

// The parts of a long read of a blob that there is no room for, which come in
// any order, need few streams.
func TestStreamNoRoomParts(t *testing.T) {
	testenv.Slow(t)
	for i := range 20 {
		c, src := openCache(t, t.TempDir(), &testOptions{Budget: streamSize / 2, MaxRequest: 3 * cachetest.TestChunk}), newWholeSource(t, uint64(20+i))
		src.mustRead(src.cached(c), 0, streamSize)
		if got := src.streams(); len(got) > 3 {
			t.Errorf("streams from %v", got)
		}
		c.Close()
	}
}

// streamHalf is a process that has half of a blob when it is killed.
func streamHalf(dir string) {
	c, err := openTest(dir, nil)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	src := newWholeSource(nil, 10)
	src.before = func(_ context.Context, _ int, off int64) error {
		if off > streamSize/2 {
			fmt.Println("ready")
			select {}
		}
		return nil
	}
	b, err := c.Blob(src, cutsOfSize(src.data, cachetest.TestChunk))
	if err == nil {
		err = src.read(context.Background(), b, streamSize-10, 10)
	}
	fmt.Println("failed:", err)
}

// What a process had of a blob when it was killed the next one has, and it goes
// on from there.
func TestStreamKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "stream", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready string
	if _, err := fmt.Fscanln(out, &ready); err != nil || ready != "ready" {
		t.Errorf("the child said %q, %v", ready, err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	c, src := openCache(t, dir, nil), newWholeSource(t, 10)
	have := src.present(c)
	if have < streamSize/2-2*cachetest.TestChunk || have%cachetest.TestChunk != 0 {
		t.Errorf("%d of %d bytes are there", have, streamSize)
	}
	cachetest.CheckTmp(t, dir)
	b := src.cached(c)
	src.mustRead(b, 0, int(have))
	src.mustRead(b, streamSize-10, 10)
	c.Wait()
	if got := src.streams(); len(got) != 1 || got[0] != have || src.present(c) != streamSize {
		t.Errorf("streams from %v, want %d; %d bytes on disk", got, have, src.present(c))
	}
	if v := b.Verification(); v != meta.VerifiedWhole {
		t.Errorf("the blob is verified as %v", v)
	}
}

// A blob that is sent whole is recorded if the budget has room for all of it;
// another for no more than half.
func TestRecordWhole(t *testing.T) {
	c, src := openCache(t, t.TempDir(), &testOptions{Budget: streamSize * 3 / 2}), newWholeSource(t, 11)
	for _, tt := range []struct {
		from remote.Blob
		want bool
	}{{plainBlob{&cachetest.FakeBlob{Data: src.data}}, false}, {src, true}} {
		r, err := c.Record(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		r.Write(src.data[:1000])
		r.Write(src.data[1000:])
		if err := r.Commit(chunksOf(src.data, cachetest.TestChunk)); err != nil || r.Recorded() != tt.want {
			t.Errorf("recorded: %v, error %v", r.Recorded(), err)
		}
	}
	src.mustRead(src.cached(c), 0, streamSize)
	if got := src.streams(); len(got) > 0 {
		t.Errorf("streams from %v of what was recorded", got)
	}
}
