package ls

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// How large a file of owners may be, how long a name of one, and how long the files of
// an image are waited for. What is beyond is shown as numbers.
const (
	maxOwnerFile  = 1 << 20
	maxOwnerName  = 32
	ownerPatience = 5 * time.Second
)

// Owners are the names of an image's users and groups: those that can be printed. It is
// safe for concurrent use.
type Owners struct{ users, groups names }

// names are those of one file. byID has "" for those that are not printed.
type names struct {
	byID map[uint32]string
	ids  map[string]uint32
}

// User returns the name of a user, or "" if it has none that is printed. known tells
// whether there is such a user.
func (o *Owners) User(uid uint32) (name string, known bool) { return o.users.of(uid) }

// Group is User for groups.
func (o *Owners) Group(gid uint32) (name string, known bool) { return o.groups.of(gid) }

// UserID returns the number of a user.
func (o *Owners) UserID(name string) (uid uint32, ok bool) { return o.users.id(name) }

// GroupID is UserID for groups.
func (o *Owners) GroupID(name string) (gid uint32, ok bool) { return o.groups.id(name) }

func (n names) of(id uint32) (string, bool) {
	name, ok := n.byID[id]
	return name, ok
}

func (n names) id(name string) (uint32, bool) {
	id, ok := n.ids[name]
	return id, ok
}

// ReadOwners reads /etc/passwd and /etc/group of an image, which may have to come over
// the network. Of what cannot be read there are no names; warnf says why, unless there
// is no such file.
func ReadOwners(ctx context.Context, img *Image, warnf func(string, ...any)) *Owners {
	listing := ctx
	ctx, cancel := context.WithTimeoutCause(listing, ownerPatience, fmt.Errorf("it did not come within %v", ownerPatience))
	defer cancel()
	read := func(name string) names {
		all, err := readOwnerFile(ctx, img.Tree, name)
		if err != nil && listing.Err() == nil {
			warnf("owners are shown as numbers: %s: %s: %v", img.Name, name, err)
		}
		return all
	}
	return &Owners{users: read("/etc/passwd"), groups: read("/etc/group")}
}

// readOwnerFile reads a file of names and numbers, such as /etc/passwd.
func readOwnerFile(ctx context.Context, t *fs.Tree, name string) (names, error) {
	n, err := t.Lookup(name, true)
	if err != nil || n.Mode()&unix.S_IFMT != unix.S_IFREG {
		return names{}, nil // an image need not have one
	}
	size := n.Attr().Size
	if size > maxOwnerFile {
		return names{}, fmt.Errorf("it has more than %d bytes", maxOwnerFile)
	}
	text := make([]byte, size)
	if k, err := n.ReadAt(ctx, text, 0); k < len(text) && err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return names{}, err
	}
	return parseOwners(text), nil
}

// parseOwners reads the lines NAME:…:NUMBER:… The first one with a number counts, as it
// does for getpwuid(3). A line that is none of these, or whose name is not one that is
// printed in a column, is passed over, so that its number is shown.
func parseOwners(text []byte) names {
	all := names{make(map[uint32]string), make(map[string]uint32)}
	for line := range bytes.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		_, rest, _ = strings.Cut(rest, ":")
		number, _, _ := strings.Cut(rest, ":")
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			continue
		}
		if _, known := all.ids[name]; !known {
			all.ids[name] = uint32(id)
		}
		if _, known := all.byID[uint32(id)]; known {
			continue
		}
		all.byID[uint32(id)] = ""
		if ownerName(name) {
			all.byID[uint32(id)] = name
		}
	}
	return all
}

// ownerName reports whether a name can stand in a column: it is short, of characters
// that show and do nothing, without spaces, and no number.
func ownerName(name string) bool {
	return name != "" && len(name) <= maxOwnerName && printable.Harmless(name) && !strings.ContainsFunc(name, unicode.IsSpace) &&
		strings.Trim(name, "0123456789") != ""
}
