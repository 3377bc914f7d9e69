package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/fs/fusefs"
)

// Holders listen, and leave word when they give up, where directories to mount on are made.

// socketDir returns where the holders of this user listen; "" if there is no place.
func socketDir() string {
	base, err := openBase(false)
	if err != nil {
		return ""
	}
	return base
}

// OwnerOf returns the number of the user who has mounted a mount.
func OwnerOf(m fusefs.MountPoint) int {
	uid, err := strconv.Atoi(strings.TrimPrefix(m.Owner, "user "))
	if err != nil {
		return 0 // "root"
	}
	return uid
}

// socketDirs returns where the holder of a mount may listen. Root asks those of others, too.
func socketDirs(m fusefs.MountPoint) (dirs []string) {
	for _, p := range places(false) {
		dirs = append(dirs, p.dir)
	}
	if uid, ok := strings.CutPrefix(m.Owner, "user "); ok && !m.Own() {
		dirs = append(dirs, fmt.Sprintf("/run/user/%s/imgfs", uid), filepath.Join("/tmp", "imgfs-"+uid))
	}
	return dirs
}

// goneReason returns why nobody serves a mount any more, as far as its holder has left word
// of it, or "".
func goneReason(ctx context.Context, m fusefs.MountPoint) string {
	reason, _ := fusefs.Ask(ctx, func(context.Context) (string, error) { // the directory may be a stranger's
		for _, dir := range socketDirs(m) {
			if gone, ok := holder.ReadGone(dir, m.Device, OwnerOf(m)); ok && gone.Dir == m.Place() {
				return gone.Reason, nil
			}
		}
		return "", nil
	})
	return reason
}

// Continue has the processes of a mount go on that was unmounted while they were stopped, so
// that they end.
func Continue(ctx context.Context, m fusefs.MountPoint) {
	if m.Device != "" {
		holder.Continue(ctx, m.Device, OwnerOf(m))
	}
}

// A StoppedProcess is one that the readers of a mount wait for, and that is stopped.
type StoppedProcess struct {
	PID    int
	Holder bool // it would restart the server, of which there is none
}

func (p StoppedProcess) String() string {
	if p.Holder {
		return (&holder.SilentError{PID: p.PID, Stopped: true}).Error()
	}
	return fmt.Sprintf("process %d, which serves it, is stopped", p.PID)
}

// FindStopped finds the process of a mount that has its readers wait because it is stopped;
// ok is false if there is none.
func FindStopped(ctx context.Context, m fusefs.MountPoint) (p StoppedProcess, ok bool) {
	_, s, err := holder.Dial(ctx, m.Device, OwnerOf(m))
	if err == nil && Stopped(s.Server) {
		return StoppedProcess{PID: s.Server}, true
	}
	pid := fusefs.Servers(ctx)[m.Device]
	if Stopped(pid) {
		return StoppedProcess{PID: pid}, true
	}
	var silent *holder.SilentError
	if pid == 0 && errors.As(err, &silent) && silent.Stopped {
		return StoppedProcess{PID: silent.PID, Holder: true}, true
	}
	return p, false
}

// leftName is the name of what a holder leaves.
var leftName = regexp.MustCompile(`^([0-9]+-[0-9]+)\.(holder|gone)$`)

// SweepLeft removes what this user's holders have left of mounts that are there no more.
func SweepLeft(ctx context.Context) {
	_, _ = fusefs.Ask(ctx, func(context.Context) (any, error) {
		for _, p := range places(false) {
			dir, err := os.Open(p.dir)
			if err != nil {
				continue
			}
			names, _ := dir.Readdirnames(maxMade) // what cannot be read is left
			dir.Close()
			mounts, err := fusefs.Mounts() // after the names: a mount is there before its holder
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				found := leftName.FindStringSubmatch(name)
				if found == nil || slices.ContainsFunc(mounts, func(m fusefs.MountPoint) bool { return holder.NameOf(m.Device) == found[1] }) {
					continue
				}
				holder.Forget(p.dir, found[1], os.Geteuid())
			}
		}
		return nil, nil
	})
}

// Forget removes what the holder of a mount has left behind that is unmounted.
func Forget(ctx context.Context, m fusefs.MountPoint) {
	_, _ = fusefs.Ask(ctx, func(context.Context) (any, error) { // as above
		for _, dir := range socketDirs(m) {
			holder.Forget(dir, m.Device, OwnerOf(m))
		}
		return nil, nil
	})
}

// askHolder finds out whether a mount that does not answer is being restarted. The error is
// why its holder does not answer.
func (r *Running) askHolder(ctx context.Context, m fusefs.MountPoint) error {
	_, s, err := holder.Dial(ctx, m.Device, OwnerOf(m))
	if err == nil && s.State == holder.StateStart {
		r.Health, r.Why, r.PID = HealthAgain, s.Reason, s.Server
	}
	return err
}
