package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// diskUsage returns what a directory and all below take on disk, as du -s
// counts. What is removed meanwhile does not count.
func diskUsage(dir string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var total int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if id := (inode{st.Dev, st.Ino}); !seen[id] {
			seen[id] = true
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

// A sampler looks at a directory's size again and again.
type sampler struct {
	most    int64
	samples int
	took    time.Duration
	err     error
	stop    context.CancelFunc
	done    chan struct{}
}

func sample(ctx context.Context, dir string, every time.Duration) *sampler {
	ctx, cancel := context.WithCancel(ctx)
	s := &sampler{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		begun := time.Now()
		defer func() { s.took = time.Since(begun) }()
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			n, err := diskUsage(dir)
			s.most, s.samples, s.err = max(s.most, n), s.samples+1, errors.Join(s.err, err)
			select {
			case <-ticks.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// end stops the sampling; what it found is there then.
func (s *sampler) end() error {
	s.stop()
	<-s.done
	return s.err
}

// chunkSize returns how long the chunks are that a cache directory keeps, from
// the footer of one of its blob files (docs/cache-format.md).
func chunkSize(cache string) (int64, error) {
	names, err := filepath.Glob(filepath.Join(cache, "blobs", "*", "*"))
	if err != nil {
		return 0, err
	}
	const footerSize = 64
	for _, name := range names {
		content, err := readEnd(name, footerSize)
		if err == nil && string(content[:8]) == "imgfsblb" {
			return int64(binary.LittleEndian.Uint32(content[12:])), nil
		}
	}
	return 0, fmt.Errorf("%s has no blob file", cache)
}

func readEnd(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := make([]byte, n)
	_, err = f.ReadAt(p, st.Size()-n)
	return p, err
}
