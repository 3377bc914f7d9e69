//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// littleEndian are words in a row, as the values of ACLs and capabilities have them.
func littleEndian(words ...uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return string(b)
}

const noID = 0xffffffff // of an entry of an ACL

// The values of attributes that Linux takes, and some that it does not.
var (
	goodACL       = littleEndian(2, 7<<16|1, noID, 5<<16|2, 1000, 5<<16|4, noID, 7<<16|16, noID, 4<<16|32, noID)
	modeACL       = littleEndian(2, 6<<16|1, noID, 4<<16|4, noID, 4<<16|32, noID)
	noMaskACL     = littleEndian(2, 7<<16|1, noID, 5<<16|2, 1000, 5<<16|4, noID, 4<<16|32, noID)
	oldACL        = littleEndian(1, 6<<16|1, noID, 4<<16|4, noID, 4<<16|32, noID)
	capability2   = littleEndian(2<<24|1, 1<<10, 0, 0, 0)
	capability1   = capability2[:12]
	capabilityCut = capability2[:19]
)

// foreignXattrs are attributes that umoci leaves out, as they are of other systems.
func foreignXattrs(a *labimage.Archive) error {
	x := labimage.Xattr
	return errors.Join(
		a.Dir(".", labimage.Mode(0o755)),
		a.File("mac", "m", x("user.keep", "1"), x("com.apple.quarantine", "q"), x("com.apple.FinderInfo", strings.Repeat("\x01", 32))),
		a.File("libarchive", "l", x("LIBARCHIVE.creationtime", "1"), x("SCHILY.fflags", "x")),
		a.File("bare", "b", x("plain", "1"), x("user", "2"), x("trusted", "3"), x("USER.a", "4")),
		a.File("label", "s", x("security.selinux", "u:r:t:s0\x00"), x("security.other", "kept")),
		a.Dir("dir", x("com.apple.x", "1"), x("user.d", "2"), x("system.posix_acl_default", goodACL)),
		a.File("acl", "a", labimage.Mode(0o654), x("system.posix_acl_access", littleEndian(2, 6<<16|1, noID, 4<<16|2, 1000, 4<<16|4, noID, 5<<16|16, noID, 4<<16|32, noID))),
		a.File("modeacl", "a", labimage.Mode(0o644), x("system.posix_acl_access", modeACL)),
		a.File("widened", "a", labimage.Mode(0o600), x("system.posix_acl_access", modeACL)),
		a.File("masked", "a", labimage.Mode(0o4600), x("system.posix_acl_access", goodACL)),
		a.File("nfs", "n", x("system.nfs4_acl", "x"), x("system.other", "y")),
		a.Symlink("link", "mac", x("com.apple.x", "1"), x("trusted.t", "2"), x("system.posix_acl_access", goodACL)),
		a.File("able", "c", labimage.Mode(0o755), x("security.capability", capability2)),
		a.File("below", "o", labimage.GNU, labimage.Owner(-2, -2)),
		a.File("lowest", "o", labimage.GNU, labimage.Owner(-1<<31, -3)),
		a.File("none", "o", labimage.GNU, labimage.Owner(-1, -1)),
		a.File("paxnone", "o", x("user.p", "1"), labimage.Owner(-1, -2)),
	)
}

// brokenXattrs are attributes at which umoci fails, as Linux does.
func brokenXattrs(a *labimage.Archive) error {
	x := labimage.Xattr
	return errors.Join(
		a.File("broken/names", "n", x("user.keep", "1"), x("user.", "1"), x("trusted.", "2"), x("security.", "3"), x("system.", "4"), x("user."+strings.Repeat("n", 251), "5")),
		a.File("broken/value", "v", x("user.keep", "1"), x("user.big", strings.Repeat("v", 64<<10+1))),
		a.File("broken/acl", "a", x("system.posix_acl_access", noMaskACL), x("user.keep", "1")),
		a.File("broken/oldacl", "a", x("system.posix_acl_access", oldACL)),
		a.File("broken/cutacl", "a", x("system.posix_acl_access", goodACL[:13])),
		a.File("broken/default", "d", x("system.posix_acl_default", goodACL)),
		a.Dir("broken/dir", x("system.posix_acl_default", noMaskACL), x("security.capability", capability2)),
		a.File("broken/cap1", "c", labimage.Mode(0o755), x("security.capability", capability1)),
		a.File("broken/cap", "c", labimage.Mode(0o755), x("security.capability", capabilityCut)),
		a.Symlink("broken/link", "names", x("user.a", "1"), x("security.capability", capability2)),
		a.Fifo("broken/fifo", x("user.a", "1")),
	)
}

// TestMountIsCopied: programs that copy a tree with all its attributes copy a mount,
// and say nothing. What root copies is the same tree.
func TestMountIsCopied(t *testing.T) {
	testenv.Slow(t)
	need(t, "rsync", "tar", "getfattr")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, foreignXattrs, brokenXattrs)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		mnt := s.mount(image)
		succeeds := func(program string, args ...string) string {
			t.Helper()
			r := s.finish(s.program(program, args...))
			if r.code != 0 || r.stderr != "" {
				t.Errorf("%s %q: exit code %d\n%s", program, args, r.code, r.stderr)
			}
			return r.stdout
		}
		listed := succeeds("getfattr", "--absolute-names", "-R", "-P", "-h", "-d", "-m", "-", mnt)
		if n := strings.Count(listed, "user.keep="); n != 4 {
			t.Errorf("getfattr shows user.keep %d times, want 4:\n%s", n, listed)
		}
		for _, never := range []string{"com.apple", "LIBARCHIVE", "SCHILY", "selinux", "nfs4", "system.other", "user.big", "plain"} {
			if strings.Contains(listed, never) {
				t.Errorf("getfattr shows %s:\n%s", never, listed)
			}
		}
		copies := map[string]string{}
		into := func(name string) string {
			copies[name] = s.mountpoint()
			return copies[name]
		}
		succeeds("cp", "-a", mnt+"/.", into("cp"))
		succeeds("rsync", "-aAX", "--numeric-ids", mnt+"/", into("rsync")+"/")
		archive := filepath.Join(s.mountpoint(), "a.tar")
		succeeds("tar", "--xattrs", "--xattrs-include=*", "--acls", "-C", mnt, "-cf", archive, ".")
		if who.uid == 0 {
			succeeds("cp", "-r", "--preserve=mode,ownership,timestamps,links,xattr", mnt+"/.", into("cp with xattrs"))
			succeeds("tar", "--xattrs", "--xattrs-include=*", "--acls", "--same-owner", "--numeric-owner", "-C", into("tar"), "-xpf", archive)
			for name, dir := range copies {
				compare(t, name, dumpOf(t, who, dir), "imgfs", dumpOf(t, who, mnt))
			}
		}
		s.umount(mnt)
	})
}

// TestForeignXattrsAsUnpacked: a mount has the attributes and owners that umoci unpacks.
func TestForeignXattrsAsUnpacked(t *testing.T) {
	needRoot(t)
	needFUSE(t)
	need(t, "umoci")
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, foreignXattrs)
	bundle := filepath.Join(publicDir(t), "bundle")
	tool(t, "umoci", "unpack", "--image", layout+":"+labimage.Tag, bundle)
	s := newSandbox(t)
	mnt := s.mount(image)
	got, want := dumpOf(t, s.account, mnt), dumpOf(t, s.account, filepath.Join(bundle, "rootfs"))
	if line := got[`"/below"`]; !strings.Contains(line, "owner=4294967294:4294967294 ") {
		t.Errorf("the owner -2: %s", line)
	}
	if line := got[`"/none"`]; !strings.Contains(line, "owner=0:0 ") {
		t.Errorf("the owner -1: %s", line)
	}
	compare(t, "imgfs", got, "umoci", want)
	s.umount(mnt)
}
