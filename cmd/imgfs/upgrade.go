package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

func upgradeCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "upgrade",
		Unlisted: true, // the entry of umount names it
		Usage:    "[-f] DIR... | --all",
		About: `Has this program serve what another version of it has mounted. The mount stays:
who reads it waits for some tenths of a second, and files stay open. The new
process is made ready beside the old one. If it cannot show the same tree in the
same way, or is not ready within a minute, nothing changes: the error says why,
and the exit code is 1. --all is all that this user has mounted, for root what
all users have: packages of imgfs call it when they are installed.`,
		Example:    "imgfs upgrade --all",
		OtherFlags: map[string]string{"-y": "leave it out", "-u": "leave it out"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			all := f.BoolP("all", "a", false, "all that is mounted")
			u := upgrader{e: e}
			f.BoolVarP(&u.force, "force", "f", false, "also if this very program serves it")
			return func(ctx context.Context, args []string) error {
				switch {
				case *all && len(args) > 0:
					return cli.Usagef("upgrade: --all, or what is to be upgraded, and not both")
				case !*all && len(args) == 0:
					return cli.WithHint(cli.Usagef("upgrade: no directory and no image named"), "imgfs ps lists what is mounted, --all upgrades all of it")
				}
				var err error
				if u.program, err = os.Open("/proc/self/exe"); err != nil {
					return err
				}
				defer u.program.Close()
				if *all {
					return u.all(ctx)
				}
				return e.Each(args, func(arg string) error {
					return e.onMount(ctx, "upgrade", arg, func(dir string) error { return u.at(ctx, dir) })
				})
			}
		},
	}
}

// An upgrader puts this program in the place of those that serve mounts.
type upgrader struct {
	e       *env
	force   bool
	program *os.File
}

// all upgrades all that this user has mounted, and for root all that there is.
func (u *upgrader) all(ctx context.Context) error {
	mounts, err := fusefs.Mounts()
	if err != nil {
		return err
	}
	var dirs []string
	known := make(map[string]fusefs.MountPoint)
	for _, m := range mounts {
		if m.Own() || os.Geteuid() == 0 {
			if !slices.ContainsFunc(dirs, func(dir string) bool { return known[dir].Device == m.Device }) {
				dirs = append(dirs, m.Place())
				known[m.Place()] = m
			}
		}
	}
	return u.e.Each(dirs, func(dir string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return u.one(ctx, known[dir])
	})
}

// at upgrades what is mounted on a directory.
func (u *upgrader) at(ctx context.Context, dir string) error {
	m, err := mountAt(ctx, dir)
	if err != nil {
		return err
	}
	if m.Device == "" {
		err := fusefs.ErrNotMounted
		if _, gone := os.Lstat(dir); errors.Is(gone, os.ErrNotExist) {
			err = fusefs.ErrNoDir
		}
		return &fusefs.Error{Op: "upgrade", Dir: dir, Err: err}
	}
	if !m.Own() && os.Geteuid() != 0 {
		return &fusefs.Error{Op: "upgrade", Dir: dir, Err: fmt.Errorf("%w: %s", fusefs.ErrForeign, m.Owner), Hint: "only that user and root may upgrade it"}
	}
	return u.one(ctx, m)
}

// one upgrades a mount.
func (u *upgrader) one(ctx context.Context, m fusefs.MountPoint) error {
	dir := printable.Name(m.Place())
	client, status, err := holder.Dial(ctx, m.Device, serve.OwnerOf(m))
	for end := time.Now().Add(nextLimit); errors.Is(err, holder.ErrNone); client, status, err = holder.Dial(ctx, m.Device, serve.OwnerOf(m)) {
		if why := withoutHolder(ctx, m); !errors.Is(why, errNext) || time.Now().After(end) {
			return why
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(nextLimit / 50):
		}
	}
	if err == nil && !u.force && status.Server > 0 && !serve.Stopped(status.Server) && sameProgram(fmt.Sprintf("/proc/%d/exe", status.Server), "/proc/self/exe") {
		return u.say("%s: this program serves it already", dir)
	}
	if err == nil {
		err = client.Upgrade(ctx, u.program)
	}
	var refused *holder.RefusedError
	var silent *holder.SilentError
	switch {
	case errors.As(err, &silent) && silent.Stopped:
		return cli.WithHint(fmt.Errorf("upgrade %s: %w", dir, err), fmt.Sprint("kill -CONT ", silent.PID))
	case errors.As(err, &refused) && refused.Failed:
		return fmt.Errorf("upgrade %s: the new process took over, and failed: %w; the old program serves it again", dir, err)
	case errors.As(err, &refused):
		return fmt.Errorf("upgrade %s: %w; the mount is as it was", dir, err)
	case err != nil:
		return fmt.Errorf("upgrade %s: %w", dir, err)
	}
	return u.say("%s: imgfs %s serves it now", dir, version())
}

func (u *upgrader) say(format string, args ...any) error {
	if u.e.Quiet {
		return nil
	}
	return u.e.printLine(format, args...)
}

// withoutLimit is how long a mount may take to say why it has no holder.
const withoutLimit = 2 * time.Second

// nextLimit is how long imgfs upgrade waits for the holder that follows one that has died.
const nextLimit = 2 * time.Second

// errNext says that a mount has no holder for a moment.
var errNext = errors.New("what would restart its server has died, and the next one is being started")

// withoutHolder says why a mount cannot be upgraded that has no holder. It is errNext if it
// is to have one soon.
func withoutHolder(ctx context.Context, m fusefs.MountPoint) error {
	dir := m.Place()
	pid := fusefs.Servers(ctx)[m.Device]
	if serve.Stopped(pid) { // and is not asked: nobody who waits for io_uring's answers can be ended
		return cli.WithHint(fmt.Errorf("upgrade %s: process %d, which serves it, is stopped, and no other one would take over", printable.Name(dir), pid), fmt.Sprint("kill -CONT ", pid))
	}
	asking, cancel := context.WithTimeout(ctx, withoutLimit)
	defer cancel()
	s, failed := serve.StatsOf(asking, dir)
	if pid == 0 && errors.Is(failed, fusefs.ErrDead) {
		return cli.WithHint(fmt.Errorf("upgrade %s: no process serves it", printable.Name(dir)), "imgfs umount "+printable.Word(dir))
	}
	if r := s.Recovery; failed == nil && r.State == "on" && r.Unit == "" {
		return cli.WithHint(fmt.Errorf("upgrade %s: %w", printable.Name(dir), errNext), "imgfs upgrade "+printable.Word(dir)+", in a moment")
	}
	why := "it was mounted in the foreground, with --no-recover or --io-uring=on, or by a version before imgfs upgrade"
	if failed == nil && s.Recovery.Why != "" {
		why = printable.Line(s.Recovery.Why)
	}
	err := fmt.Errorf("upgrade %s: its server cannot be changed: %s", printable.Name(dir), why)
	if unit, flag := unitOf(pid); unit != "" {
		return cli.WithHint(err, "systemctl "+flag+"restart "+printable.Word(unit))
	}
	return cli.WithHint(err, "unmount it, and mount it again")
}

// unitOf is the service of systemd that a process is the main one of, as far as its
// control group and its parent tell; flag is for systemctl.
func unitOf(pid int) (unit, flag string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || pid == 0 {
		return "", ""
	}
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if name := filepath.Base(group); ok && strings.HasSuffix(name, ".service") && !strings.HasPrefix(name, "user@") {
			if strings.Contains(group, "/user@") {
				flag = "--user "
			}
			return name, flag
		}
	}
	return "", ""
}

// sameProgram reports whether two files are one, or were built as one.
func sameProgram(a, b string) bool {
	one, err := os.Stat(a)
	other, failed := os.Stat(b)
	if err != nil || failed != nil {
		return false
	}
	id := buildID(a)
	return os.SameFile(one, other) || id != "" && id == buildID(b)
}

// buildID is what the go command has written into a program: the sum of what went into
// it. It is "" if it cannot be told.
func buildID(name string) string {
	f, err := elf.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	s := f.Section(".note.go.buildid")
	if s == nil || s.Size > 4096 {
		return ""
	}
	id, err := s.Data()
	if err != nil {
		return ""
	}
	return string(id)
}
