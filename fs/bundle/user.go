package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/moby/sys/user"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxUserFile is how large a passwd or group file is that is read.
const maxUserFile = 16 << 20

// noHome marks a user that passwd does not have.
const noHome = "\x00"

// An account is the user that a command runs as.
type account struct {
	uid, gid uint32
	groups   []uint32 // with gid, as all containers have had it since CVE-2022-2989
	homeDir  string   // noHome: passwd does not have the user
}

// home returns the user's HOME. Who is not in passwd has the working directory, as podman
// gives it.
func (a *account) home(cwd string) string {
	if a.homeDir == noHome {
		return cwd
	}
	return a.homeDir
}

// lookupUser finds the user, the image's or the one that is asked for, in the passwd and
// group of the tree.
func lookupUser(ctx context.Context, tree *fs.Tree, config *ocispec.ImageConfig, o *Options) (*account, error) {
	name := config.User
	if o.User != "" {
		name = o.User
	}
	passwd, err := openUserFile(ctx, tree, "/etc/passwd", o)
	if err != nil {
		return nil, err
	}
	group, err := openUserFile(ctx, tree, "/etc/group", o)
	if err != nil {
		return nil, err
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: noHome}, passwd, group)
	if err := errors.Join(passwd.err, group.err); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, userError(name, err)
	}
	a := &account{homeDir: found.Home}
	ids := make([]uint32, 0, 2+len(found.Sgids))
	for _, id := range slices.Concat([]int{found.Uid, found.Gid}, found.Sgids) {
		// what passwd says is not checked by the library
		if id < 0 || int64(id) >= math.MaxUint32 {
			return nil, refuse(BadUser, "user %s: the image gives it id %d, which Linux does not have", describeUser(name), id)
		}
		ids = append(ids, uint32(id))
	}
	a.uid, a.gid, a.groups = ids[0], ids[1], slices.Compact(ids[1:])
	return a, a.checkMapped(name, o)
}

// userError says what the library says, with the file that does not have the name.
func userError(name string, err error) error {
	who, group, _ := strings.Cut(name, ":")
	switch {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return refuse(BadUser, "user %s: it is not in the image's /etc/passwd", describeUser(who))
	case errors.Is(err, user.ErrNoGroupEntries):
		return refuse(BadUser, "group %s: it is not in the image's /etc/group", printable.Name(group))
	case errors.Is(err, user.ErrRange):
		return refuse(BadUser, "user %s: ids are numbers from 0 to 2147483647", describeUser(name))
	}
	return refuse(BadUser, "user %s: the image's /etc/passwd or /etc/group: %s", describeUser(name), printable.Line(err.Error()))
}

func describeUser(name string) string {
	if name == "" {
		return "root"
	}
	return printable.Name(name)
}

// checkMapped refuses an account that the container's user namespace does not have.
func (a *account) checkMapped(name string, o *Options) error {
	if !o.Rootless {
		return nil
	}
	uids, gids := o.mappings()
	switch {
	case !mapped(uids, a.uid):
		return refuse(Unmapped, "user %s has id %d, which the user namespace does not have", describeUser(name), a.uid)
	case !mapped(gids, a.gid):
		return refuse(Unmapped, "user %s has group %d, which the user namespace does not have", describeUser(name), a.gid)
	}
	return nil
}

func mapped(mappings []specs.LinuxIDMapping, id uint32) bool {
	return slices.ContainsFunc(mappings, func(m specs.LinuxIDMapping) bool {
		return id >= m.ContainerID && int64(id) < int64(m.ContainerID)+int64(m.Size)
	})
}

// spec returns the account as the runtime is told it.
func (a *account) spec(o *Options) specs.User {
	mask := uint32(umask)
	u := specs.User{UID: a.uid, GID: a.gid, Umask: &mask}
	_, gids := o.mappings()
	switch {
	case !o.Rootless:
		u.AdditionalGids = a.groups
	case o.Nested && len(gids) > 1: // with one id alone setgroups(2) is denied
		for _, g := range a.groups {
			if mapped(gids, g) {
				u.AdditionalGids = append(u.AdditionalGids, g)
			}
		}
	} // else none: runc refuses them for a plain user
	return u
}

// A userFile reads a file of the tree, or nothing.
type userFile struct {
	io.Reader
	err error // of reading, but io.EOF
}

// Read implements io.Reader.
func (f *userFile) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// openUserFile opens passwd or group. What is missing is empty, and so is what cannot be
// one.
func openUserFile(ctx context.Context, tree *fs.Tree, name string, o *Options) (*userFile, error) {
	n, err := tree.Lookup(name, true)
	switch {
	case err != nil:
	case !isRegular(n):
		o.warn(fmt.Sprintf("the image's %s is not a file", name))
	case n.Attr().Size > maxUserFile:
		o.warn(fmt.Sprintf("the image's %s has %d bytes, and is not read: %d MiB are the most", name, n.Attr().Size, maxUserFile>>20))
	default:
		return &userFile{Reader: io.NewSectionReader(readerAt{ctx, n, name}, 0, n.Attr().Size)}, nil
	}
	return &userFile{Reader: strings.NewReader("")}, nil
}

// A readerAt reads a file of the tree.
type readerAt struct {
	ctx  context.Context
	n    fs.Node
	name string
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.n.ReadAt(r.ctx, p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", printable.Name(r.name), err)
	}
	return n, err
}
