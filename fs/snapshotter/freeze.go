package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/imgfs/imgfs/remote/memfile"
	"golang.org/x/sys/unix"
)

const (
	// maxRecord is how large the record of a chain may be: names of images have their bound,
	// and JSON writes a byte with up to six.
	maxRecord = maxSources * (6*maxRef + 1<<10)
	// maxDatabase is how large a database is that is copied: one of some 100,000 snapshots.
	maxDatabase = 64 << 20
	// metaPages is within how many bytes a database of bbolt has its first two pages, of which
	// none is larger than those of memory.
	metaPages = 2 * 64 << 10
)

// A frozenFile is a copy of a database, in memory alone.
type frozenFile struct{ *os.File }

// path names the copy for whoever opens it, before it is closed.
func (f frozenFile) path() string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// freeze copies a database of bbolt while another process may write to it, whose lock it does
// not take. A transaction writes pages that none before it needs, and after these one of the
// two at the beginning of the file, which says where they are. So a copy is of one piece if
// the beginning has not changed meanwhile.
func freeze(ctx context.Context, name string) (copied frozenFile, err error) {
	from, err := openRegular(name, maxDatabase)
	if err != nil {
		return copied, err
	}
	defer from.Close()
	to, err := memfile.New("imgfs-snapshots")
	if err != nil {
		return copied, err
	}
	for {
		same, err := copyUnchanged(to, from)
		if err == nil && !same {
			select {
			case <-ctx.Done():
				err = fmt.Errorf("%s: it changes all the time: %w", name, context.Cause(ctx))
			case <-time.After(time.Millisecond):
				continue
			}
		}
		if err != nil {
			to.Close()
			return copied, err
		}
		return frozenFile{to}, nil
	}
}

// copyUnchanged copies a file, and reports whether its first bytes have stayed as they were.
func copyUnchanged(to, from *os.File) (same bool, err error) {
	before, err := beginning(from)
	if err != nil {
		return false, err
	}
	if err := to.Truncate(0); err != nil {
		return false, err
	}
	n, err := io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(from, 0, maxDatabase+1))
	if err != nil {
		return false, err
	}
	if n > maxDatabase {
		return false, tooLarge(from.Name(), maxDatabase)
	}
	after, err := beginning(from)
	return bytes.Equal(before, after), err
}

func beginning(f *os.File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, metaPages))
}

// openRegular opens a file to read it that is one, and not too large. It waits for nobody, as
// a pipe would have it.
func openRegular(name string, limit int64) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s: it is no regular file", name)
	case st.Size() > limit:
		err = tooLarge(name, limit)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func tooLarge(name string, limit int64) error {
	return fmt.Errorf("%s: it is larger than %d bytes", name, limit)
}

// readRegular returns what is in a file, which is small.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := openRegular(name, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
