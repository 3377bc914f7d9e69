package directory

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logWait is how long a line waits for other processes that write.
const logWait = 50 * time.Millisecond

// A Log is the log that programs keep in the directory, open for appending. Any
// number of processes may have it open: whoever finds it full puts it aside, and
// the others notice. Each line is written whole, or lost. It is safe for
// concurrent use.
type Log struct {
	c    *Dir
	most int64 // bytes of each of the two files

	mu   sync.Mutex
	f    *os.File // nil: not open
	lost int      // lines
}

// OpenLog opens the log that programs keep in the directory. It and the one that
// was put aside before have at most limit bytes together.
func (c *Dir) OpenLog(limit int64) (*Log, error) {
	// Where there are no locks some lines more can come to a file that is full.
	l := &Log{c: c, most: limit * 15 / 32}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return nil, err
	}
	// It may be of a time when more was allowed.
	if st, err := c.files.Stat(oldLogName); err == nil && st.Size > l.most {
		_ = c.files.Remove(oldLogName) // it is of no more use
	}
	return l, nil
}

// open opens the file that is at the log's place, or makes it. One that has
// another name as well is somebody else's; this name of it makes room. The
// caller holds mu.
func (l *Log) open() error {
	if l.c.readOnly != nil {
		return l.c.readOnly
	}
	for again := false; ; again = true {
		f, err := openOver(l.c.files, LogName, os.O_WRONLY|os.O_APPEND)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Nlink <= 1 {
			l.f = f
			return nil
		}
		f.Close()
		if again {
			return cmp.Or(err, error(unix.EMLINK))
		}
		if err := l.c.files.Remove(LogName); err != nil {
			return err
		}
	}
}

// Write appends a line. One that is lost is counted, and told of by the next.
func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := line
	if l.lost > 0 {
		text = fmt.Appendf(nil, "%s imgfs: lines of this process that are lost: %d\n%s", time.Now().Format(time.RFC3339), l.lost, line)
	}
	if err := l.append(text); err != nil {
		l.lost++
		return 0, err
	}
	l.lost = 0
	return len(line), nil
}

// append writes to the file that is at the log's place now, if it has room, or
// to a new one.
func (l *Log) append(text []byte) error {
	for deadline := time.Now().Add(logWait); ; {
		var err error
		if l.f == nil {
			if err = l.open(); err != nil {
				return err
			}
		}
		switch err = Flock(l.f, unix.LOCK_EX|unix.LOCK_NB); {
		case err == unix.EWOULDBLOCK:
			time.Sleep(time.Millisecond)
		case !l.c.files.Is(l.f, LogName): // others have put it aside, or it is gone
			l.close()
		case l.full(len(text)):
			l.putAside()
			l.close()
		default: // a file system without locks has the lines of several anyway
			_, err = l.f.Write(text)
			_ = Flock(l.f, unix.LOCK_UN)
			return err
		}
		if time.Now().After(deadline) {
			return cmp.Or(err, ErrBusy)
		}
	}
}

// full tells whether n bytes are too many for the file.
func (l *Log) full(n int) bool {
	st, err := l.f.Stat()
	return err != nil || st.Size()+int64(n) > l.most
}

// putAside makes room for a new file. One of before, when more was allowed, is
// emptied instead, as is one that cannot be put aside.
func (l *Log) putAside() {
	st, err := l.f.Stat()
	if err == nil && st.Size() <= l.most && l.c.files.Rename(LogName, oldLogName) == nil {
		return
	}
	// What is left of it is too much, or cannot be written either.
	_ = l.f.Truncate(0)
}

// close closes the file, which unlocks it.
func (l *Log) close() {
	l.f.Close()
	l.f = nil
}

// File returns another descriptor of the file that the log has at the moment, for a
// process that has a last line to write and nothing to write it with. The caller closes it.
func (l *Log) File() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		if err := l.open(); err != nil {
			return nil, err
		}
	}
	fd, err := unix.FcntlInt(l.f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), l.f.Name()), nil
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	defer func() { l.f = nil }()
	return l.f.Close()
}
