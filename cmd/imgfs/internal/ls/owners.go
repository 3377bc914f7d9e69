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

// owners are the names of an image's users and groups.
type owners struct{ users, groups map[uint32]string }

// readOwners reads /etc/passwd and /etc/group of an image. Of what cannot be read there
// are no names; warnf says why, unless there is no such file.
func readOwners(ctx context.Context, img *Image, warnf func(string, ...any)) *owners {
	listing := ctx
	ctx, cancel := context.WithTimeoutCause(listing, ownerPatience, fmt.Errorf("it did not come within %v", ownerPatience))
	defer cancel()
	read := func(name string) map[uint32]string {
		names, err := readOwnerFile(ctx, img.Tree, name)
		if err != nil && listing.Err() == nil {
			warnf("owners are shown as numbers: %s: %s: %v", img.Name, name, err)
		}
		return names
	}
	return &owners{users: read("/etc/passwd"), groups: read("/etc/group")}
}

// readOwnerFile reads a file of names and numbers, such as /etc/passwd.
func readOwnerFile(ctx context.Context, t *fs.Tree, name string) (map[uint32]string, error) {
	n, err := t.Lookup(name, true)
	if err != nil || n.Mode()&unix.S_IFMT != unix.S_IFREG {
		return nil, nil // an image need not have one
	}
	size := n.Attr().Size
	if size > maxOwnerFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxOwnerFile)
	}
	text := make([]byte, size)
	if k, err := n.ReadAt(ctx, text, 0); k < len(text) && err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return parseOwners(text), nil
}

// parseOwners reads the lines NAME:…:NUMBER:… The first one with a number counts, as it
// does for getpwuid(3). A line that is none of these, or whose name is not one that is
// printed in a column, is passed over, so that its number is shown.
func parseOwners(text []byte) map[uint32]string {
	names := make(map[uint32]string)
	for line := range bytes.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		_, rest, _ = strings.Cut(rest, ":")
		number, _, _ := strings.Cut(rest, ":")
		id, err := strconv.ParseUint(number, 10, 32)
		if _, known := names[uint32(id)]; known || err != nil {
			continue
		}
		names[uint32(id)] = ""
		if ownerName(name) {
			names[uint32(id)] = name
		}
	}
	return names
}

// ownerName reports whether a name can stand in a column: it is short, of characters
// that show and do nothing, without spaces, and no number.
func ownerName(name string) bool {
	return name != "" && len(name) <= maxOwnerName && printable.Harmless(name) && !strings.ContainsFunc(name, unicode.IsSpace) &&
		strings.Trim(name, "0123456789") != ""
}
