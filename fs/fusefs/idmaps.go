//go:build linux

package fusefs

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

// idMaps are the users and groups that there are in a user namespace.
type idMaps struct{ users, groups idMap }

// An idMap has ranges of ids: the first one, and how many there are.
type idMap [][2]uint64

// ownIDs returns those of this process's namespace, which mounts of its own are in.
func ownIDs() idMaps {
	return idMaps{readIDMap("/proc/self/uid_map"), readIDMap("/proc/self/gid_map")}
}

// readIDMap reads a map as user_namespaces(7) has them: all ids, if it cannot be read.
func readIDMap(path string) idMap {
	text, err := os.ReadFile(path)
	if err != nil {
		return idMap{{0, 1 << 32}}
	}
	return parseIDMap(string(text))
}

func parseIDMap(text string) (m idMap) {
	for line := range strings.Lines(text) {
		var first, outside, count uint64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err == nil {
			m = append(m, [2]uint64{first, count})
		}
	}
	return m
}

func (m idMap) has(id uint32) bool {
	for _, r := range m {
		if uint64(id) >= r[0] && uint64(id)-r[0] < r[1] {
			return true
		}
	}
	return false
}

// hold reports whether all ids are there that the value of an attribute of a tree
// names. The kernel cannot tell others in a mount of this namespace: reading an ACL with
// one is EINVAL, and capabilities for one EOVERFLOW.
func (m *idMaps) hold(name, value string) bool {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32([]byte(value[at : at+4])) }
	switch {
	case name == "security.capability" && len(value) == 24: // revision 3
		return m.users.has(word(20))
	case strings.HasPrefix(name, aclPrefix):
		const user, group = 2, 8 // tags
		for at := 4; at+8 <= len(value); at += 8 {
			switch id := word(at + 4); word(at) & 0xffff {
			case user:
				if !m.users.has(id) {
					return false
				}
			case group:
				if !m.groups.has(id) {
					return false
				}
			}
		}
	}
	return true
}
