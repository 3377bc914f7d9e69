//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// ps lists mounts, of which other tests and users may have some: those in the sandbox.
func (s *sandbox) ps(flags ...string) (rows []serve.Running) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.ok(append([]string{"ps", "--json"}, flags...)...).stdout), &rows); err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(rows, func(r serve.Running) bool { return !strings.HasPrefix(r.Dir, s.dir+"/") })
}

// TestPs lists mounts of which one is well, one stopped and one dead: none keeps the
// others from the list.
func TestPs(t *testing.T) {
	testenv.Slow(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	held, _ := heldRegistry(t)
	late, _ := publish(t, held, small)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		if r := s.ok("ps", "--all=false"); who.uid != 0 && r.stdout+r.stderr != "" {
			t.Errorf("nothing is mounted: got %q", r.stdout+r.stderr)
		}
		// What has been put on a ring for a process that is stopped cannot be taken back.
		good, stops, dies := s.mount(image), s.mount(image, "--io-uring=off"), s.mount(image, "--io-uring=off", "--no-recover")
		waits := s.mount(late, "--no-wait")
		pid, killed := s.daemon(stops), s.daemon(dies)
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.waitGone(dies)
		testenv.Stop(t, pid)
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
		begun := time.Now()
		rows := s.ps()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		want := []serve.Running{
			{Image: image, Dir: good, PID: s.daemon(good), Health: serve.HealthOK},
			{Image: image, Dir: stops, PID: pid, Health: serve.HealthStopped},
			{Image: image, Dir: dies, Health: serve.HealthDead},
			{Image: late, Dir: waits, PID: s.daemon(waits), Health: serve.HealthWaiting},
		}
		if len(rows) != len(want) {
			t.Fatalf("got %+v, want %+v", rows, want)
		}
		for i, w := range want {
			r := rows[i]
			if r.Image != w.Image || r.Dir != w.Dir || r.PID != w.PID || r.Health != w.Health || r.PID > 0 && r.Memory < 1<<20 || len(r.Also) > 0 {
				t.Errorf("got %+v, want %+v", r, w)
			}
		}
		if r := rows[0]; r.Manifest.Validate() != nil || r.Fetched == 0 || time.Since(r.Since) > time.Minute || r.Platform == "" {
			t.Errorf("got %+v", r)
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		cmd := s.command("ps")
		cmd.Env = append(cmd.Env, "COLUMNS=")
		text := s.finish(cmd).stdout
		checkFits(t, cmd.Args, text, 80)
		for _, words := range []string{"IMAGE ", " HEALTH", " ok", " dead", "…"} {
			if !strings.Contains(text, words) {
				t.Errorf("there is no %q in\n%s", words, text)
			}
		}
		if text := s.ok("ps", "-q").stdout; !strings.Contains(text, good+"\n"+stops+"\n"+dies+"\n"+waits+"\n") {
			t.Errorf("ps -q prints\n%s", text)
		}
		s.umount(good)
		s.umount(stops)
		s.umount(waits)
		s.umount(dies)
		if rows := s.ps(); len(rows) > 0 {
			t.Errorf("unmounted: got %+v", rows)
		}
	})
	s := newSandbox(t)
	s.fails(cli.ExitUsage, []string{"it takes no argument", "imgfs stats /mnt"}, "ps", "/mnt")
}

// TestPsOthers has bind mounts, what is mounted over a mount, and mounts of other users.
func TestPsOthers(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s, other := newSandbox(t), sandboxOf(t, otherUser(t))
	dir, part, whole := s.mount(image), s.mountpoint(), s.mountpoint()
	bind := func(from, to string) {
		t.Helper()
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
	}
	bind(filepath.Join(dir, "etc"), part)
	bind(dir, whole)
	if rows := s.ps(); len(rows) != 1 || rows[0].Dir != dir || !slices.Equal(rows[0].Also, []string{part, whole}) || rows[0].Health != serve.HealthOK {
		t.Errorf("bind mounts: got %+v", rows)
	}
	theirs := other.mount(image)
	bind(s.mountpoint(), theirs)
	find := func(rows []serve.Running) (found serve.Running) {
		for _, r := range rows {
			if r.Dir == theirs {
				found = r
			}
		}
		return found
	}
	if r := find(other.ps()); r.Health != serve.HealthHidden || r.Manifest != "" {
		t.Errorf("under another mount: got %+v", r)
	}
	if err := unix.Unmount(theirs, 0); err != nil {
		t.Fatal(err)
	}
	if r := find(other.ps()); r.Health != serve.HealthOK || r.Owner == "root" {
		t.Errorf("got %+v", r)
	}
	all := func(s *sandbox, flags ...string) (rows []serve.Running) {
		if err := json.Unmarshal([]byte(s.ok(append(flags, "ps", "--json")...).stdout), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	if r := find(all(s)); r.PID != other.daemon(theirs) {
		t.Errorf("of another user: root gets %+v", r)
	}
	if text := s.ok("ps").stdout; !strings.Contains(text, " USER\n") {
		t.Errorf("of another user: root gets\n%s", text)
	}
	if rows := all(other); slices.ContainsFunc(rows, func(r serve.Running) bool { return r.Dir == dir }) {
		t.Errorf("the user gets root's mount: %+v", rows)
	}
	var rows []serve.Running
	if err := json.Unmarshal([]byte(other.ok("ps", "-a", "--json").stdout), &rows); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(rows, func(r serve.Running) bool { return r.Dir == dir }); i < 0 || rows[i].Health != serve.HealthUnknown || rows[i].PID != s.daemon(dir) {
		t.Errorf("the user gets of all mounts %+v", rows)
	}
	if err := errorsOf(unix.Unmount(part, 0), unix.Unmount(whole, 0)); err != nil {
		t.Fatal(err)
	}
	s.umount(dir)
	other.umount(theirs)
}

// errorsOf returns the first error.
func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestUmountAll unmounts all of a user's mounts: nested and dead ones, but not what is in
// use, and nothing of anybody else's.
func TestUmountAll(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t) // who else has nobody to leave alone
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s, root := sandboxOf(t, otherUser(t)), newSandbox(t)
	roots := root.mount(image)
	need(t, "fuse-overlayfs")
	upper, outer := filepath.Join(s.dir, "upper"), s.mountpoint()
	s.ok("mount", "--overlay", upper, image, outer)
	var rows []serve.Running
	if err := json.Unmarshal([]byte(s.ok("ps", "--json").stdout), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Dir != outer || rows[0].Health != serve.HealthOK {
		t.Errorf("an overlay: got %+v", rows)
	}
	dies, made := s.mount(image, "--io-uring=off", "--no-recover"), strings.TrimSpace(s.ok("mount", "-q", image).stdout)
	killed := s.daemon(dies)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.waitGone(dies)
	busy := s.mount(image)
	user := s.program("sleep", "1000")
	user.Dir = busy
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = user.Process.Kill(); _ = user.Wait() }()
	r := s.fails(cli.ExitFailure, []string{"unmount " + busy + ": in use by sleep (pid "}, "umount", "--all")
	if n := strings.Count(r.stderr, "imgfs: unmount "); n != 1 {
		t.Errorf("%d mounts could not be unmounted, want 1:\n%s", n, r.stderr)
	}
	for _, dir := range []string{outer, dies, made} {
		s.gone(dir)
	}
	if _, err := os.Lstat(made); err == nil {
		t.Errorf("%s, which imgfs had made, is still there", made)
	}
	s.ok("umount", "-a", "-l")
	if mounted(busy) || !mounted(roots) {
		t.Errorf("mounted on %s: %v, want not; on %s: %v, want so", busy, mounted(busy), roots, mounted(roots))
	}
	_ = user.Process.Kill()
	s.waitGone(busy)
	if r := s.ok("umount", "--all"); r.stdout+r.stderr != "" {
		t.Errorf("with nothing mounted: got %q", r.stdout+r.stderr)
	}
	s.fails(cli.ExitUsage, []string{"and not both"}, "umount", "--all", busy)
	root.umount(roots)
	if _, err := exec.LookPath("unshare"); err != nil {
		return
	}
	// Root's are its own alone. Other tests have some: a namespace of its own sees copies.
	theirs, own := s.mount(image), root.mount(image)
	cmd := root.program("unshare", "--mount", "--propagation", "private", imgfsBinary(t), "umount", "--all", "--lazy")
	if r := root.finish(cmd); r.code != 0 && !strings.Contains(r.stderr, "not an imgfs mount") || !mounted(theirs) || !mounted(own) {
		t.Errorf("in a namespace of its own: got %+v; mounted: %v, %v", r, mounted(theirs), mounted(own))
	}
	// There is a mount in a mount's writable view, too.
	view := root.mountpoint()
	script := fmt.Sprintf("imgfs=%s; mount -t tmpfs tmpfs %[2]s && $imgfs mount --overlay %[2]s/upper %[3]s %[4]s && mkdir %[4]s/inside && $imgfs mount %[3]s %[4]s/inside || exit; $imgfs ps -q; echo then; $imgfs umount -a; $imgfs ps -q",
		imgfsBinary(t), root.mountpoint(), image, view)
	r = root.finish(root.program("unshare", "--mount", "--propagation", "private", "sh", "-c", script))
	before, left, found := strings.Cut(r.stdout, "then\n")
	if !found || !strings.Contains(before, view+"\n") || !strings.Contains(before, view+"/inside\n") || !strings.Contains(left, theirs+"\n") || strings.Contains(left, view) || strings.Contains(left, own+"\n") {
		t.Errorf("what root has left is\n%s\n%s", r.stdout, r.stderr)
	}
	s.umount(theirs)
	root.umount(own)
}

// TestUmountHidden: a mount that one on a directory above hides is listed as such, and
// umount --all takes both.
func TestUmountHidden(t *testing.T) {
	needFUSE(t)
	needRoot(t) // a user of its own has no other mounts
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := sandboxOf(t, otherUser(t))
	below := filepath.Join(s.mountpoint(), "deep", "er")
	above := filepath.Dir(filepath.Dir(below))
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := below; dir != above; dir = filepath.Dir(dir) {
		if err := os.Chown(dir, s.uid, s.gid); err != nil {
			t.Fatal(err)
		}
	}
	s.ok("mount", image, below)
	s.ok("mount", image, above)
	for _, r := range s.ps() {
		if want := map[string]string{below: serve.HealthHidden, above: serve.HealthOK}[r.Dir]; r.Health != want {
			t.Errorf("%s: got %s, want %s", r.Dir, r.Health, want)
		}
	}
	for _, command := range []string{"stats", "umount"} { // as of a shell that was there before
		if r := s.finish(s.program("sh", "-c", `cd "$1" && "$2" mount -q "$3" . && exec "$2" "$4" .`, "sh", s.mountpoint(), imgfsBinary(t), image, command)); r.code != 0 {
			t.Errorf("%s .: got %+v", command, r)
		}
	}
	s.ok("umount", "--all")
	s.gone(above)
	s.gone(below)
}

// TestMadeInUserNamespace: root of a user namespace, without a runtime directory, has
// directories made where the user outside has them.
func TestMadeInUserNamespace(t *testing.T) {
	needFUSE(t)
	needRoot(t) // else TMPDIR is for others, too
	if out, err := exec.Command("unshare", "-Urm", "true").CombinedOutput(); err != nil {
		missing(t, "unshare -Urm: %v: %s", err, out)
	}
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := sandboxOf(t, otherUser(t))
	cmd := s.program("unshare", "-Urm", "env", "-u", "XDG_RUNTIME_DIR", "TMPDIR=/tmp", imgfsBinary(t), "mount", "-q", image)
	r := s.finish(cmd)
	dir := strings.TrimSpace(r.stdout)
	if name := fmt.Sprintf("/imgfs-%d/", s.uid); r.code != 0 || !strings.HasPrefix(dir, "/run/user/") && !strings.HasPrefix(dir, "/tmp"+name) {
		t.Errorf("got %+v", r)
	}
	s.waitGone(image) // as nobody else is in the namespace
	_ = os.Remove(dir)
	_ = os.Remove(filepath.Dir(dir))
}

// TestUnmountOrder: what is in or on another mount goes before it.
func TestUnmountOrder(t *testing.T) {
	got := innerFirst([]string{"/a", "/b/c", "/a/b", "/a", "/a/b/c/d"})
	if want := []string{"/a/b/c/d", "/a/b", "/b/c", "/a", "/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
