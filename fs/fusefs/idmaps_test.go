//go:build linux

package fusefs

import "testing"

// Attributes that name users or groups are listed where all of them are.
func TestIDsOfXattrs(t *testing.T) {
	acl := func(tag, id byte) string {
		return "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + string([]byte{tag, 0, 4, 0, id, 0, 0, 0}) +
			"\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	}
	capabilities := func(root byte) string {
		return "\x01\x00\x00\x03" + string(make([]byte, 16)) + string([]byte{root, 0, 0, 0})
	}
	const access, deflt, capability = "system.posix_acl_access", "system.posix_acl_default", "security.capability"
	all := idMaps{parseIDMap("         0          0 4294967295\n"), parseIDMap("         0          0 4294967295\n")}
	some := idMaps{parseIDMap("0 1000 1\n5 100000 2\n"), parseIDMap("0 1000 1\n9 100000 1\n")}
	for _, c := range []struct {
		name, value string
		want        bool // in some
	}{
		{"user.x", "\x02", true},
		{capability, "\x01\x00\x00\x02" + string(make([]byte, 16)), true},
		{capability, capabilities(0), true}, {capability, capabilities(6), true}, {capability, capabilities(7), false}, {capability, capabilities(1), false},
		{access, acl(2, 0), true}, {access, acl(2, 5), true}, {access, acl(2, 4), false}, {access, acl(2, 9), false},
		{access, acl(8, 9), true}, {access, acl(8, 5), false}, {deflt, acl(8, 10), false}, {deflt, acl(2, 6), true},
	} {
		if got := some.hold(c.name, c.value); got != c.want {
			t.Errorf("%s %q: %v in a namespace with some users, want %v", c.name, c.value, got, c.want)
		}
		if !all.hold(c.name, c.value) {
			t.Errorf("%s %q: not where all users are", c.name, c.value)
		}
	}
	if own := ownIDs(); !own.users.has(0) && !own.users.has(uint32(nobody)) {
		t.Errorf("no users in this namespace: %v", own)
	}
}
