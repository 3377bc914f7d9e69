//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// mountMade mounts an image without naming a directory, and returns the one that was
// made.
func (s *sandbox) mountMade(args ...string) (dir string) {
	s.t.Helper()
	r := s.ok(append([]string{"mount", "-q"}, args...)...)
	dir, end := strings.CutSuffix(r.stdout, "\n")
	if !end || r.stderr != "" || !mounted(dir) {
		s.t.Fatalf("imgfs mount -q %q: got %q and on stderr %q, want only a directory with a mount", args, r.stdout, r.stderr)
	}
	return dir
}

// users are sandboxes of root and of an ordinary user, as far as there are both.
func users(t *testing.T) map[string]*sandbox {
	all := map[string]*sandbox{"this user": newSandbox(t)}
	if os.Geteuid() == 0 {
		all["another user"] = sandboxOf(t, otherUser(t))
	}
	for _, s := range all {
		run := filepath.Join(s.dir, "xdg-run")
		if err := os.Mkdir(run, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(run, s.uid, s.gid); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// missingSoon checks that a directory goes away.
func missingSoon(t *testing.T, why, dir string) {
	t.Helper()
	if !eventually(10*time.Second, func() bool { _, err := os.Lstat(dir); return os.IsNotExist(err) }) {
		t.Errorf("after %s there is still %s", why, dir)
	}
}

// TestMadeMountpoint mounts without naming a directory: it is in the runtime directory,
// and gone when the mount is, however that ends.
func TestMadeMountpoint(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "fusermount3")
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, small)
	layout = publicLayout(t, layout)
	for name, s := range users(t) {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			base := filepath.Join(s.dir, "xdg-run", "imgfs")
			kill := func(sig syscall.Signal) func(dir string) {
				return func(string) { _ = syscall.Kill(serving(image)[0], sig) }
			}
			for why, end := range map[string]func(dir string){
				"imgfs umount":       func(dir string) { s.ok("umount", dir) },
				"imgfs umount -l":    func(dir string) { s.ok("umount", "-l", dir) },
				"imgfs umount IMAGE": func(string) { s.ok("-q", "umount", image) },
				"fusermount3 -u":     func(dir string) { tool(t, "fusermount3", "-u", dir) },
				"SIGTERM":            kill(syscall.SIGTERM),
				"SIGINT":             kill(syscall.SIGINT),
				"imgfs umount, dead": func(dir string) { kill9(image); s.waitGone(image); s.ok("umount", dir) },
				"a mount, after kill": func(dir string) {
					kill9(image)
					s.waitGone(image)
					s.ok("umount", s.mountMade("oci:"+layout))
				},
			} {
				if why == "fusermount3 -u" && s.uid != os.Geteuid() {
					end = func(dir string) { s.finish(s.program("fusermount3", "-u", dir)) }
				}
				dir := s.mountMade(image)
				if want := filepath.Join(base, "app"); dir != want {
					t.Errorf("the directory is %s, want %s", dir, want)
				}
				r := s.finish(s.program("cat", dir+"/etc/os-release"))
				if r.stdout != "NAME=small\n" {
					t.Errorf("in the mount there is %q, %s", r.stdout, r.stderr)
				}
				end(dir)
				missingSoon(t, why, dir)
				s.waitGone(image)
			}
			if r := s.ok("mount", image); !strings.HasPrefix(r.stdout, "mounted "+image+" on "+base+"/app: ") {
				t.Errorf("imgfs mount says %q", r.stdout)
			}
			// Names that are taken, and a directory of the user's own.
			second := s.mountMade(image)
			own := filepath.Join(base, "own")
			s.finish(s.program("mkdir", own))
			s.ok("mount", image, own)
			if second != base+"/app-2" {
				t.Errorf("the second directory is %s", second)
			}
			third := s.mountMade("-o", "provenance", image)
			for _, dir := range []string{base + "/app", second, third, own} {
				s.ok("umount", dir)
			}
			s.waitGone(image)
			if left, err := os.ReadDir(base); err != nil || len(left) != 1 || left[0].Name() != "own" {
				t.Errorf("%v is left, error %v, want only own", left, err)
			}
			// What fails leaves nothing.
			s.fails(1, []string{"not found"}, "mount", image+"x")
			if left, err := os.ReadDir(base); err != nil || len(left) != 1 {
				t.Errorf("%v is left after a failure, error %v", left, err)
			}
			s.finish(s.program("rmdir", own))
		})
	}
}

// TestMadeInUse unmounts what somebody uses: the server, which has the directory below the
// mount open, is not among those.
func TestMadeInUse(t *testing.T) {
	needFUSE(t)
	need(t, "fusermount3")
	s := users(t)["this user"]
	_, layout := publish(t, registrytest.New(t, nil), small)
	dir := s.mountMade("oci:" + layout)
	f, err := os.Open(filepath.Join(dir, "etc/os-release"))
	if err != nil {
		t.Fatal(err)
	}
	r := s.fails(1, []string{"imgfs: unmount " + dir, fmt.Sprintf("(pid %d)", os.Getpid())}, "umount", dir)
	if own := fmt.Sprintf("(pid %d)", serving("oci:" + layout)[0]); strings.Contains(r.stderr, own) {
		t.Errorf("the server %s is said to use its mount: %s", own, r.stderr)
	}
	f.Close()
	s.ok("umount", dir)
}

// TestMadeAtOnce mounts one image from several sides at once, and unmounts it: each has a
// directory of its own, for as long as it is mounted.
func TestMadeAtOnce(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "fusermount3")
	s := users(t)["this user"]
	image, _ := publish(t, registrytest.New(t, nil), small)
	s.ok("index", "-q", image)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 8 {
				r := s.run("mount", "-q", image)
				dir := strings.TrimSuffix(r.stdout, "\n")
				if r.code != 0 {
					t.Errorf("imgfs mount: %s", r.stderr)
					return
				}
				if _, err := os.ReadFile(filepath.Join(dir, "etc/os-release")); err != nil {
					t.Error(err)
				}
				if r := s.run("umount", dir); r.code != 0 {
					t.Errorf("imgfs umount: %s", r.stderr)
				}
			}
		})
	}
	all.Wait()
}

// TestMadeInForeground serves in the foreground, and ends by a signal.
func TestMadeInForeground(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := users(t)["this user"].in(t)
	cmd := s.command("mount", "-q", "-f", image)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, _ := out.Read(buf)
	dir := strings.TrimSuffix(string(buf[:n]), "\n")
	if dir != filepath.Join(s.dir, "xdg-run/imgfs/app") || !mounted(dir) {
		t.Errorf("it says %q", buf[:n])
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	missingSoon(t, "Ctrl-C", dir)
}

// TestMadeNowhere: a place that somebody else has, or could change, is not used.
func TestMadeNowhere(t *testing.T) {
	needRoot(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := sandboxOf(t, otherUser(t))
	if _, err := os.Stat("/run/user/" + strconv.Itoa(s.uid)); err == nil {
		t.Skipf("there is a runtime directory of user %d", s.uid)
	}
	for _, c := range []struct {
		name, prepare, says string
		fits                bool
	}{
		{"TMPDIR", `mkdir -m 1777 tmp; rm -rf xdg-run`, "", true},
		{"runtime directory of another", `mkdir -m 1777 tmp; mkdir -m 700 xdg-run`, "", true},
		{"TMPDIR that others can change", `mkdir -m 777 tmp`, "can be changed by others", false},
		{"another's directory", `mkdir -m 1777 tmp; mkdir -m 700 tmp/imgfs-$1`, "belongs to user 0", false},
		{"a symlink of another", `mkdir -m 1777 tmp; mkdir home; chown $1 home; ln -s $PWD/home tmp/imgfs-$1`, "is not a directory", false},
		{"open to others", `mkdir -m 1777 tmp; mkdir -m 755 tmp/imgfs-$1; chown $1 tmp/imgfs-$1`, "is open to others", false},
		{"a file", `mkdir -m 1777 tmp; touch tmp/imgfs-$1; chown $1 tmp/imgfs-$1`, "is not a directory", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			tool(t, "sh", "-ec", "cd "+s.dir+"; rm -rf tmp home xdg-run; "+c.prepare, "sh", strconv.Itoa(s.uid))
			cmd := s.command("mount", "-q", image)
			cmd.Env = append(cmd.Env, "TMPDIR="+s.dir+"/tmp")
			r := s.finish(cmd)
			if !c.fits {
				checkRefusal(t, r, 1, []string{"no place for a directory to mount on: ", c.says}, "imgfs mount IMAGE DIR")
				return
			}
			dir := strings.TrimSuffix(r.stdout, "\n")
			if want := s.dir + "/tmp/imgfs-" + strconv.Itoa(s.uid) + "/app"; dir != want || !mounted(dir) {
				t.Fatalf("got %q and %s, want %s", r.stdout, r.stderr, want)
			}
			cmd = s.command("umount", dir)
			cmd.Env = append(cmd.Env, "TMPDIR="+s.dir+"/tmp")
			if r := s.finish(cmd); r.code != 0 {
				t.Error(r.stderr)
			}
			missingSoon(t, "imgfs umount", dir)
		})
	}
}

// TestMountsByName unmounts images by their names, and asks for their stats.
func TestMountsByName(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	_, layout := publish(t, reg, small)
	repo := "only" + strconv.Itoa(os.Getpid()) // as no other mount of the machine
	if err := reg.PushLayout(layout, repo); err != nil {
		t.Fatal(err)
	}
	image := reg.Host() + "/" + repo + ":latest"
	s := newSandbox(t)
	one := s.mount(image)
	short := strings.TrimSuffix(image, ":latest")
	for _, name := range []string{image, short, "docker://" + image, repo, repo + ":latest"} {
		if r := s.ok("stats", name); !strings.Contains(r.stdout, image+"\n") || !strings.Contains(r.stdout, one+"\n") || !strings.Contains(r.stderr, "is mounted on "+one) {
			t.Errorf("imgfs stats %s: got %q and %q", name, r.stdout, r.stderr)
		}
	}
	checkRefusal(t, s.run("umount", short+"x"), 1, []string{"mountpoint does not exist, and no image of that name is mounted"}, "imgfs ps")
	checkRefusal(t, s.run("umount", one+"/etc"), 1, []string{"not an imgfs mount"}, "it is in a mount: imgfs umount "+one)
	// A directory of the name goes first.
	if err := os.Mkdir(filepath.Join(s.dir, repo), 0o755); err != nil {
		t.Fatal(err)
	}
	checkRefusal(t, s.run("umount", repo), 1, []string{"not an imgfs mount"}, "imgfs umount "+one)
	for _, command := range []string{"ls", "inspect", "index", "mount"} {
		checkRefusal(t, s.run(command, one), 1, []string{one + ": not an image: there is no index.json in it"}, image+" is mounted on "+one+": ")
	}
	two := s.mount(image)
	for _, command := range []string{"umount", "stats"} {
		checkRefusal(t, s.run(command, image), 1, []string{"it is mounted on " + one + ", " + two}, "imgfs "+command+" "+one)
	}
	s.umount(two)
	s.ok("umount", image)
	s.gone(one)
	tool(t, "cp", "-r", layout, s.dir+"/layout")
	dir := s.mount("./layout")
	for _, name := range []string{"oci:layout", "./layout", "oci:" + s.dir + "/layout", s.dir + "/layout/"} {
		r := s.run("stats", name)
		if strings.HasPrefix(name, "oci:") && (r.code != 0 || !strings.Contains(r.stdout, dir+"\n")) {
			t.Errorf("imgfs stats %s: got exit code %d, %q and %s", name, r.code, r.stdout, r.stderr)
		} else if !strings.HasPrefix(name, "oci:") && !strings.Contains(r.stderr, "imgfs stats "+dir) {
			t.Errorf("imgfs stats %s: no hint to %s: %s", name, dir, r.stderr)
		}
	}
	s.umount(dir)
}

// TestNotLetIn has a user look into root's mount.
func TestNotLetIn(t *testing.T) {
	needRoot(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, small)
	root, user := newSandbox(t), sandboxOf(t, otherUser(t))
	r := root.run("mount", image, root.dir+"/none")
	if r.code == 0 {
		t.Fatal("it mounts on nothing")
	}
	dir := root.mountpoint()
	r = root.ok("mount", image, dir)
	if !strings.Contains(r.stderr, "only root can read it; --allow-other lets others in") {
		t.Errorf("root is told %q", r.stderr)
	}
	const owner = "into which only root may look"
	for _, c := range []struct{ args, says, hint string }{
		{"umount DIR/etc", owner, "--allow-other"},
		{"umount DIR", "another user's mount", "only that user and root can unmount it"},
		{"umount " + image, "another user's mount: root has mounted it on " + dir, "imgfs umount " + dir + ", as that user or root"},
		{"stats DIR/etc", owner, "--allow-other"},
		{"stats DIR", "no permission", "only that user and root may ask it"},
		{"mount 127.0.0.1:1/x DIR/etc", owner, "--allow-other"},
		{"mount 127.0.0.1:1/x DIR", "already a mount point", "choose another directory"},
		{"ls oci:DIR/layout", "ermission denied", "only root may look into the mount " + dir},
		{"ls DIR/layout", "ermission denied", "only root may look into the mount " + dir},
		{"cat DIR/file.tar /x", "ermission denied", "only root may look into the mount " + dir},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "DIR", dir))
		checkRefusal(t, user.run(args...), 1, []string{c.says}, c.hint)
	}
	root.umount(dir)
	// Root is not let into a user's mount either.
	mine := user.mount("oci:" + publicLayout(t, layout))
	checkRefusal(t, root.run("ls", "oci:"+mine+"/x"), 1, []string{"ermission denied"}, "only user "+strconv.Itoa(user.uid)+" may look into the mount "+mine)
	checkRefusal(t, root.run("stats", "oci:"+layout+"x"), 1, []string{"no image of that name"}, "")
	checkRefusal(t, root.run("umount", mountName(t, mine)), 1, []string{"another user's mount: user " + strconv.Itoa(user.uid) + " has mounted it on " + mine}, "imgfs umount "+mine)
	user.umount(mine)
}

// publicLayout copies a layout to where other users can read it.
func publicLayout(t *testing.T, layout string) string {
	t.Helper()
	dir := publicDir(t)
	if out, err := exec.Command("cp", "-r", layout, dir+"/layout").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tool(t, "chmod", "-R", "a+rX", dir+"/layout")
	return dir + "/layout"
}

// mountName returns what the mount table shows as the device of a mount.
func mountName(t *testing.T, dir string) string {
	t.Helper()
	_, rest, _ := strings.Cut(mountLine(t, dir), " - ")
	return strings.Fields(rest)[1]
}

// TestMadeTogether mounts and unmounts side by side: no process takes away what another
// has made, and nothing is left.
func TestMadeTogether(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := users(t)["this user"].in(t)
	s.ok("index", image)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 4 {
				r := s.run("mount", "-q", image)
				dir := strings.TrimSuffix(r.stdout, "\n")
				if r.code != 0 || !mounted(dir) {
					t.Errorf("imgfs mount: exit code %d, %q, %s", r.code, r.stdout, r.stderr)
					return
				}
				if r := s.run("umount", dir); r.code != 0 {
					t.Error(r.stderr)
				}
			}
		})
	}
	all.Wait()
	s.waitGone(image)
	if left, err := os.ReadDir(filepath.Join(s.dir, "xdg-run/imgfs")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, error %v", left, err)
	}
}
