package fs

import (
	"encoding/binary"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// accessACL is the attribute that decides, beside the mode, who may read.
const accessACL = "system.posix_acl_access"

// keepsXattr says whether an inode of a type has an attribute: whether Linux
// could have it there, so that it can be listed, read and copied.
func keepsXattr(x layerindex.Xattr, format uint32) bool {
	if len(x.Name) > maxXattrName || len(x.Value) > maxXattrValue || strings.IndexByte(x.Name, 0) >= 0 {
		return false // setxattr(2) refuses these
	}
	namespace, rest, _ := strings.Cut(x.Name, ".")
	if rest == "" {
		return false
	}
	switch namespace {
	case "user":
		// xattr(7): only files and directories have them.
		return format == syscall.S_IFREG || format == syscall.S_IFDIR
	case "trusted":
		return !strings.HasPrefix(rest, "overlay.") // overlayfs's own, about a stack that is not ours
	case "security":
		switch rest {
		case "selinux":
			return false // a label of the machine that packed the layer
		case "capability":
			return format == syscall.S_IFREG && isCapability(x.Value)
		}
		return true
	case "system":
		switch rest {
		case "posix_acl_access":
			return format != syscall.S_IFLNK && isACL(x.Value) && len(x.Value) > minimalACL
		case "posix_acl_default":
			return format == syscall.S_IFDIR && isACL(x.Value)
		}
	}
	return false
}

// The capabilities of a file, struct vfs_ns_cap_data of linux/capability.h: a word
// with revision and flags, two of permitted and two of inheritable ones, and in
// revision 3 the user that is root in the namespace that they are for. Of revision 1
// there is nothing that can be read any more.
const (
	capabilityRevision2 = 0x02000000
	capabilityRevision3 = 0x03000000
	capabilityEffective = 1 // a flag
	capabilitySize2     = 20
	capabilitySize3     = 24
)

// isCapability tells whether a value is what Linux takes for capabilities.
func isCapability(value string) bool {
	if len(value) < capabilitySize2 {
		return false
	}
	switch word(value) &^ capabilityEffective {
	case capabilityRevision2:
		return len(value) == capabilitySize2
	case capabilityRevision3:
		return len(value) == capabilitySize3 && word(value[capabilitySize2:]) != noOwner
	}
	return false
}

// An ACL, struct posix_acl_xattr_header of linux/posix_acl_xattr.h: a word with the
// version, and entries of a tag, permissions and an id.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntry     = 8
	aclUserObj   = 0x01
	aclUser      = 0x02
	aclGroupObj  = 0x04
	aclGroup     = 0x08
	aclMask      = 0x10
	aclOther     = 0x20
	aclPermsMask = 7
	// minimalACL is the size of an ACL that says no more than a mode. No disk
	// keeps one: it becomes the mode.
	minimalACL = aclHeader + 3*aclEntry
)

// isACL tells whether a value is an ACL that Linux takes: with the owner's entry, any
// of users, the group's, any of groups, a mask, which must be there if a user or group
// is, and that of others, in this order. No entries at all are no ACL.
func isACL(value string) bool {
	if len(value) <= aclHeader || (len(value)-aclHeader)%aclEntry != 0 || word(value) != aclVersion {
		return false
	}
	next, named, masked := uint16(aclUserObj), false, false
	for e := value[aclHeader:]; e != ""; e = e[aclEntry:] {
		tag, perms, id := half(e), half(e[2:]), word(e[4:])
		if perms&^aclPermsMask != 0 {
			return false
		}
		switch {
		case tag == aclUserObj && next == aclUserObj:
			next = aclUser
		case tag == aclUser && next == aclUser, tag == aclGroup && next == aclGroup:
			if id == noOwner {
				return false
			}
			named = true
		case tag == aclGroupObj && next == aclUser:
			next = aclGroup
		case tag == aclMask && next == aclGroup:
			next, masked = aclOther, true
		case tag == aclOther && (next == aclGroup || next == aclOther):
			next = 0
		default:
			return false
		}
	}
	return next == 0 && (masked || !named)
}

// An aclMode is what an ACL makes of a mode: the permissions of owner, mask or group,
// and others.
type aclMode int16

// noACL leaves the mode as it is.
const noACL aclMode = -1

// modeOf returns what an attribute accessACL makes of the mode of an inode of a type:
// nothing if Linux would refuse it there.
func modeOf(acl string, format uint32) aclMode {
	if format == syscall.S_IFLNK || len(acl) > maxXattrValue || !isACL(acl) {
		return noACL
	}
	mode := aclMode(0)
	for e := acl[aclHeader:]; e != ""; e = e[aclEntry:] {
		switch tag, perms := half(e), aclMode(half(e[2:])); tag {
		case aclUserObj, aclOther, aclGroupObj:
			mode = mode<<3 | perms
		case aclMask:
			mode = mode&^aclPermsMask | perms // in place of the group's, which is the last
		}
	}
	return mode
}

// applied returns the mode that an inode has with the ACL.
func (m aclMode) applied(mode uint16) uint16 {
	if m == noACL {
		return mode
	}
	return mode&^0o777 | uint16(m)
}

func word(s string) uint32 { return binary.LittleEndian.Uint32([]byte(s[:4])) }

func half(s string) uint16 { return binary.LittleEndian.Uint16([]byte(s[:2])) }
