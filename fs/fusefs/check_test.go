//go:build linux

package fusefs

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// checkRole tells what Check finds.
func checkRole(k task) error {
	_, err := Check(context.Background(), k.Dir, &Options{AllowOther: k.AllowOther})
	if errors.Is(err, ErrPermission) {
		say("no permission")
	}
	return err
}

func TestCheckDirectory(t *testing.T) {
	needFUSE(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	loop := filepath.Join(dir, "loop")
	if err := errors.Join(os.WriteFile(name, nil, 0o644), os.Symlink(loop, loop)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  string
		want error
		hint string
	}{
		{filepath.Join(dir, "none"), ErrNoDir, "mkdir " + filepath.Join(dir, "none")},
		{filepath.Join(dir, "none", "two"), ErrNoDir, "mkdir -p " + filepath.Join(dir, "none", "two")},
		{name, ErrNotDir, ""},
		{filepath.Join(name, "x"), ErrNotDir, ""},
		{"/proc", ErrMounted, "choose another directory"},
		{"/proc/self", errProc, "choose another directory"},
		{"/", ErrMounted, "choose another directory"},
	} {
		_, err := Check(t.Context(), c.dir, nil)
		if e := new(Error); !errors.Is(err, c.want) || !errors.As(err, &e) || e.Op != "mount" || e.Dir != c.dir || e.Hint != c.hint {
			t.Errorf("Check(%s) = %v, want %v with hint %q", c.dir, err, c.want, c.hint)
		}
		if _, err := Mount(t.Context(), c.dir, treeNamed(t, "plain"), nil); !errors.Is(err, c.want) {
			t.Errorf("Mount(%s) = %v, want %v", c.dir, err, c.want)
		}
	}
	if _, err := Check(t.Context(), loop, nil); err == nil {
		t.Errorf("Check of a symlink loop succeeds")
	}
	if to, err := Check(t.Context(), dir, nil); isRoot() && err != nil {
		t.Errorf("Check of an empty directory: %v", err)
	} else if err == nil {
		to.Close()
	}
}

func TestCheckMounted(t *testing.T) {
	w := mounters(t)[0]
	_, dir := serve(t, w, task{Tree: "plain", Name: "fedora:latest"})
	_, err := Check(t.Context(), dir, nil)
	if !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), "fedora:latest of type fuse.imgfs") {
		t.Errorf("Check: %v, want %v and what is mounted", err, ErrMounted)
	}
	if e := new(Error); !errors.As(err, &e) || e.Hint != "imgfs umount '"+dir+"'" {
		t.Errorf("Check: %v, want a hint to unmount it", err)
	}
}

// TestAttachTaken has somebody mount on a directory while fusermount3 is about to, which
// then fails for another reason.
func TestAttachTaken(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	helper := filepath.Join(t.TempDir(), "helper")
	script := "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nmount -t tmpfs none '" + dir + "' && echo no permission >&2\nexit 1\n"
	if err := os.WriteFile(helper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	at, err := openPlace(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := &Target{at: at, name: dir}
	defer to.Close()
	_, err = to.attachHelper(t.Context(), helper, &Options{})
	if out, bad := exec.Command("umount", dir).CombinedOutput(); bad != nil {
		t.Fatalf("nothing was mounted: %v: %s", bad, out)
	}
	if !errors.Is(err, ErrMounted) {
		t.Errorf("got %v, want %v", err, ErrMounted)
	}
	if _, err := to.attachHelper(t.Context(), "/bin/false", &Options{}); err == nil || errors.Is(err, ErrMounted) {
		t.Errorf("with nothing mounted: got %v", err)
	}
}

func TestCheckHost(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "fuse") // any file that can be opened
	closed := filepath.Join(dir, "closed")
	allows := filepath.Join(dir, "allows.conf")
	forbids := filepath.Join(dir, "forbids.conf")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Mkdir(closed, 0),
		os.WriteFile(allows, []byte("mount_max = 1000\n user_allow_other # yes\n"), 0o644),
		os.WriteFile(forbids, []byte("#user_allow_other\nuser_allow_other_not\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	has := func(names ...string) func(string) (string, error) {
		return func(file string) (string, error) {
			if slices.Contains(names, file) {
				return file, nil
			}
			return "", exec.ErrNotFound
		}
	}
	for _, c := range []struct {
		name   string
		host   host
		opts   Options
		want   error
		helper string // and the one for when mounting is not allowed
	}{
		{"root", host{root: true, device: device, lookPath: has()}, Options{Suid: true, Dev: true, AllowOther: true}, nil, ""},
		{"root with a helper", host{root: true, device: device, lookPath: has("fusermount3")}, Options{}, nil, ", then fusermount3"},
		{"not root, but may mount", host{sysAdmin: true, device: device, lookPath: has()}, Options{Suid: true}, nil, ""},
		{"not root, but may mount, with a helper", host{sysAdmin: true, device: device, lookPath: has("fusermount3")}, Options{}, nil, ", then fusermount3"},
		{"root, no device", host{root: true, device: closed + "-none"}, Options{}, ErrNoDevice, ""},
		{"device cannot be opened", host{root: true, device: closed}, Options{}, ErrDevice, ""},
		{"root through a helper", host{root: true, device: device, lookPath: has("fusermount3")}, Options{useHelper: true}, nil, "fusermount3"},
		{"user", host{device: device, lookPath: has("fusermount3", "fusermount")}, Options{}, nil, "fusermount3"},
		{"user of FUSE 2", host{device: device, lookPath: has("/bin/fusermount")}, Options{}, nil, "/bin/fusermount"},
		{"no PATH", host{device: device, lookPath: has("/usr/bin/fusermount3")}, Options{}, nil, "/usr/bin/fusermount3"},
		{"no helper", host{device: device, lookPath: has()}, Options{}, ErrNoHelper, ""},
		{"suid", host{device: device, lookPath: has("fusermount3")}, Options{Suid: true}, ErrNeedsRoot, ""},
		{"dev", host{device: device, lookPath: has("fusermount3")}, Options{Dev: true}, ErrNeedsRoot, ""},
		{"allow_other", host{device: device, conf: allows, lookPath: has("fusermount3")}, Options{AllowOther: true}, nil, "fusermount3"},
		{"allow_other not allowed", host{device: device, conf: forbids, lookPath: has("fusermount3")}, Options{AllowOther: true}, ErrAllowOther, ""},
		{"allow_other, no file", host{device: device, conf: closed + "-none", lookPath: has("fusermount3")}, Options{AllowOther: true}, ErrAllowOther, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.host.check(t.Context(), dir, &c.opts)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			first, second, _ := strings.Cut(c.helper, ", then ")
			if err == nil && (got.helper != first || got.second != second) {
				t.Errorf("the helper is %q, and then %q, want %q", got.helper, got.second, c.helper)
			}
			if err != nil && c.want != ErrNeedsRoot && hint("mount", dir, err) == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
}

// TestCheckRefused: where the kernel refuses to mount, a helper may do it, unless what
// refuses holds for helpers too.
func TestCheckRefused(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "fuse")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name            string
		refused, helper error
		want            error
	}{
		{"no capability", ErrCapability, nil, nil},
		{"no capability, and none for a helper", ErrCapability, ErrBounding, ErrCapability},
		{"a security module", ErrModule, nil, nil},
		{"a filter", ErrFilter, nil, ErrFilter},
		{"a namespace", ErrNamespace, nil, ErrNamespace},
		{"no module", ErrNoModule, nil, ErrNoModule},
		{"nothing", nil, ErrHelper, nil},
	} {
		for _, root := range []bool{true, false} {
			h := host{root: root, sysAdmin: true, device: device, lookPath: func(string) (string, error) { return "/fusermount3", nil },
				mayMount: func(context.Context, *place) error {
					if c.refused == nil {
						return nil
					}
					return refusal{c.refused}
				},
				mayHelp: func(string) error { return c.helper }}
			to, err := h.check(t.Context(), dir, &Options{})
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s, root %v: got %v, want %v", c.name, root, err, c.want)
			}
			if err == nil {
				to.Close()
			} else if hint("mount", dir, err) == "" {
				t.Errorf("%v has no hint", err)
			}
		}
	}
	if err := (host{device: device, number: fuseDevice}).checkDevice(); !errors.Is(err, ErrDevice) {
		t.Errorf("a file in place of the device: %v", err)
	}
	driverless := filepath.Join(dir, "driverless")
	if err := unix.Mknod(driverless, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 1<<16))); err != nil {
		t.Logf("no device without a driver: %v", err)
	} else if err := (host{device: driverless, number: fuseDevice}).checkDevice(); !errors.Is(err, ErrNoModule) {
		t.Errorf("a device without a driver: %v, want %v", err, ErrNoModule)
	}
}

// An ordinary user is told before anything is fetched.
func TestCheckPermission(t *testing.T) {
	needFUSE(t)
	needHelper(t)
	needRoot(t)
	sticky := mountDir(t, 0)
	if err := os.Chmod(sticky, os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	closed := mountDir(t, 0)
	if err := errors.Join(os.Mkdir(filepath.Join(closed, "in"), 0o755), os.Chmod(closed, 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(filepath.Join(closed, "in")) })
	for _, dir := range []string{mountDir(t, 0), sticky, filepath.Join(closed, "in")} {
		c := start(t, nobody, task{Role: "check", Dir: dir})
		c.expect("no permission")
		if got := c.next(); !strings.HasPrefix(got, "error: mount "+dir+": "+ErrPermission.Error()+": ") {
			t.Errorf("the user is told %q, want the reason", got)
		}
		_ = c.cmd.Wait()
	}
}

// placeOf opens a directory until the end of the test.
func placeOf(t *testing.T, dir string) *place {
	t.Helper()
	at, err := openPlace(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(at.close)
	return at
}

// Root in a container often has no right to mount.
func TestMountWithoutCapability(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	k, err := json.Marshal(task{Role: "serve", Dir: mountDir(t, 0), Tree: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--bounding-set", "-sys_admin", self)
	cmd.Env = append(os.Environ(), taskEnv+"="+string(k))
	if out, err := cmd.Output(); err == nil || !strings.Contains(string(out), ErrCapability.Error()) {
		t.Errorf("mounting: %v, %s, want %v", err, out, ErrCapability)
	}
}

// Who is not root, but may mount, needs no fusermount3, and gets passthrough
// with it.
func TestCapabilityWithoutRoot(t *testing.T) {
	needRoot(t)
	needPassthrough(t)
	c, dir := serve(t, who{uid: nobody, mode: mode{Passthrough: On, Disk: true}, wrap: []string{"setpriv",
		"--reuid=" + strconv.Itoa(nobody), "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin", "--"}}, task{Tree: "sample"})
	c.send("helper")
	c.expect("helper ")
	c.send("unmount")
	c.ended()
	if isMounted(t, dir) {
		t.Error("still mounted")
	}
}

// An ordinary user who makes a user namespace mounts in it without fusermount3.
func TestUserNamespaceOfAUser(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	openDevice(t)
	unshare := []string{"setpriv", "--reuid=" + strconv.Itoa(nobody), "--clear-groups", "--", "unshare", "-Urm"}
	if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("%q: %v: %s", unshare, err, out)
	}
	c, _ := serve(t, who{uid: nobody, wrap: unshare}, task{Tree: "plain"})
	c.send("helper")
	c.expect("helper ")
	c.send("unmount")
	c.ended()
}

func TestHelpersWords(t *testing.T) {
	at := placeOf(t, "/")
	for _, c := range []struct {
		script, want string
		is           error
	}{
		{"exit 0", "", nil},
		{"echo fusermount3: a warning >&2", "", nil},
		{"exit 3", "sh: exit status 3", nil},
		{"echo fusermount3: unknown option >&2; exit 1", "fusermount3: unknown option", nil},
		{"echo fusermount3: user has no write access to mountpoint /x >&2; exit 1",
			ErrPermission.Error() + ": fusermount3: user has no write access to mountpoint /x", ErrPermission},
	} {
		_, err := runHelper(t.Context(), "/bin/sh", at, nil, "-c", c.script)
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("after %q: %v, want %q", c.script, err, c.want)
		}
	}
}

// A helper that succeeds without sending a descriptor must not hang or pass.
func TestSilentHelper(t *testing.T) {
	helper := filepath.Join(t.TempDir(), "fusermount3")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\necho fusermount3: odd >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var logs []string
	to := &Target{at: placeOf(t, t.TempDir()), helper: helper}
	_, _, err := to.attach(t.Context(), &Options{Logf: func(f string, a ...any) { logs = append(logs, f) }})
	if err == nil || !strings.Contains(err.Error(), "sent no descriptor") || len(logs) != 1 {
		t.Errorf("%v, log %q, want an error and the helper's words in the log", err, logs)
	}
}

func TestParseMountinfo(t *testing.T) {
	const text = `24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
33 24 0:40 / /mnt/a\040b\134c\012d ro,nosuid,nodev shared:7 master:2 - fuse.imgfs oci:\043x,\011y ro,user_id=0
too short - x y
34 24 0:41 / /no/optional ro - fuse.imgfs fedora:latest ro
35 24 0:42 / /mnt/odd\9 rw - tmpfs none
`
	want := []mountEntry{
		{id: "24", parent: "1", device: "254:0", part: "/", dir: "/", fsType: "ext4", source: "/dev/root", shared: true},
		{id: "33", parent: "24", device: "0:40", part: "/", dir: "/mnt/a b\\c\nd", fsType: "fuse.imgfs", source: "oci:#x,\ty", owner: "0", shared: true},
		{id: "34", parent: "24", device: "0:41", part: "/", dir: "/no/optional", fsType: "fuse.imgfs", source: "fedora:latest"},
		{id: "35", parent: "24", device: "0:42", part: "/", dir: `/mnt/odd\9`, fsType: "tmpfs", source: "none"},
	}
	if got := parseMountinfo(text); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
