//go:build linux

package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// rightsSource is a program that prints whose rights it has: its effective user, and the
// lowest of its effective capabilities, CAP_CHOWN.
const rightsSource = `package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	text, err := os.ReadFile("/proc/self/status")
	_, caps, _ := strings.Cut(string(text), "CapEff:\t")
	var set uint64
	fmt.Sscanf(caps, "%x", &set)
	fmt.Println(os.Geteuid(), set&1, err)
}
`

// chownCapability is a file capability of revision 2: CAP_CHOWN, permitted and effective.
const chownCapability = "\x01\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// rightsImage makes a layout of an image with programs and a device that have rights.
func rightsImage(t testing.TB) (image string) {
	t.Helper()
	src := t.TempDir()
	program := filepath.Join(src, "rights")
	t.Setenv("CGO_ENABLED", "0")
	tool(t, "go", "build", "-ldflags=-s -w", "-o", program, writeSource(t, src, rightsSource))
	content := readFile(t, program)
	layout := publicDir(t)
	_, err := labimage.Write(layout, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("bin"), a.Dir("dev"),
			a.File("bin/plain", content, labimage.Mode(0o755)),
			a.File("bin/setuid", content, labimage.Mode(0o4755)),
			a.File("bin/caps", content, labimage.Mode(0o755), labimage.Xattr("security.capability", chownCapability)),
			a.Device("dev/null", tar.TypeChar, 1, 3, labimage.Mode(0o666)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + layout
}

func writeSource(t testing.TB, dir, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "main.go")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSuid: setuid bits and file capabilities of an image have an effect if root says so, for
// every user and through an overlay, and else none.
func TestSuid(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	image, user := rightsImage(t), otherUser(t)
	s := newSandbox(t)
	ran := func(path string) string {
		t.Helper()
		out, err := user.as(exec.Command(path)).CombinedOutput()
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(out))
	}
	for _, c := range []struct {
		flags []string
		works bool
	}{
		{[]string{"--allow-other"}, false},
		{[]string{"--allow-other", "--dev"}, false},
		{[]string{"-o", "allow_other,suid,nosuid"}, false},
		{[]string{"--allow-other", "--suid"}, true},
		{[]string{"-o", "allow_other,nosuid,suid"}, true},
		{[]string{"--overlay", filepath.Join(s.dir, "changes")}, false},
		{[]string{"--overlay", filepath.Join(s.dir, "changes"), "--suid"}, true},
	} {
		dir := s.mount(image, c.flags...)
		own := fmt.Sprintf("%d 0 <nil>", user.uid)
		want := map[string]string{"plain": own, "setuid": own, "caps": own}
		if c.works {
			want["setuid"], want["caps"] = "0 1 <nil>", fmt.Sprintf("%d 1 <nil>", user.uid)
		}
		for name, want := range want {
			if got := ran(filepath.Join(dir, "bin", name)); got != want {
				t.Errorf("%q: %s prints %q, want %q", c.flags, name, got, want)
			}
		}
		if c.works {
			s.killed(dir)
			if got := ran(filepath.Join(dir, "bin/setuid")); got != "0 1 <nil>" {
				t.Errorf("%q: served again, setuid prints %q", c.flags, got)
			}
		}
		s.umount(dir)
	}
}

// TestDevices: devices of an image can be opened if root says so, and else not.
func TestDevices(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	image := rightsImage(t)
	s := newSandbox(t)
	for _, c := range []struct {
		flags string
		works bool
	}{
		{"--suid", false}, {"--options=dev,nodev", false}, {"--dev", true}, {"--options=dev", true},
	} {
		dir := s.mount(image, c.flags)
		f, err := os.OpenFile(filepath.Join(dir, "dev/null"), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("nothing")
			f.Close()
		}
		if c.works && err != nil || !c.works && !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: writing to a device: %v", c.flags, err)
		}
		s.umount(dir)
	}
}

// TestRightsAreRoots: who is not root gets neither, and is told.
func TestRightsAreRoots(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	who := thisUser()
	if who.uid == 0 {
		who = otherUser(t)
	}
	s := sandboxOf(t, who)
	reg.Forget()
	for _, c := range []struct {
		flags, says string
	}{
		{"--suid", "mount: --suid is for root"}, {"--options=suid", "mount: --suid is for root"},
		{"--dev", "mount: --dev is for root"}, {"--options=suid,dev", "mount: --suid is for root"},
	} {
		dir := s.mountpoint()
		checkRefusal(t, s.run("mount", c.flags, image, dir), 2, []string{c.says}, "leave it out")
		if mounted(dir) {
			t.Errorf("%s: it is mounted", c.flags)
		}
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("the registry got %d requests", n)
	}
	s.umount(s.mount(image, "-o", "suid,nosuid,dev,nodev"))
	need(t, "unshare")
	dir := s.mountpoint()
	r := s.finish(s.program("unshare", "-rm", imgfsBinary(t), "mount", "--dev", image, dir))
	if r.code != 2 || !strings.Contains(r.stderr, "--dev has no effect in a user namespace") {
		t.Errorf("in a user namespace: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
