package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/printable"
)

// StatsOf asks the mount that a path is in, or is the root of, for its stats.
// ctx ends the wait for a process that does not answer.
func StatsOf(ctx context.Context, path string) (Stats, error) {
	mount, err := fusefs.MountOf(ctx, path)
	if m, barred := fusefs.BarredBy(path); barred && errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: it is in the mount %s, into which only %s may look", fusefs.ErrForeign, printable.Name(m.Dir), m.Owner)
	}
	if err != nil {
		return Stats{}, &fusefs.Error{Op: "stats", Dir: path, Err: err, Hint: statsHint(err, path)}
	}
	s, err := askStats(ctx, mount)
	if errors.Is(err, fusefs.ErrDead) {
		if why := goneReason(ctx, mount); why != "" {
			err = fmt.Errorf("%w: %s", err, printable.Line(why))
		}
	}
	hint := statsHint(err, mount.Place())
	if errors.Is(err, fusefs.ErrNoAnswer) { // the time is over
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		defer cancel()
		if p, ok := FindStopped(asking, mount); ok {
			err = fmt.Errorf("%w: %v", err, p)
			hint = fmt.Sprint("kill -CONT ", p.PID)
			if !p.Holder {
				hint += ", or imgfs upgrade " + printable.Word(mount.Place())
			}
		}
	}
	if err != nil {
		return s, &fusefs.Error{Op: "stats", Dir: mount.Place(), Err: err, Hint: hint}
	}
	return s, nil
}

func statsHint(err error, dir string) string {
	switch {
	case errors.Is(err, fusefs.ErrDead):
		return "imgfs umount " + printable.Word(dir)
	case errors.Is(err, fusefs.ErrForeign), errors.Is(err, fusefs.ErrPermission):
		return "only that user and root may ask it; " + fusefs.HintBarred
	case errors.Is(err, fusefs.ErrNotMounted):
		return "imgfs ps shows what is mounted where"
	case errors.Is(err, fusefs.ErrNoAnswer):
		return fusefs.HintNoAnswer(dir)
	}
	return ""
}

// askStats reads the stats of a mount by its root.
func askStats(ctx context.Context, mount fusefs.MountPoint) (Stats, error) {
	var s Stats
	text, err := mount.Control(ctx, StatsAttr)
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

// LiveMounts are the mounts that use a cache directory.
type LiveMounts []Stats

// MountsOf asks all mounts that this user may ask whether they use a cache
// directory. A mount that does not answer within two seconds is left out.
func MountsOf(ctx context.Context, cacheDir string) LiveMounts {
	points, err := fusefs.Mounts()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	type answer struct {
		i     int
		stats Stats
	}
	answers := make(chan answer, len(points))
	for i, p := range points {
		go func() {
			s, err := askStats(ctx, p)
			if err != nil || !sameDir(s.CacheDir, cacheDir) { // which may hang, too
				s = Stats{}
			} else {
				s.Dir = p.Place() // as this process sees it
			}
			answers <- answer{i, s}
		}()
	}
	all := make(LiveMounts, len(points))
	for range points {
		select {
		case a := <-answers:
			all[a.i] = a.stats
		case <-ctx.Done():
		}
	}
	return slices.DeleteFunc(all, func(s Stats) bool { return s.Dir == "" })
}

// Dirs returns where an image is mounted.
func (m LiveMounts) Dirs(img meta.Image) []string {
	dirs := []string{}
	for _, s := range m {
		if s.Image == img.Name && s.Manifest == img.Manifest {
			dirs = append(dirs, s.Dir)
		}
	}
	return dirs
}

// sameDir reports whether two paths are one directory.
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
