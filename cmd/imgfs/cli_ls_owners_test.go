//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// ownersIn returns the owner and the group of each file of imgfs ls -l, by its name.
func ownersIn(listing string) map[string]string {
	owners := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^[-dl]\S+ +\d+ +(\S+ +\S+) .* (\S+)$`).FindAllStringSubmatch(listing, -1) {
		owners[m[2]] = strings.Join(strings.Fields(m[1]), " ")
	}
	return owners
}

// TestLsOwners has images whose /etc/passwd and /etc/group say who owns their files, or
// are not what they should be.
func TestLsOwners(t *testing.T) {
	home := alone(t)
	files := func(a *labimage.Archive) error {
		return errors.Join(a.Dir("etc"), a.File("zero", ""), a.File("thousand", "", labimage.Owner(1000, 1000)), a.File("other", "", labimage.Owner(1001, 7)))
	}
	const users = "root:x:0:0::/:\nme:x:1000:1000::/:\n\x1b[31m:x:1001:1::/:\n"
	for _, c := range []struct {
		name  string
		layer labimage.Layer
		want  map[string]string
		says  string
	}{
		{"both", func(a *labimage.Archive) error {
			return errors.Join(a.File("etc/passwd", users), a.File("etc/group", "wheel:x:0:\nus:x:1000:me\n"))
		}, map[string]string{"zero": "root wheel", "thousand": "me us", "other": "1001 7"}, ""},
		{"passwd alone", func(a *labimage.Archive) error { return a.File("etc/passwd", users) },
			map[string]string{"zero": "root 0", "thousand": "me 1000", "other": "1001 7"}, ""},
		{"none", func(*labimage.Archive) error { return nil }, map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
		{"symlinks within the image", func(a *labimage.Archive) error {
			return errors.Join(a.Symlink("etc/passwd", "/../../usr/users"), a.Symlink("etc/group", "nowhere"), a.Dir("usr"), a.File("usr/users", "image:x:0:\n"))
		}, map[string]string{"zero": "image 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
		{"symlinks to what this machine has", func(a *labimage.Archive) error {
			return errors.Join(a.Symlink("etc/passwd", "/proc/self/root/etc/passwd"), a.Symlink("etc/group", "../../../../../../etc/group"))
		}, map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
		{"a directory and a fifo", func(a *labimage.Archive) error { return errors.Join(a.Dir("etc/passwd"), a.Fifo("etc/group")) },
			map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
		{"devices", func(a *labimage.Archive) error {
			return errors.Join(a.Device("etc/passwd", '3', 1, 5), a.Device("etc/group", '4', 1, 5))
		}, map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
		{"a huge one", func(a *labimage.Archive) error {
			return errors.Join(a.File("etc/passwd", users+strings.Repeat("x:x:1:1::/:\n", 100_000)), a.File("etc/group", "wheel:x:0:\n"))
		}, map[string]string{"zero": "0 wheel", "thousand": "1000 1000", "other": "1001 7"}, "/etc/passwd: it has more than 1048576 bytes"},
		{"an empty one", func(a *labimage.Archive) error {
			return errors.Join(a.File("etc/passwd", ""), a.File("etc/group", "\n"))
		},
			map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			layout := filepath.Join(t.TempDir(), "layout")
			if _, err := labimage.Write(layout, files, c.layer); err != nil {
				t.Fatal(err)
			}
			for _, flag := range []string{"-l", "-lR", "-ln"} {
				r := invoke(t, "ls", flag, "--cache-dir", home+"/cache", "oci:"+layout)
				said := progressLine.ReplaceAllString(r.stderr, "")
				says := c.says
				if flag == "-ln" {
					says = ""
				}
				if r.code != 0 || !strings.Contains(said, says) || (said != "") != (says != "") || strings.Count(said, "\n") > 1 {
					t.Errorf("%s: got exit code %d and on stderr %q, want 0 and %q once", flag, r.code, said, says)
				}
				got := ownersIn(r.stdout)
				for name, want := range c.want {
					if flag == "-ln" {
						want = map[string]string{"zero": "0 0", "thousand": "1000 1000", "other": "1001 7"}[name]
					}
					if got[name] != want {
						t.Errorf("%s: %s is owned by %q, want %q:\n%s", flag, name, got[name], want, r.stdout)
					}
				}
			}
		})
	}
}

// TestLsFetchesOwners counts what a listing fetches of an image whose indexes are
// there and whose layers are not: nothing but the files of owners, and only for names.
func TestLsFetchesOwners(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	name, _ := publish(t, reg, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("etc"), a.File("etc/passwd", "root:x:0:\n"), a.File("etc/group", "wheel:x:0:\n"), a.File("noise", noiseText(8<<20)))
	})
	dir := t.TempDir()
	cache := "--cache-dir=" + dir
	succeed(t, "index", "-q", cache, name)
	drop := func() {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		reg.Forget()
	}
	for _, c := range []struct {
		flags    []string
		owner    string
		requests int   // of blobs, at most
		bytes    int64 // at most
	}{
		{[]string{"-R"}, "", 0, 0}, {[]string{"-lnR"}, "0 0", 0, 0}, {[]string{"-go"}, "", 0, 0}, {[]string{"-lR"}, "root wheel", 2, 1 << 20}, {[]string{"-S", "-F", "--color=always"}, "", 0, 0},
	} {
		drop()
		out := succeed(t, append(append([]string{"ls", "-q", cache}, c.flags...), name)...)
		if got := ownersIn(out)["noise"]; c.owner != "" && got != c.owner {
			t.Errorf("ls %q: got the owner %q, want %q:\n%s", c.flags, got, c.owner, out)
		}
		if n, bytes := reg.Count(registrytest.Blob), reg.Bytes(registrytest.Blob); n > c.requests || bytes > c.bytes {
			t.Errorf("ls %q fetched %d bytes in %d requests, want at most %d in %d", c.flags, bytes, n, c.bytes, c.requests)
		}
	}
	for what, args := range map[string][]string{"offline": {"--offline"}, "a registry that serves other bytes": nil} {
		drop()
		reg.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
		r := invoke(t, append(append([]string{"ls", "-l", cache}, args...), name)...)
		if got := ownersIn(r.stdout)["noise"]; got != "0 0" || r.code != cli.ExitOK || strings.Count(r.stderr, "owners are shown as numbers: "+name+": /etc/") != 2 {
			t.Errorf("%s: got exit code %d and the owner %q, want 0 and 0 0, and why:\n%s", what, r.code, got, r.stderr)
		}
	}
}

// TestLsOwnersInTime has a registry that no longer answers: owners are not waited for as
// long as a read is.
func TestLsOwnersInTime(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	name, _ := publish(t, reg, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("etc"), a.File("etc/passwd", "root:x:0:\n"), a.File("file", ""))
	})
	dir := t.TempDir()
	succeed(t, "index", "-q", "--cache-dir", dir, name)
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	reg.Inject(registrytest.Blob, registrytest.Always(reg.Stall(0)))
	r := invoke(t, "ls", "-l", "--cache-dir", dir, name)
	if got := ownersIn(r.stdout)["file"]; got != "0 0" || r.code != cli.ExitOK || r.took > 20*time.Second || !strings.Contains(r.stderr, "/etc/passwd: it did not come within 5s") {
		t.Errorf("got exit code %d and the owner %q after %v, want 0 and 0 0 after some 5 s:\n%s", r.code, got, r.took, r.stderr)
	}
}
