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
	if t.userOf(caller) != 0 {
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

// noID is the user of requests in which the kernel names none: it does not know which, where
// the mount may have copies with other owners (idmapped mounts).
const noID = 1<<32 - 1

// userOf returns the user of a caller: the one that counts for files. It is noID if that is
// not known.
func (t threads) userOf(caller *fuse.Caller) uint32 {
	if caller.Uid != noID || !t.see(caller.Pid) {
		return caller.Uid
	}
	status, err := os.ReadFile(t.file(int(caller.Pid), "status"))
	if err != nil {
		return noID
	}
	for line := range bytes.Lines(status) {
		if ids, ok := bytes.CutPrefix(line, []byte("Uid:\t")); ok {
			// Real, effective, saved and for files.
			if f := bytes.Fields(ids); len(f) == 4 {
				if id, err := strconv.ParseUint(string(f[3]), 10, 32); err == nil {
					return uint32(id)
				}
			}
		}
	}
	return noID
}
