//go:build linux

package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// repeat is how long the same failure of the same file is logged only once.
// The kernel asks again at once for what its readahead failed to get.
const repeat = time.Second

// When so many failures of different files were logged, there is one line a
// second.
const manyFailures = 50

// A failureLog turns errors of the tree into errno values and logs those that
// the errno does not explain.
type failureLog struct {
	tree     *fs.Tree
	logf     func(format string, args ...any)
	reported func(err error) bool // nil: nothing has been

	mu      sync.Mutex
	seen    map[failure]time.Time
	spent   int       // of manyFailures
	earned  time.Time // when spent was less last
	skipped int       // failures since the last line
}

type failure struct {
	ino  uint64
	text string
}

// status returns the errno value for the error of a request about an inode.
// Every error of a request that was interrupted is EINTR. EACCES says that the
// content is refused to the user of the mount. A context's error without an
// interrupt is another caller's: it is EIO like any other.
func (l *failureLog) status(ctx context.Context, op string, n fs.Node, err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case ctx.Err() != nil:
		return fuse.EINTR
	case errors.Is(err, iofs.ErrNotExist):
		return fuse.ENOENT
	}
	if l.reported != nil && l.reported(err) {
		return fuse.EIO
	}
	now := time.Now()
	if l.first(failure{n.Ino(), err.Error()}, now) {
		l.log(op, n, err, now)
	}
	if errors.Is(err, iofs.ErrPermission) {
		return fuse.EACCES
	}
	return fuse.EIO
}

// first reports whether a failure was not seen within the last moment.
func (l *failureLog) first(f failure, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.seen[f]; ok && now.Sub(t) < repeat {
		return false
	}
	if l.seen == nil || len(l.seen) >= 1000 {
		l.seen = make(map[failure]time.Time)
	}
	l.seen[f] = now
	return true
}

// log writes the line of a failure, or counts it if there were too many.
func (l *failureLog) log(op string, n fs.Node, err error, now time.Time) {
	skipped, ok := l.admit(now)
	switch {
	case !ok:
	case skipped > 0:
		l.logf("%s %q: %v (%d failures before it are not in the log)", op, pathOf(l.tree, n.Ino()), err, skipped)
	default:
		l.logf("%s %q: %v", op, pathOf(l.tree, n.Ino()), err)
	}
}

// admit tells whether there may be a line, and how many failures since the last
// one have none.
func (l *failureLog) admit(now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since := int(now.Sub(l.earned) / repeat); since > 0 {
		l.spent, l.earned = max(l.spent-since, 0), now
	}
	if l.spent >= manyFailures {
		l.skipped++
		return 0, false
	}
	l.spent++
	skipped, l.skipped = l.skipped, 0
	return skipped, true
}

// pathOf returns a path of an inode, for a log line, which is rare.
func pathOf(t *fs.Tree, ino uint64) string {
	paths := map[uint64]string{ino: ""}
	t.FindPaths(context.Background(), paths)
	return paths[ino]
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }
