//go:build linux

package fusefs

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// readsTrusted reports whether the kernel lets a caller read attributes trusted.*: it
// must have CAP_SYS_ADMIN over the machine, which root in a container or in a user
// namespace has not. Of a root that cannot be looked at it is supposed.
func (t threads) readsTrusted(caller *fuse.Caller) bool {
	if caller.Uid != 0 {
		return false
	}
	if !t.see(caller.Pid) {
		return true
	}
	if m, err := os.ReadFile(t.file(int(caller.Pid), "uid_map")); err == nil && strings.Join(strings.Fields(string(m)), " ") != "0 0 4294967295" {
		return false
	}
	status, err := os.ReadFile(t.file(int(caller.Pid), "status"))
	if err != nil {
		return true
	}
	for line := range bytes.Lines(status) {
		if hex, ok := bytes.CutPrefix(line, []byte("CapEff:\t")); ok {
			caps, err := strconv.ParseUint(string(bytes.TrimSpace(hex)), 16, 64)
			return err != nil || caps&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	return true
}
