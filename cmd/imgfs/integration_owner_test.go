//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// twoUsers returns sandboxes of a user and of root.
func twoUsers(t *testing.T) (alice, root *sandbox) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	return sandboxOf(t, otherUser(t)), newSandbox(t)
}

// own makes a tree of files a user's.
func own(t *testing.T, dir string, who account) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, who.uid, who.gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSudoWithUsersCache: root does not use a user's cache, and leaves it as it
// was: for the user it works on.
func TestSudoWithUsersCache(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	alice, root := twoUsers(t)
	want := alice.ok("cat", image, "/etc/os-release").stdout
	mnt := root.mountpoint()
	for _, args := range [][]string{{"ls", image}, {"cat", image, "/etc/os-release"}, {"index", image}, {"inspect", image}, {"mount", image, mnt},
		{"cache", "ls"}, {"cache", "verify"}, {"cache", "prune", "--all"}} {
		r := root.run(append([]string{"--cache-dir", alice.cache}, args...)...)
		checkRefusal(t, r, cli.ExitFailure, []string{"cache directory " + alice.cache + " belongs to " + login(t, alice), "imgfs runs as root"}, "run imgfs as "+login(t, alice))
	}
	if mounted(mnt) {
		t.Errorf("%s is mounted", mnt)
	}
	err := filepath.WalkDir(alice.cache, func(path string, e fs.DirEntry, err error) error {
		if info, ierr := e.Info(); err == nil && ierr == nil && ownerOf(info) != alice.uid {
			t.Errorf("%s belongs to %d", path, ownerOf(info))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	reg.Forget()
	if r := alice.ok("--offline", "cat", image, "/etc/os-release"); r.stdout != want || r.stderr != "" {
		t.Errorf("then the user reads %q, and is told %q", r.stdout, r.stderr)
	}
}

// TestLeftBySudo: what root has left in a user's cache, as versions of imgfs
// before this did, costs time and one warning.
func TestLeftBySudo(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	alice, _ := twoUsers(t)
	want := alice.ok("cat", image, "/etc/os-release").stdout
	for _, what := range []string{"indexes", "meta", "blobs", "verified", "refs", "images", "space", "tmp"} {
		path := filepath.Join(alice.cache, what)
		if err := os.MkdirAll(path, 0o700); err != nil && what != "space" {
			t.Fatal(err)
		}
		own(t, path, account{"root", 0, 0})
		r := alice.ok("cat", image, "/etc/os-release")
		hint := "sudo chown -R " + login(t, alice) + " " + alice.cache
		if r.stdout != want || strings.Count(r.stderr, "belongs to root (uid 0)") != 1 || strings.Contains(r.stderr, "not kept") || !strings.Contains(r.stderr, hint) {
			t.Errorf("%s is root's: the user reads %q, and is told\n%s", what, r.stdout, r.stderr)
		}
		for _, args := range [][]string{{"cache", "ls"}, {"cache", "verify"}, {"cache", "prune", "--older-than", "1d"}, {"ls", image}, {"index", image}} {
			alice.ok(args...)
		}
		own(t, alice.cache, alice.account)
	}
}

// TestSharedCache: a user who may read root's cache reads images from it, and changes
// nothing.
func TestSharedCache(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	alice, root := twoUsers(t)
	root.ok("index", "--fetch", image)
	want := root.ok("cat", image, "/etc/os-release").stdout
	err := filepath.WalkDir(root.cache, func(path string, e fs.DirEntry, err error) error {
		mode := fs.FileMode(0o644)
		if e.IsDir() {
			mode = 0o755
		}
		return errors.Join(err, os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
	before := treeText(t, root.cache)
	shared := []string{"--cache-dir", root.cache}
	mnt := alice.mountpoint()
	reg.Forget()
	if r := alice.ok(append(shared, "--offline", "cat", image, "/etc/os-release")...); r.stdout != want || r.stderr != "" {
		t.Errorf("offline: %q, %q", r.stdout, r.stderr)
	}
	alice.ok(append(shared, "--offline", "mount", image, mnt)...)
	if got, err := os.ReadFile(filepath.Join(mnt, "etc/os-release")); err == nil {
		t.Errorf("root reads %q from a user's mount", got) // without allow-other
	}
	out := alice.finish(alice.program("cat", filepath.Join(mnt, "etc/os-release")))
	if out.stdout != want {
		t.Errorf("mounted: %q, %q", out.stdout, out.stderr)
	}
	alice.umount(mnt)
	if n := reg.Count(); n > 0 {
		t.Errorf("offline the registry was asked %d times", n)
	}
	if r := alice.ok(append(shared, "cat", image, "/etc/os-release")...); r.stdout != want {
		t.Errorf("with the network: %q, %q", r.stdout, r.stderr)
	}
	if r := alice.ok(append(shared, "cache", "ls")...); !strings.Contains(r.stdout, image) {
		t.Errorf("cache ls: %q", r.stdout)
	}
	for _, args := range [][]string{{"cache", "prune", "--all"}, {"cache", "verify"}} {
		alice.fails(cli.ExitFailure, []string{root.cache, "belongs to root (uid 0)"}, append(shared, args...)...)
	}
	if after := treeText(t, root.cache); after != before {
		t.Errorf("it was\n%sand is\n%s", before, after)
	}
}

// TestNotACache: what somebody keeps in a directory is not taken for a cache, by
// no command.
func TestNotACache(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "tmp/thesis.txt"), "precious\n")
	writeFile(t, filepath.Join(dir, "photos/1.jpg"), "precious\n")
	before := treeText(t, dir)
	for _, args := range [][]string{{"ls", image}, {"cat", image, "/etc/os-release"}, {"index", image}, {"inspect", image},
		{"cache", "ls"}, {"cache", "verify"}, {"cache", "prune", "--all"}, {"mount", "-f", image, t.TempDir()}} {
		r := invoke(t, append([]string{"--cache-dir", dir}, args...)...)
		checkRefusal(t, r, cli.ExitFailure, []string{"cache directory " + dir + " is not empty, and not a cache of imgfs: it has "}, "new or empty")
	}
	if after := treeText(t, dir); after != before {
		t.Errorf("it was\n%sand is\n%s", before, after)
	}
	cache := t.TempDir()
	succeed(t, "--cache-dir", cache, "ls", image)
	writeFile(t, filepath.Join(cache, "tmp/thesis.txt"), "precious\n")
	writeFile(t, filepath.Join(cache, "photos/1.jpg"), "precious\n")
	for _, args := range [][]string{{"cache", "ls"}, {"cache", "verify"}, {"cache", "prune", "--all"}} {
		if out := succeed(t, append([]string{"--cache-dir", cache}, args...)...); !strings.Contains(out, "left alone: tmp/thesis.txt (") || !strings.Contains(out, "left alone: photos (") {
			t.Errorf("imgfs %q does not name what is not its own:\n%s", args, out)
		}
	}
	list := parsed[cacheList](t, "--cache-dir", cache, "cache", "ls", "--json")
	if len(list.Foreign) != 2 || list.Foreign[0].Bytes == 0 || list.Foreign[0].Why != "not made by imgfs" {
		t.Errorf("cache ls --json has %+v", list.Foreign)
	}
	for _, f := range []string{"tmp/thesis.txt", "photos/1.jpg"} {
		if readFile(t, filepath.Join(cache, f)) != "precious\n" {
			t.Errorf("%s has changed", f)
		}
	}
}

// TestNoLocks: a file system without locks costs a warning at most.
func TestNoLocks(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	need(t, "strace")
	want := s.ok("cat", image, "/etc/os-release").stdout
	for _, err := range []string{"ENOLCK", "ENOSYS", "EOPNOTSUPP"} {
		for range 2 { // with an empty cache, and with what is in it then
			cmd := s.program("strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error="+err, imgfsBinary(t),
				"--cache-dir", filepath.Join(s.dir, err), "cat", image, "/etc/os-release")
			if r := s.finish(cmd); r.code != 0 || r.stdout != want || strings.Count(r.stderr, "no file locks") > 1 {
				t.Errorf("%s: exit code %d, %q\n%s", err, r.code, r.stdout, r.stderr)
			}
		}
	}
}

// login returns the name of a sandbox's alice.
func login(t *testing.T, s *sandbox) string {
	t.Helper()
	u, err := user.LookupId(strconv.Itoa(s.uid))
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// treeText returns a line for all that there is below a directory: name, mode,
// owner and time of change, and what is in files.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() {
			content = digest.FromString(readFile(t, path)).Encoded()[:12]
		}
		_, err = fmt.Fprintln(&b, path, info.Mode(), ownerOf(info), info.ModTime().UnixNano(), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
