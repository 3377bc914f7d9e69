package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/overlayfs"
	"github.com/imgfs/imgfs/remote/cache"
)

// A Succession is a mount whose server has died, or is to be replaced, and which this
// process is to serve.
type Succession struct {
	keeper *keeper
	with   custodian
	link   *holder.Link // nil under a service manager
	came   holder.Succeed
	dir    string // where the image is mounted
	made   *Mountpoint
	log    *mountLog
	held   []*os.File // as note.Held names them

	overlay *Overlay         // the writable view; nil if there is none
	view    *overlayfs.Mount // that view
}

// Succeed takes over what a holder has given to this process. r is as the first server had
// it, and dir is the directory of the mount. disk has the log; it may be nil. The messages of
// e go there. An error leaves nothing to serve.
func Succeed(e *cli.Env, r *Recovery, disk *cache.Cache, dir string) (*Succession, error) {
	s := &Succession{log: newMountLog(e.Stderr, dir, disk)}
	if disk != nil {
		s.log.toFile()
	}
	e.SetOutput(func(line string) { s.log.printf("%s", line) })
	var err error
	if s.link, s.came, err = holder.Inherit(r.config(dir, disk)); err != nil {
		return nil, fmt.Errorf("mount: --%s: %w", SucceedFlag, err)
	}
	s.with = s.link
	if err := s.read(); err != nil {
		return nil, s.Failed(err)
	}
	return s, nil
}

// SucceedFlag tells imgfs mount that it is a successor.
const SucceedFlag = "succeed"

// read reads what the servers before have left.
func (s *Succession) read() error {
	kept, err := fusefs.OpenKept(s.came.Device, s.came.State)
	if err != nil {
		return err
	}
	if s.link != nil {
		s.link.SetName(kept.Device())
	}
	s.keeper, s.dir = &keeper{kept: kept, with: s.with}, kept.Dir()
	n := &s.keeper.note
	if err := json.Unmarshal(kept.Note(), n); err != nil {
		return fmt.Errorf("what the last server has noted: %w", err)
	}
	if s.held, err = s.with.Held(); err == nil && len(s.held) < len(n.Held) {
		err = fmt.Errorf("%d files are held, and %d were noted", len(s.held), len(n.Held))
	}
	if err != nil {
		return err
	}
	if n.Made != "" {
		if lock := s.file(heldDir); lock != nil {
			s.made = &Mountpoint{Dir: n.Made, lock: lock}
		}
	}
	return s.takeView()
}

// file returns the held file of a name, or nil.
func (s *Succession) file(name string) *os.File {
	if i := slices.Index(s.keeper.note.Held, name); i >= 0 {
		return s.held[i]
	}
	return nil
}

// Opened reports whether the image was open. Then Held has what it is opened by.
func (s *Succession) Opened() bool { return s.keeper.note.Opened }

// Made returns the directory, if it was made for the mount, or nil.
func (s *Succession) Made() *Mountpoint { return s.made }

// Authfile returns what a file for credentials said that could be read once, or nil.
func (s *Succession) Authfile() *os.File { return s.file(heldAuthfile) }

// Held returns what was kept for opening the image.
func (s *Succession) Held() (held []image.Held) {
	for i, name := range s.keeper.note.Held { // more came if the last server was killed just then
		if name, ok := strings.CutPrefix(name, heldImage); ok {
			held = append(held, image.Held{Name: name, File: s.held[i]})
		}
	}
	return held
}

// Failed tells the holder why this process cannot serve: if no other one can either, the
// holder says so in the log. It returns an error that is not to be printed.
func (s *Succession) Failed(err error) error {
	if s.link != nil {
		s.link.Refuse(err)
	} else {
		s.nextTime(err)
	}
	return &cli.ExitError{Code: cli.ExitFailure}
}

// Over ends what is left of the mount, and returns true, if there is nothing to serve: it
// was unmounted meanwhile, or nobody was told of it.
func (s *Succession) Over(ctx context.Context) bool {
	if s.keeper.note.Ready && !s.keeper.kept.Gone() {
		return false
	}
	s.unmount(ctx)
	s.made.Remove()
	s.overlay.giveUp()
	s.keeper.done()
	return true
}

// unmount takes the mount out of the directory tree, wherever it is. When it has ended its
// number may be that of another one, which lives.
func (s *Succession) unmount(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tryUnmount)
	defer cancel()
	if s.keeper.kept.Gone() {
		if _, err := fusefs.RemoveDead(ctx, s.keeper.kept.Dir()); err != nil {
			s.log.printf("%v", err)
		}
		return
	}
	mounts, err := fusefs.Mounts()
	if err != nil {
		return // it ends with the device
	}
	for _, m := range slices.Backward(mounts) {
		if m.Device == s.keeper.kept.Device() {
			if err := fusefs.UnmountLazy(ctx, m.Dir); err != nil {
				s.log.printf("%v", err)
			}
		}
	}
}

// takeOver begins to serve the mount, when the last server has died. tree is nil if it was
// never shown.
func (s *Succession) takeOver(ctx context.Context, tree *fs.Tree, opts *fusefs.Options) (*fusefs.Server, error) {
	next, err := fusefs.Prepare(ctx, s.keeper.kept, tree, opts)
	if err != nil {
		return nil, s.Failed(err)
	}
	died, why := s.came.Died, diedText(s.came.Died)
	if s.came.Standby {
		if died, err = s.await(ctx); err == nil {
			err = s.readAgain()
		}
		if err != nil {
			next.Close()
			return nil, s.Failed(err)
		}
		why = "upgrade"
	}
	noted := s.keeper.change(func(n *note) { // before the first question that it answers
		n.Restarts, n.LastRestart, n.LastWhy = n.Restarts+1, time.Now().UTC().Truncate(time.Second), why
	})
	srv, err := next.Start(died)
	if err != nil {
		return nil, s.Failed(err)
	}
	s.log.printf("served again by process %d: %s", os.Getpid(), why)
	if err := errors.Join(noted, s.with.Serving()); err != nil {
		s.log.printf("%s", cli.Describe(err))
	}
	s.settle()
	return srv, nil
}

// readAgain reads what the server has noted while this process waited to replace it. If
// that got other files it fails: the next successor has them all.
func (s *Succession) readAgain() error {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	var n note
	if err := json.Unmarshal(k.kept.Note(), &n); err != nil {
		return fmt.Errorf("what the last server has noted: %w", err)
	}
	if !slices.Equal(n.Held, k.note.Held) {
		return errors.New("the last server got other files meanwhile")
	}
	k.note = n
	return nil
}

// await waits until the server is ended that this process is to replace, and returns how.
func (s *Succession) await(ctx context.Context) (died int, err error) {
	if err := s.link.Ready(); err != nil {
		return -1, err
	}
	return s.link.AwaitGo(ctx)
}
