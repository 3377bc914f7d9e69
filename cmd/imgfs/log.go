package main

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
	maxLog  = 1 << 20 // bytes of the log and of what was put aside of it
	maxLine = 8 << 10 // bytes of a line
)

// A mountLog takes what a mount has to say while it serves: on stderr in the
// foreground, in the file imgfs.log of the cache directory else. The mounts
// of a user share that file, so each line names its mount.
type mountLog struct {
	dir   string // of the mount
	cache *cache.Cache

	mu sync.Mutex
	w  io.Writer
}

func newMountLog(e *env, dir string, disk *cache.Cache) *mountLog {
	return &mountLog{dir: dir, cache: disk, w: e.Stderr}
}

// toFile sends what follows to the file. Where that cannot be written the
// lines are lost: there is nobody left to tell.
func (l *mountLog) toFile() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = io.Discard
	if f, err := l.cache.OpenLog(maxLog); err == nil {
		l.w = f // open as long as the process
	}
}

// printf writes one line, whatever is in it.
func (l *mountLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%s imgfs: %s: %s", time.Now().Format(time.RFC3339), printable.Name(l.dir), printable.Line(fmt.Sprintf(format, args...)))
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	// Of a log that cannot be written nobody can be told.
	_, _ = io.WriteString(l.w, line+"\n")
}
