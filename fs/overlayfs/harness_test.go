//go:build linux

package overlayfs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A process must not use its own mount, so that of a test is a child: the test binary
// again, with its task in the environment.
const taskEnv = "IMGFS_OVERLAYFS_TASK"

// A task is what a child is to mount.
type task struct {
	Upper, Lower, Target string
	Kind                 Kind
	OldAPI               bool
	AllowOther           bool
	Image, Manifest      string
	Described            string // what to go on with, in place of mounting: see Reopen
}

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(taskEnv)
	if !ok {
		os.Exit(m.Run())
	}
	var k task
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		panic(err)
	}
	run := k.run
	if k.Described != "" {
		run = k.succeed
	}
	if err := run(); err != nil {
		var hint *fusefs.Error
		if errors.As(err, &hint) {
			err = fmt.Errorf("%w; %s", err, hint.Hint)
		}
		say("error: %v", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func say(format string, args ...any) {
	fmt.Println(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "|"))
}

// run mounts a tree and an overlay over it, and obeys the lines on its standard input. At
// the end of that it unmounts both, so it does not outlive the test.
func (k *task) run() error {
	ctx := context.Background()
	cut := &atomic.Bool{}
	tree, err := fs.Merge(ctx, []fs.Layer{sampleLayer(cut)})
	if err != nil {
		return err
	}
	upper, err := Open(ctx, k.Upper)
	if err != nil {
		return err
	}
	defer upper.Close()
	low, err := fusefs.Mount(ctx, k.Lower, tree, &fusefs.Options{Name: "sample", Stacked: true, AllowOther: k.AllowOther})
	if err != nil {
		return err
	}
	m, err := upper.Mount(ctx, k.Lower, k.Target, &Options{Source: "sample", Kind: k.Kind, NoSuid: true, NoDev: true, oldAPI: k.OldAPI,
		AllowOther: k.AllowOther, Image: k.Image, Manifest: k.Manifest})
	if err != nil {
		return errors.Join(err, low.Unmount(ctx))
	}
	_ = low.DropPrivileges() // as the program does
	image, manifest := upper.Image()
	say("ready %d %s %s", m.Kind(), image, manifest)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			var err error
			switch in.Text() {
			case "cut":
				cut.Store(true)
			case "succeed":
				err = k.startSuccessor(upper, m)
			case "mend":
				cut.Store(false)
			case "unmount":
				err = m.Unmount(ctx, false)
			case "lazy":
				err = errors.Join(m.Unmount(ctx, true), low.Detach(ctx))
			}
			if err != nil {
				say("error: %v", err)
			} else {
				say("done")
			}
		}
		_ = errors.Join(m.Unmount(ctx, true), low.Detach(ctx))
		m.Abandon()
		os.Exit(2)
	}()
	<-m.Done()
	say("overlay gone")
	if err := m.Unmount(ctx, false); err != nil {
		say("error: %v", err)
	}
	for low.Unmount(ctx) != nil { // processes use the overlay
		time.Sleep(20 * time.Millisecond)
	}
	low.Wait()
	say("image gone")
	return nil
}

// startSuccessor starts a process that goes on with the mount of this one.
func (k *task) startSuccessor(upper *Upper, m *Mount) error {
	described, err := m.Describe(upper)
	if err != nil {
		return err
	}
	next := *k
	next.Described = string(described)
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), taskEnv+"="+string(text))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{upper.Lock()}
	return cmd.Start()
}

// succeed goes on with a mount whose image nobody serves any more, and unmounts both at the
// first line, or the end, of its standard input.
func (k *task) succeed() error {
	ctx := context.Background()
	upper, m, err := Reopen([]byte(k.Described), os.NewFile(3, "upper"))
	if err != nil {
		return err
	}
	image, manifest := upper.Image()
	say("again %d %s %s", m.Kind(), image, manifest)
	if bufio.NewScanner(os.Stdin).Scan() {
		if _, err := Open(ctx, k.Upper); err == nil || !strings.Contains(err.Error(), errInUse.Error()) {
			return fmt.Errorf("opened again: %w, want that it is in use", err)
		}
		select {
		case <-m.Done():
			return errors.New("the overlay is gone")
		default:
		}
	}
	if err := m.Unmount(ctx, false); err != nil {
		return err
	}
	<-m.Done()
	if m.server != nil {
		if found, err := findProcess(m.server.pid, m.server.began); err == nil && !isZombie(found.pid) {
			return errors.New("fuse-overlayfs still runs")
		}
	}
	if err := fusefs.Unmount(ctx, k.Lower); err != nil {
		return err
	}
	upper.Close()
	free, err := Open(ctx, k.Upper)
	if err != nil {
		return err
	}
	free.Close()
	say("all gone")
	return nil
}

// isZombie reports whether a process has ended, and nobody has waited for it yet.
func isZombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// sampleLayer is the image below.
func sampleLayer(cut *atomic.Bool) fs.Layer {
	dir := func(name string, mode uint32) layerindex.Entry {
		return layerindex.Entry{Name: name + "/", Type: layerindex.TypeDir, Mode: mode, ModSec: 1_700_000_000}
	}
	file := func(name string, mode uint32, size int64) layerindex.Entry {
		return layerindex.Entry{Name: name, Type: layerindex.TypeReg, Mode: mode, Size: size, ModSec: 1_700_000_000}
	}
	caps := file("caps", 0o755, 10)
	caps.Xattrs = []layerindex.Xattr{{Name: "user.note", Value: "kept"}}
	entries := []layerindex.Entry{
		dir(".", 0o1755), dir("dir", 0o755), dir("dir/sub", 0o755), dir("emptied", 0o755), file("dir/a", 0o644, 5), file("dir/sub/b", 0o644, 5), file("emptied/x", 0o644, 5),
		file("big", 0o644, 3<<20), caps, file("setuid", 0o4755, 10),
		{Name: "hard", Type: layerindex.TypeLink, Linkname: "big", Mode: 0o644},
		{Name: "link", Type: layerindex.TypeSymlink, Linkname: "dir/a", Mode: 0o777},
	}
	return fs.Layer{Name: "sha256:test", Content: fs.StreamContent(letters{cut}), Entries: func(yield func(*layerindex.Entry) bool) {
		for _, e := range entries {
			if !yield(&e) {
				return
			}
		}
	}}
}

// letters is a layer of the letter a, until its line is cut.
type letters struct{ cut *atomic.Bool }

func (l letters) ReadFileAt(_ context.Context, p []byte, _, _ int64) (int, error) {
	if l.cut.Load() {
		return 0, errors.New("the line is cut")
	}
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// A way is a way to mount an overlay.
type way struct {
	name   string
	kind   Kind
	uid    int
	spaces bool // in a user namespace of its own
	oldAPI bool
}

// nobody is a user that every machine has, as fusermount3 asks for the name.
const nobody = 65534

// ways are the ways that this machine has.
func ways(t *testing.T) []way {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		missing(t, "%v", err)
	} else {
		f.Close()
	}
	if os.Geteuid() != 0 {
		return []way{{name: "user", kind: Fuse, uid: os.Geteuid()}}
	}
	if fusefs.InUserNamespace() {
		return []way{{name: "namespace", kind: Kernel}}
	}
	return []way{
		{name: "root", kind: Kernel},
		{name: "root by mount(2)", kind: Kernel, oldAPI: true},
		{name: "root by fuse-overlayfs", kind: Fuse},
		{name: "namespace", kind: Kernel, spaces: true},
		{name: "user", kind: Fuse, uid: nobody},
	}
}

// missing skips a test, or fails it where everything must be there.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func (w way) need(t testing.TB) {
	t.Helper()
	if w.kind == Fuse {
		if _, err := exec.LookPath(fusefs.FUSEOverlay); err != nil {
			missing(t, "%v", err)
		}
	}
	if w.uid != 0 && os.Geteuid() == 0 {
		testenv.OthersCanEnter(t, os.TempDir())
		openDevice(t)
	}
	if w.kind == Kernel && !w.spaces {
		if err := mayMountKernel(); err != nil {
			missing(t, "%v", err)
		}
	}
}

// openDevice lets ordinary users use /dev/fuse during a test. Tests of other packages may
// do the same at the same time: each holds a shared lock, and the last to go restores the
// mode.
func openDevice(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var st unix.Stat_t
	if err := errors.Join(unix.Flock(fd, unix.LOCK_SH), unix.Fstat(fd, &st)); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o006 == 0o006 {
		return
	}
	if err := unix.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = unix.Chmod("/dev/fuse", st.Mode&0o777)
		}
	})
}

// A child serves a tree and an overlay over it.
type child struct {
	t      testing.TB
	way    way
	task   task
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan string
}

// place makes directories with odd names for a task of a way.
func place(t testing.TB, w way) task {
	t.Helper()
	top, err := os.MkdirTemp("", "imgfs-overlay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	k := task{Kind: w.kind, OldAPI: w.oldAPI, Upper: filepath.Join(top, `up,per:=\ x`), Lower: filepath.Join(top, `lo,wer:=\ x`), Target: filepath.Join(top, `tar,get:=\ x`)}
	if w.kind == Fuse {
		k.Upper = strings.ReplaceAll(k.Upper, ":", "")
	}
	for _, dir := range []string{top, k.Lower, k.Target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if w.uid != 0 && os.Geteuid() == 0 {
			if err := os.Chown(dir, w.uid, w.uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	return k
}

// begin starts a child, which may fail.
func begin(t testing.TB, w way, k task) *child {
	t.Helper()
	w.need(t)
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, way: w, task: k, cmd: exec.Command("/proc/self/exe"), events: make(chan string, 100)}
	if w.spaces {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		c.cmd = exec.Command("unshare", "--user", "--map-root-user", "--mount", "/proc/self/fd/3")
		c.cmd.ExtraFiles = []*os.File{self}
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if w.uid != 0 && os.Geteuid() == 0 {
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}
	}
	c.cmd.Env = append(os.Environ(), taskEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	c.cmd.Dir = "/"
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stdin.Close()
		_ = c.cmd.Wait()
	})
	go func() {
		defer close(c.events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.events <- lines.Text()
		}
	}()
	return c
}

// mounted starts a child and waits until it has mounted.
func mounted(t testing.TB, w way, k task) *child {
	t.Helper()
	c := begin(t, w, k)
	if got := c.next(); !strings.HasPrefix(got, fmt.Sprintf("ready %d", w.kind)) {
		t.Fatalf("the child says %q, want it to be ready by kind %d", got, w.kind)
	}
	return c
}

func (c *child) next() string {
	c.t.Helper()
	select {
	case line := <-c.events:
		return line
	case <-time.After(30 * time.Second):
		c.t.Fatal("no word from the child for 30 s")
		return ""
	}
}

func (c *child) expect(want ...string) {
	c.t.Helper()
	for _, want := range want {
		if got := c.next(); got != want {
			c.t.Fatalf("the child says %q, want %q", got, want)
		}
	}
}

func (c *child) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.stdin, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// sh runs a script where the child has its mounts, as its user: $T is the overlay, $L the
// image below, $U the upper directory.
func (c *child) sh(script string) (string, error) {
	c.t.Helper()
	cmd := exec.Command("sh", "-c", script)
	if c.way.spaces {
		cmd = exec.Command("nsenter", "--user", "--mount", "--preserve-credentials", "-t", fmt.Sprint(c.cmd.Process.Pid), "sh", "-c", script)
	}
	if c.way.uid != 0 && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.way.uid), Gid: uint32(c.way.uid)}}
	}
	cmd.Env = append(os.Environ(), "T="+c.task.Target, "L="+c.task.Lower, "U="+filepath.Join(c.task.Upper, "upper"), "LC_ALL=C")
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// check runs a script that must print what is wanted.
func (c *child) check(script, want string) {
	c.t.Helper()
	if out, err := c.sh(script); out != want || err != nil {
		c.t.Errorf("%s: %q, %v, want %q", script, out, err, want)
	}
}

// unmount ends the overlay as anybody may.
func (c *child) unmount() {
	c.t.Helper()
	command := `umount "$T"`
	if c.way.uid != 0 {
		command = `fusermount3 -u "$T"`
	}
	c.check(command, "")
	c.expect("overlay gone", "image gone")
	if got := c.next(); got != "" {
		c.t.Errorf("the child says %q at its end", got)
	}
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !what(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen for 10 s")
		}
	}
}
