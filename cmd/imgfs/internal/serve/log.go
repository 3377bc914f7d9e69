package serve

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	maxLog  = 1 << 20 // bytes of the log, and of its predecessor
	maxLine = 8 << 10 // bytes of a line
)

// A mountLog takes the messages of a mount that is being served: they go to stderr
// in the foreground, and else to the log in the cache directory. The mounts of a
// user share that file, so each line names its mount.
type mountLog struct {
	dir   string // the mountpoint
	cache *cache.Cache

	mu sync.Mutex
	w  io.Writer
}

func newMountLog(stderr io.Writer, dir string, disk *cache.Cache) *mountLog {
	return &mountLog{dir: dir, cache: disk, w: stderr}
}

// toFile sends the messages to the file from now on. If that cannot be opened they
// are lost: there is nobody left to tell.
func (l *mountLog) toFile() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = io.Discard
	if f, err := l.cache.OpenLog(maxLog); err == nil {
		l.w = f // open as long as the process
	}
}

// printf writes a message as one line.
func (l *mountLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%s imgfs: %s: %s", time.Now().Format(time.RFC3339), printable.Name(l.dir), printable.Line(fmt.Sprintf(format, args...)))
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	// If the log cannot be written there is nobody to tell.
	_, _ = io.WriteString(l.w, line+"\n")
}
