package index

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	kgzip "github.com/klauspost/compress/gzip"
)

const passPeer = "klauspost gzip + archive/tar + crypto/sha256"

// pass compares making an index with the same work done by usual libraries: all
// of the same hashes and the tar's entries, but no checkpoints.
func (b *bench) pass(in *input) error {
	plain, err := plainPassFile(in.Path)
	if err != nil {
		return err
	}
	if err := plain.compare(in); err != nil {
		return err
	}
	samples, err := b.InTurns(b.Runs, []runner.Task{
		{Name: "our pass", Who: syscall.RUSAGE_SELF, Run: func() error {
			_, err := makeIndex(b.Ctx, &in.Input)
			return err
		}},
		{Name: "plain pass", Who: syscall.RUSAGE_SELF, Run: func() error {
			_, err := plainPassFile(in.Path)
			return err
		}},
	})
	if err != nil {
		return err
	}
	ours, other := samples[0], samples[1]
	b.Add(
		figures.Figure{Name: in.Name + ": CPU time", Unit: "s", Ours: ours.CPU.Seconds(), Peer: passPeer, Theirs: other.CPU.Seconds(), AtLeast: 1.6},
		figures.Figure{Name: in.Name + ": wall time", Unit: "s", Ours: ours.Wall.Seconds(), Peer: passPeer, Theirs: other.Wall.Seconds()})
	return nil
}

// A seenFile is an entry as the plain pass sees it.
type seenFile struct {
	name string
	sum  [32]byte // of regular files
}

// A plainResult is a layer as the plain pass sees it.
type plainResult struct {
	blob, diffID [32]byte
	chunks       []byte
	files        []seenFile
}

// chunkSize is that of build.Options by default.
const chunkSize = 64 << 10

func plainPassFile(path string) (*plainResult, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return plainPass(f)
}

// plainPass reads a layer once, in the obvious way.
func plainPass(src io.Reader) (*plainResult, error) {
	blobHash, tarHash, chunks := sha256.New(), sha256.New(), &chunkHash{h: sha256.New(), left: chunkSize}
	in := bufio.NewReaderSize(io.TeeReader(src, io.MultiWriter(blobHash, chunks)), chunkSize)
	z, err := kgzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	out := bufio.NewReaderSize(io.TeeReader(z, tarHash), 256<<10)
	res := &plainResult{}
	if err := res.readTar(out); err != nil {
		return nil, err
	}
	for _, rest := range []io.Reader{out, in} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return nil, err
		}
	}
	blobHash.Sum(res.blob[:0])
	tarHash.Sum(res.diffID[:0])
	res.chunks = chunks.finish()
	return res, nil
}

// readTar reads the entries and the content of regular files.
func (r *plainResult) readTar(src io.Reader) error {
	t := tar.NewReader(src)
	h, buf := sha256.New(), make([]byte, 256<<10)
	for {
		head, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if head.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e := seenFile{name: head.Name}
		if head.Typeflag == tar.TypeReg {
			h.Reset()
			if _, err := io.CopyBuffer(h, t, buf); err != nil {
				return err
			}
			h.Sum(e.sum[:0])
		}
		r.files = append(r.files, e)
	}
}

// A chunkHash takes the SHA-256 of every chunk of its input.
type chunkHash struct {
	h    hash.Hash
	left int // of the current chunk
	sums []byte
}

func (c *chunkHash) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(c.left, len(p))
		c.h.Write(p[:k])
		p = p[k:]
		if c.left -= k; c.left == 0 {
			c.sums = c.h.Sum(c.sums)
			c.h.Reset()
			c.left = chunkSize
		}
	}
	return n, nil
}

// finish ends the last chunk and returns all sums.
func (c *chunkHash) finish() []byte {
	if c.left < chunkSize {
		c.sums = c.h.Sum(c.sums)
	}
	return c.sums
}

// compare tells whether an input's index says the same as r.
func (r *plainResult) compare(in *input) error {
	x := in.index
	if fmt.Sprintf("sha256:%x", r.blob) != in.Digest.String() || fmt.Sprintf("sha256:%x", r.diffID) != in.DiffID.String() {
		return errors.New("the plain pass has other digests")
	}
	if sums, err := x.ChunkSums(); err != nil || x.ChunkSize() != chunkSize || !bytes.Equal(sums, r.chunks) {
		return fmt.Errorf("the plain pass has other sums of chunks (%v)", err)
	}
	if x.NumEntries() != len(r.files) {
		return fmt.Errorf("%d entries, the plain pass has %d", x.NumEntries(), len(r.files))
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		return err
	}
	i := 0
	for e := range entries {
		if f := r.files[i]; e.Name != f.name || e.HasDigest && e.Digest != f.sum {
			return fmt.Errorf("entry %d, %q: the plain pass has %q, or another digest", i, e.Name, f.name)
		}
		i++
	}
	return nil
}
