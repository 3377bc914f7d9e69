package fs_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

// words are little-endian words in a row.
func words(w ...uint32) string {
	var b []byte
	for _, x := range w {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return string(b)
}

// capability is what setcap(8) writes in a revision: one permitted capability, and in
// revision 3 the user 1000 whose namespace it is for.
func capability(revision uint32) string {
	switch value := words(revision<<24|1, 0x2000, 0, 0, 0); revision {
	case 1:
		return value[:12]
	case 2:
		return value
	default:
		return value + words(1000)
	}
}

const none = 0xffffffff // the id of an ACL's entry that has none

// An ace is an entry of an ACL: tag, permissions and id.
type ace struct {
	tag, perms uint32
	id         uint32
}

func acl(entries ...ace) string { return aclOf(2, entries...) }

func aclOf(version uint32, entries ...ace) string {
	value := words(version)
	for _, e := range entries {
		value += words(e.tag|e.perms<<16, e.id)
	}
	return value
}

// The entries of ACLs.
var (
	owner7  = ace{1, 7, none}
	user5   = ace{2, 5, 1000}
	group5  = ace{4, 5, none}
	group8  = ace{8, 5, 8}
	mask7   = ace{16, 7, none}
	others5 = ace{32, 5, none}
	goodACL = acl(owner7, user5, group5, group8, mask7, others5)
)

// Those attributes are kept that Linux can have on a file of that type: what is
// listed can be read and copied.
func TestXattrsKept(t *testing.T) {
	const access, deflt, capab = "system.posix_acl_access", "system.posix_acl_default", "security.capability"
	types := map[string]func(...option) member{
		"file":    func(o ...option) member { return file("x", "", append(o, mode(0o755))...) },
		"dir":     func(o ...option) member { return dir("x/", append(o, mode(0o755))...) },
		"symlink": func(o ...option) member { return symlink("x", "t", o...) },
		"fifo":    func(o ...option) member { return fifo("x", append(o, mode(0o755))...) },
		"device":  func(o ...option) member { return device(layerindex.TypeChar, "x", 1, 3, append(o, mode(0o755))...) },
	}
	all := []string{"device", "dir", "fifo", "file", "symlink"}
	notLinks := []string{"device", "dir", "fifo", "file"}
	fileAndDir, fileOnly, dirOnly := []string{"dir", "file"}, []string{"file"}, []string{"dir"}
	for _, c := range []struct {
		what, name, value string
		kept              []string
	}{
		{"of users", "user.a", "1", fileAndDir},
		{"of overlayfs for users", "user.overlay.opaque", "y", fileAndDir},
		{"empty value", "user.a", "", fileAndDir},
		{"longest name", "user." + strings.Repeat("n", 250), "", fileAndDir},
		{"name too long", "user." + strings.Repeat("n", 251), "", nil},
		{"longest value", "user.a", strings.Repeat("v", 64<<10), fileAndDir},
		{"value too long", "user.a", strings.Repeat("v", 64<<10+1), nil},
		{"NUL in the name", "user.a\x00b", "1", nil},
		{"odd bytes in the name", "user.\xff\n=%", "1", fileAndDir},
		{"two dots", "user..", "1", fileAndDir},
		{"trusted", "trusted.a", "1", all},
		{"of overlayfs", "trusted.overlay.opaque", "y", nil},
		{"nearly of overlayfs", "trusted.overlayx", "y", all},
		{"security", "security.ima", "\x01x", all},
		{"label of SELinux", "security.selinux", "a:b:c:s0\x00", nil},
		{"capabilities", capab, capability(2), fileOnly},
		{"capabilities of a namespace", capab, capability(3), fileOnly},
		{"capabilities of revision 1", capab, capability(1), nil},
		{"capabilities of revision 4", capab, capability(4), nil},
		{"capabilities of nobody's namespace", capab, words(3<<24|1, 0, 0, 0, 0, none), nil},
		{"capabilities of a revision that are too short", capab, capability(3)[:20], nil},
		{"capabilities that are too long", capab, capability(2) + "\x00", nil},
		{"capabilities that are cut", capab, capability(2)[:19], nil},
		{"capabilities with other flags", capab, words(2<<24|2, 0, 0, 0, 0), nil},
		{"capabilities in another order of bytes", capab, "\x02\x00\x00\x01" + capability(2)[4:], nil},
		{"no capabilities", capab, "", nil},
		{"ACL", access, goodACL, notLinks},
		{"ACL of users only", access, acl(owner7, user5, group5, mask7, others5), notLinks},
		{"ACL with a mask alone", access, acl(owner7, group5, mask7, others5), notLinks},
		{"ACL with a user twice", access, acl(owner7, user5, user5, group5, mask7, others5), notLinks},
		{"ACL that says what a mode does", access, acl(owner7, group5, others5), nil},
		{"ACL with ids where none count", access, acl(ace{1, 7, 0}, ace{4, 5, 0}, ace{16, 7, 0}, ace{32, 5, 0}), notLinks},
		{"default ACL", deflt, goodACL, dirOnly},
		{"default ACL without users", deflt, acl(owner7, group5, others5), dirOnly},
		{"ACL of another version", access, aclOf(1, owner7, user5, group5, mask7, others5), nil},
		{"ACL without a mask", access, acl(owner7, user5, group5, others5), nil},
		{"ACL in another order", access, acl(user5, owner7, group5, mask7, others5), nil},
		{"ACL with others first", access, acl(others5, owner7, group5), nil},
		{"ACL with the mask last", access, acl(owner7, group5, others5, mask7), nil},
		{"ACL with two owners", access, acl(owner7, owner7, group5, others5), nil},
		{"ACL without owner", access, acl(group5, others5), nil},
		{"ACL without others", access, acl(owner7, group5), nil},
		{"ACL with an unknown tag", access, acl(owner7, ace{64, 5, none}, group5, mask7, others5), nil},
		{"ACL with unknown permissions", access, acl(ace{1, 15, none}, group5, mask7, others5), nil},
		{"ACL for nobody", access, acl(owner7, ace{2, 5, none}, group5, mask7, others5), nil},
		{"ACL that is cut", access, goodACL[:len(goodACL)-1], nil},
		{"ACL without entries", access, acl(), nil},
		{"no ACL", access, "", nil},
		{"half a header", access, "\x02\x00", nil},
		{"malformed default ACL", deflt, acl(owner7), nil},
		{"of NFS", "system.nfs4_acl", "1", nil},
		{"of Windows", "system.cifs_acl", "1", nil},
		{"another of the system", "system.x", "1", nil},
		{"of a Mac", "com.apple.quarantine", "1", nil},
		{"of libarchive", "LIBARCHIVE.xattr.user.a", "1", nil},
		{"of star", "SCHILY.xattr.user.a", "1", nil},
		{"of the Hurd", "gnu.translator", "1", nil},
		{"in capitals", "USER.a", "1", nil},
		{"no namespace", "a", "1", nil},
		{"a namespace alone", "user", "1", nil},
		{"nothing behind user", "user.", "1", nil},
		{"nothing behind trusted", "trusted.", "1", nil},
		{"nothing behind security", "security.", "1", nil},
		{"nothing behind system", "system.", "1", nil},
		{"nothing before the dot", ".a", "1", nil},
		{"nothing", "", "1", nil},
	} {
		var kept []string
		for name, build := range types {
			// Between two others, so that lists are filtered, too.
			tree, err := fs.Merge(t.Context(), layersOf(layer(build(xattr("trusted.a0", ""), xattr(c.name, c.value), xattr("trusted.z", "")))))
			if err != nil {
				t.Errorf("%s, %s: %v", c.what, name, err)
				continue
			}
			n, err := tree.Lookup("x", false)
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]string{}
			for _, x := range n.Xattrs() {
				have[x.Name] = x.Value
			}
			value, ok := have[c.name]
			if ok {
				kept = append(kept, name)
			}
			if ok && value != c.value || len(have) > 3 || len(have) < 2 {
				t.Errorf("%s, %s: got %q", c.what, name, have)
			}
		}
		slices.Sort(kept)
		if !slices.Equal(kept, c.kept) {
			t.Errorf("%s (%.60q): kept by %v, want %v", c.what, c.name, kept, c.kept)
		}
	}
}

// What a hard link adds is kept by the type of its target.
func TestXattrsKeptOfLinks(t *testing.T) {
	tree, err := fs.Merge(t.Context(), layersOf(layer(symlink("l", "t"), file("f", ""),
		link("m", "l", xattr("user.a", "1"), xattr("trusted.b", "2"), xattr("com.apple.x", "3")),
		link("g", "f", xattr("user.a", "1"), xattr("com.apple.x", "3"), xattr("system.posix_acl_default", goodACL)))))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"l": "trusted.b", "f": "user.a"} {
		n, err := tree.Lookup(name, false)
		if err != nil {
			t.Fatal(err)
		}
		if x := n.Xattrs(); len(x) != 1 || x[0].Name != want {
			t.Errorf("%s: got %q, want %s", name, x, want)
		}
	}
}

// An ACL changes the mode as it does on a disk, and one that says no more is only
// that. What is no ACL of the inode's changes nothing.
func TestACLIsMode(t *testing.T) {
	const access, deflt = "system.posix_acl_access", "system.posix_acl_default"
	for what, c := range map[string]struct {
		member
		want uint32
	}{
		"with a mask":         {file("x", "", mode(0o4600), xattr(access, acl(owner7, user5, ace{4, 1, none}, ace{16, 6, none}, ace{32, 2, none}))), 0o4762},
		"without a mask":      {file("x", "", mode(0o1600), xattr(access, acl(ace{1, 4, none}, ace{4, 1, none}, ace{32, 2, none}))), 0o1412},
		"of a directory":      {dir("x/", mode(0o2700), xattr(access, goodACL)), 0o2775},
		"the later of two":    {file("x", "", mode(0o600), xattr(access, goodACL), xattr(access, acl(owner7, group5, others5))), 0o755},
		"of a symlink":        {symlink("x", "t", xattr(access, acl(ace{1, 4, none}, ace{4, 1, none}, ace{32, 2, none}))), 0o777},
		"malformed":           {file("x", "", mode(0o600), xattr(access, acl(owner7, group5))), 0o600},
		"too big to be set":   {file("x", "", mode(0o600), xattr(access, acl(slices.Concat([]ace{owner7}, slices.Repeat([]ace{user5}, 8191), []ace{group5, {16, 5, none}, others5})...))), 0o600},
		"as big as can be":    {file("x", "", mode(0o600), xattr(access, acl(slices.Concat([]ace{owner7}, slices.Repeat([]ace{user5}, 8000), []ace{group5, {16, 5, none}, others5})...))), 0o755},
		"for what is made":    {dir("x/", mode(0o700), xattr(deflt, goodACL)), 0o700},
		"long, for a symlink": {symlink("x", "t", xattr(access, goodACL), xattr("trusted.a", strings.Repeat("l", 1000))), 0o777},
	} {
		tree, err := fs.Merge(t.Context(), layersOf(layer(c.member)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := tree.Lookup("x", false)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Mode() & 0o7777; got != c.want {
			t.Errorf("%s: mode %#o, want %#o", what, got, c.want)
		}
	}
	// A link's mode is set before its ACL, and a long list is known when it comes again.
	long := xattr("user.long", strings.Repeat("l", 1000))
	tree, err := fs.Merge(t.Context(), layersOf(layer(file("f", "", mode(0o600)), link("g", "f", mode(0o640), xattr(access, goodACL)),
		file("h", "", mode(0o600), xattr(access, goodACL), long), file("i", "", mode(0o600), xattr(access, goodACL), long))))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "h", "i"} {
		n, err := tree.Lookup(name, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Mode() & 0o777; got != 0o775 {
			t.Errorf("%s: mode %#o, want 0775", name, got)
		}
	}
}
