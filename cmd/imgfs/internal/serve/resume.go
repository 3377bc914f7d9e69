package serve

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/cache"
)

const (
	// maxStarts in startsWithin is how often a kept mount is tried. Then it is given up,
	// and mounted anew. A server that has served for settled ends the count.
	maxStarts    = 10
	startsWithin = time.Minute
	settled      = time.Second
	// waitToStart is how long a process waits at most that the service manager has started
	// after one that failed.
	waitToStart = 10 * time.Second
)

// Resume takes over the mount that r.Store has kept, if it was mounted with the same command
// line, and returns the image's name, which r.Args gets as well. Else, and if it has been
// tried too often, it is unmounted, and Resume returns nil.
func Resume(ctx context.Context, e *cli.Env, r *Recovery, disk *cache.Cache) (s *Succession, name string) {
	s = &Succession{with: r.Store, came: holder.Succeed{Died: -1, Device: r.Store.device, State: r.Store.state}}
	s.log = newMountLog(e.Stderr, "", disk)
	if err := s.read(); err != nil {
		e.Warnf("what the service manager has kept is of no use: %s", cli.Describe(err))
		s.drop(ctx)
		return nil, ""
	}
	s.log = newMountLog(e.Stderr, s.dir, disk)
	n := &s.keeper.note
	n.Starts = recent(append(n.Starts, time.Now()))
	switch {
	case s.keeper.kept.Gone(), !n.Ready:
	case !n.sameCommand(r):
		e.Warnf("%s: the unit says something else now, and it is mounted anew", s.dir)
	case len(n.Starts) > maxStarts:
		e.Warnf("%s: %d servers have ended within a minute: it is mounted anew", s.dir, maxStarts)
	default:
		if err := s.keeper.change(func(*note) {}); err != nil {
			e.Warnf("the starts are not counted: %s", cli.Describe(err))
		}
		r.Args = n.Args
		return s, n.Args[len(n.Args)-1]
	}
	s.drop(ctx)
	return nil, ""
}

// sameCommand reports whether a mount was made with the flags and words of r, whose Args
// have no image: what a word names would be looked for in directories, and one of these may
// be the mount.
func (n *note) sameCommand(r *Recovery) bool {
	last := len(r.Args) - 1
	return len(n.Args) == len(r.Args) && slices.Equal(n.Args[:last], r.Args[:last]) && slices.Equal(n.Words, r.Words)
}

// recent returns the times that count.
func recent(starts []time.Time) []time.Time {
	return slices.DeleteFunc(starts, func(t time.Time) bool { return time.Since(t) > startsWithin })
}

// drop unmounts what was kept.
func (s *Succession) drop(ctx context.Context) {
	if s.keeper != nil {
		s.unmount(ctx)
		s.made.Remove()
		s.overlay.giveUp() // before this process opens that directory again
		s.keeper.kept.Close()
	}
	s.with.Done()
}

// Stopped unmounts if the unit of a service manager is stopped, and not to be started
// again, before the mount is served.
func (s *Succession) Stopped() {
	if store, ok := s.with.(*Store); ok && !store.unit.restarting(context.Background()) {
		s.drop(context.Background())
	}
}

// settle forgets the starts when this process has served for a while.
func (s *Succession) settle() {
	time.AfterFunc(settled, func() { _ = s.keeper.change(func(n *note) { n.Starts = nil }) })
}

// nextTime tells the log why this process cannot serve, and prepares for the next one.
func (s *Succession) nextTime(err error) {
	s.log.printf("the mount cannot be served again: %s", cli.Describe(err))
	if s.keeper == nil {
		return // of what cannot be read there is none
	}
	if errors.Is(err, fusefs.ErrChanged) {
		_ = s.keeper.change(func(n *note) { n.Ready = false }) // or it is tried again
		return
	}
	time.Sleep(min(50*time.Millisecond<<len(s.keeper.note.Starts), waitToStart/2))
}

// tellManager tells the service manager, if there is one, that the mount is there.
func (m *Mount) tellManager(status string) {
	if !Managed() {
		return
	}
	if err := m.keeper.change(func(n *note) { n.Ready = true }); err != nil {
		m.Env.Warnf("the next server does not go on with the mount: %s", cli.Describe(err))
	}
	notify(notifyReady, notifyStatus(status))
}

// left reports whether this process is to end without unmounting, after a signal: its
// service manager starts another one, which goes on.
func (m *Mount) left() bool {
	store, ok := m.keeper.custodianNow().(*Store)
	return ok && store.unit.restarting(context.Background())
}

// custodianNow returns what keeps the mount, nil if nothing does.
func (k *keeper) custodianNow() custodian {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.with
}

// PrepareDir makes a directory for a unit of a service manager, takes away what a process
// left there that was killed, and waits a little if the last server of the unit has failed.
func PrepareDir(ctx context.Context, dir string) {
	awaitTurn(ctx)
	_ = RemoveDead(ctx, dir) // what it leaves is told when it is looked at
	makeDir(dir)
}

// makeDir makes a directory, and those above it, for others to get there. What is wrong is
// told when it is looked at.
func makeDir(dir string) {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir {
		makeDir(filepath.Dir(dir))
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		_ = os.Chmod(dir, 0o755) // the umask is for what only this user may see
	}
}

// awaitTurn waits the longer the oftener the unit has failed in a row: it starts again at
// once, as that is what a mount needs whose server was killed.
func awaitTurn(ctx context.Context) {
	unit, err := ownUnit()
	if err != nil {
		return
	}
	const count = "NRestarts"
	shown, err := unit.show(ctx, count)
	if err != nil {
		return
	}
	n, err := strconv.Atoi(shown[count])
	if err != nil || n == 0 {
		return
	}
	defer Starting("waiting, as the last server has failed")()
	select {
	case <-ctx.Done():
	case <-time.After(min(time.Duration(n)*time.Second, waitToStart)):
	}
}
