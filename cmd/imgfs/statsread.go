package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
)

// statsOf asks the mount that a path is in, or is the root of, for its stats.
// ctx ends the wait for a process that does not answer.
func statsOf(ctx context.Context, path string) (mountStats, error) {
	mount, err := fusefs.MountOf(ctx, path)
	if err != nil {
		return mountStats{}, &fusefs.Error{Op: "stats", Dir: path, Err: err, Hint: statsHint(err, path)}
	}
	s, err := askStats(ctx, mount)
	if err != nil {
		return s, &fusefs.Error{Op: "stats", Dir: mount.Dir, Err: err, Hint: statsHint(err, mount.Dir)}
	}
	return s, nil
}

func statsHint(err error, dir string) string {
	switch {
	case errors.Is(err, fusefs.ErrDead):
		return "imgfs umount " + printable.Word(dir)
	case errors.Is(err, fusefs.ErrNotMounted):
		return "imgfs cache ls shows what is mounted where"
	case errors.Is(err, fusefs.ErrNoAnswer):
		return fusefs.HintNoAnswer(dir)
	}
	return ""
}

// askStats reads the stats of a mount by its root.
func askStats(ctx context.Context, mount fusefs.MountPoint) (mountStats, error) {
	var s mountStats
	text, err := mount.Control(ctx, statsAttr)
	switch {
	case errors.Is(err, fusefs.ErrNoControl):
		return s, errors.New("the imgfs that serves it has no stats")
	case err != nil:
		return s, err
	}
	if err := show.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("its stats are of another version of imgfs: %w", err)
	}
	return s, nil
}

// sameDir tells whether two paths are one directory.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
