package container

import (
	"context"
	"path/filepath"

	"github.com/imgfs/imgfs/fs/fusefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Where a plain user may not open the FUSE device, fusermount3 may, but it does not mount in
// a user namespace. So the command has it mount before there is one: the supervisor's
// mount namespace has a copy of that mount, and the command's own is unmounted at once.
// Owners are then shown as those of the machine that the user namespace takes for the
// image's. The mount lets in nobody but this user, who is root of the user namespace, and
// the overlay on it reads in that user's name.

// needsLoan reports whether the supervisor cannot mount by itself.
func (c *Container) needsLoan() bool {
	return c.Users != nil && unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) == unix.EACCES
}

// lend mounts the tree for the supervisor, and serves it.
func (s *session) lend(ctx context.Context, dir string) error {
	opts := *s.c.Options
	opts.AllowOther, opts.Suid, opts.Owners = false, false, s.c.Users.owners()
	target, err := fusefs.Check(ctx, filepath.Join(dir, lowerPart), &opts)
	if err != nil {
		return err
	}
	defer target.Close()
	if s.loan, err = target.AttachApart(ctx, &opts); err != nil {
		return err
	}
	s.srv, err = fusefs.ServeApart(s.loan, s.c.Tree, &opts)
	return err
}

// settle unmounts what was lent: the supervisor has it.
func (s *session) settle() error {
	if s.loan == nil {
		return nil
	}
	loan := s.loan
	s.loan = nil
	return loan.Detach(context.Background())
}

// owners returns the function that translates owners of the user namespace into those of
// the machine. Those that it does not have are nobody.
func (u *Users) owners() func(uid, gid uint32) (uint32, uint32) {
	return func(uid, gid uint32) (uint32, uint32) { return outside(u.UIDs, uid), outside(u.GIDs, gid) }
}

func outside(ids []specs.LinuxIDMapping, id uint32) uint32 {
	const nobody = 65534
	for _, m := range ids {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID
		}
	}
	return nobody
}
