//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/imgfs/imgfs/fs/fusefs/privilege"
	"golang.org/x/sys/unix"
)

// DropPrivileges takes from this process, for good, the capabilities that
// serving does not need. If the server can unmount by itself, neither it nor a
// program that it starts gets new ones any more (no_new_privs): an ordinary user's
// server cannot, and has fusermount3 unmount, which is setuid. The error is
// [errors.ErrUnsupported] where the program was built with cgo, whose threads Go
// does not know.
func (s *Server) DropPrivileges() error {
	err := privilege.Drop(s.at.helper == "")
	if err == syscall.ENOTSUP {
		return fmt.Errorf("this program was built with cgo: %w", errors.ErrUnsupported)
	}
	return err
}

// HasSysAdmin reports whether this process may mount, as far as its user
// namespace goes.
func HasSysAdmin() bool { return privilege.Has(unix.CAP_SYS_ADMIN) }
