package index

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// contents compares reading all files of a layer by its TOC with reading them by the index
// of an ordinary pass over the same blob. In both everything is checked.
func (b *bench) contents(in *input) error {
	for _, kind := range []foreign.Kind{foreign.EStargz, foreign.ZstdChunked} {
		t, err := b.twin(in, kind)
		if errors.Is(err, foreign.ErrNone) {
			b.Add(figures.Figure{Name: in.Name + ", " + kind.Name, Unit: "s", Missing: err.Error()})
			continue
		}
		if err == nil {
			err = b.contentsOf(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) contentsOf(t *twin) error {
	blob, err := t.open()
	if err != nil {
		return err
	}
	defer blob.Close()
	toc, err := t.read(b.Ctx, blob)
	if err != nil {
		return err
	}
	defer toc.Close()
	pass, err := makeIndex(b.Ctx, &t.Input)
	if err != nil {
		return err
	}
	sides := []*side{{x: toc, blob: blob}, {x: pass, blob: blob}}
	names, err := sides[0].list(nil)
	if err != nil {
		return err
	}
	if _, err := sides[1].list(names); err != nil {
		return err
	}
	var sums [2][]byte
	var tasks []runner.Task
	for i, s := range sides {
		h := sha256.New()
		if err := s.read(b.Ctx, h); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		sums[i] = h.Sum(nil)
		tasks = append(tasks, runner.Task{Name: t.Name, Who: syscall.RUSAGE_SELF, Run: func() error { return s.read(b.Ctx, io.Discard) }})
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%s: the TOC gives other bytes than the pass", t.Name)
	}
	samples, err := b.InTurns(b.Runs, tasks)
	if err != nil {
		return err
	}
	const peer = "the pass's index"
	b.Add(
		figures.Figure{Name: t.Name + ": wall time", Unit: "s", Ours: samples[0].Wall.Seconds(), Peer: peer, Theirs: samples[1].Wall.Seconds(), AtLeast: 1,
			Note: fmt.Sprintf("%d files, %s", len(sides[0].files), figures.Megabytes(sides[0].size))},
		figures.Figure{Name: t.Name + ": CPU time", Unit: "s", Ours: samples[0].CPU.Seconds(), Peer: peer, Theirs: samples[1].CPU.Seconds(), AtLeast: 1})
	return nil
}

// A side is a layer with one of its indexes.
type side struct {
	x     *layerindex.Index
	blob  *fileBlob
	files []layerindex.Extent // of the index's space, in order
	size  int64               // of all files
}

// list finds the regular files that have one of some names; all if there are no names. It
// returns the names that it found.
func (s *side) list(only map[string]bool) (map[string]bool, error) {
	entries, err := s.x.Entries()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for e := range entries {
		name := path.Clean("/" + e.Name)
		if e.Type != layerindex.TypeReg || e.Size == 0 || only != nil && !only[name] {
			continue
		}
		names[name] = true
		s.files = append(s.files, layerindex.Extent{Off: e.Off, Size: e.Size})
		s.size += e.Size
	}
	slices.SortFunc(s.files, func(a, b layerindex.Extent) int { return cmp.Compare(a.Off, b.Off) })
	return names, nil
}

// read reads all files in requests of the kernel's size, with nothing decoded or checked
// before.
func (s *side) read(ctx context.Context, w io.Writer) error {
	prover, err := reader.NewProver(s.x)
	if err != nil {
		return err
	}
	r := reader.New(s.x, &checkedBlob{fileBlob: s.blob, cuts: prover}, &reader.Options{Cache: reader.NewSpanCache(64 << 20), NewTemp: newTemp, Prover: prover})
	buf := make([]byte, requestSize)
	for _, f := range s.files {
		for off, end := f.Off, f.Off+f.Size; off < end; {
			n, err := r.ReadFileAt(ctx, buf[:min(requestSize, end-off)], off, end)
			if err != nil {
				return errors.Join(err, r.Close())
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return errors.Join(err, r.Close())
			}
			off += int64(n)
		}
	}
	return r.Close()
}

// A checkedBlob checks each cut of a blob before anything of it is read, as the cache of
// a mount does. It is safe for concurrent use.
type checkedBlob struct {
	*fileBlob
	cuts *reader.Prover

	mu    sync.Mutex
	sound map[int64]bool
}

// ReadAt implements reader.Blob.
func (b *checkedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	for k := b.cuts.Find(off); k < b.cuts.Len(); k++ {
		begin, end := b.cuts.Bounds(k)
		if begin >= off+int64(len(p)) {
			break
		}
		if err := b.check(ctx, k, begin, end); err != nil {
			return 0, err
		}
	}
	return b.fileBlob.ReadAt(ctx, p, off)
}

func (b *checkedBlob) check(ctx context.Context, k, begin, end int64) error {
	b.mu.Lock()
	sound := b.sound[k]
	b.mu.Unlock()
	if sound {
		return nil
	}
	cut := make([]byte, end-begin)
	if _, err := b.fileBlob.ReadAt(ctx, cut, begin); err != nil {
		return err
	}
	if !b.cuts.Match(k, cut) {
		return fmt.Errorf("bytes %d to %d are not what the index says", begin, end)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sound == nil {
		b.sound = map[int64]bool{}
	}
	b.sound[k] = true
	return nil
}
