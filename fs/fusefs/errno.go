package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"path"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// repeat is how long the same failure of the same file is logged only once.
// The kernel asks again at once for what its readahead failed to get.
const repeat = time.Second

// A failureLog turns errors of the tree into errno values and logs those that
// the errno does not explain.
type failureLog struct {
	tree *fs.Tree
	logf func(format string, args ...any)
	told func(err error) bool // nil: the user knows nothing

	mu   sync.Mutex
	seen map[failure]time.Time
}

type failure struct {
	ino  uint64
	text string
}

// status returns the errno value for the error of a request about an inode.
// Every error of a request that was interrupted is EINTR. EACCES says that
// whoever has the content does not give it to the user of the mount. A context's error
// without an interrupt is somebody else's: it is EIO like any other.
func (l *failureLog) status(ctx context.Context, op string, n fs.Node, err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case ctx.Err() != nil:
		return fuse.EINTR
	case errors.Is(err, iofs.ErrNotExist):
		return fuse.ENOENT
	}
	if l.told != nil && l.told(err) {
		return fuse.EIO
	}
	if l.first(failure{n.Ino(), err.Error()}, time.Now()) {
		l.logf("%s %q: %v", op, pathOf(l.tree, n.Ino()), err)
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

// pathOf returns a path of an inode, for a log line. It searches the tree:
// failures are rare, and nodes do not know their names.
func pathOf(t *fs.Tree, ino uint64) string {
	type dir struct {
		node fs.Node
		path string
	}
	if ino == t.Root().Ino() {
		return "/"
	}
	for todo := []dir{{t.Root(), "/"}}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for name, child := range d.node.Children() {
			if child.Ino() == ino {
				return path.Join(d.path, name)
			}
			if isDir(child) {
				todo = append(todo, dir{child, path.Join(d.path, name)})
			}
		}
	}
	return ""
}

func isDir(n fs.Node) bool { return n.Mode()&unix.S_IFMT == unix.S_IFDIR }
