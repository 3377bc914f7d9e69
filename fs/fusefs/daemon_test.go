//go:build linux

package fusefs

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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A process must not use its own mount, so the daemon of a test is a child:
// the test binary again, with its task in the environment.
const taskEnv = "IMGFS_FUSEFS_TASK"

// A task is what a child process is to do.
type task struct {
	Role string // one of those in TestMain
	Dir  string // mountpoint, or the file to use
	Tree string
	Name string

	UseHelper, AllowOther bool
	mode

	Provenance, Control bool
	Engine, Export      bool
	Xattrs              bool
	EndAlone            bool
	Unused              time.Duration
	Cache               string // directory, for the tree "opened"

	Keep, Succeed bool   // leave the mount to others; go on with one, on descriptors 3 and 4
	Early         bool   // mount before there is a tree, and show it when told
	Died          int    // how the last server did
	Drop          bool   // go on without the rights that serving does not need
	Identity      string // of the tree
	files         []*os.File

	img *image.Image // the tree "opened"
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
	roles := map[string]func(task) error{
		"serve": serveRole, "dump": dumpRole, "read": readRole, "map": mapRole, "hold": holdRole, "check": checkRole, "open": openRole, "ask": askRole, "unmount": unmountRole,
		"control": controlRole, "hammer": hammerRole, "rush": rushRole,
	}
	if err := roles[k.Role](k); err != nil {
		say("error: %v", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// say prints a line for the parent.
func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// serveRole mounts, tells of it, and obeys the lines on its standard input.
// At the end of that it unmounts, so it does not outlive the test.
func serveRole(k task) error {
	broken := &faulty{released: make(chan struct{}), event: func(s string) { say("%s", s) }}
	tree, err := k.tree(broken)
	if err != nil {
		return err
	}
	files := newDiskFiles(!k.Late)
	opts := &Options{
		Name:        k.Name,
		AllowOther:  k.AllowOther,
		Provenance:  k.Provenance,
		Engine:      k.Engine,
		Xattrs:      k.Xattrs,
		Export:      k.Export,
		Logf:        func(format string, args ...any) { say("log: "+format, args...) },
		useHelper:   k.UseHelper,
		keepOpens:   k.KeepOpens,
		disabled:    k.Disabled,
		Passthrough: k.Passthrough,
		IOUring:     k.IOUring,
		EndAlone:    k.EndAlone,
		unusedFor:   k.Unused,
	}
	if k.Disk {
		opts.Backings = files
	}
	if k.Control {
		opts.Control = control(k.img)
	}
	s, err := k.mount(tree, opts)
	if err != nil {
		return err
	}
	countRegistered(s, files)
	say("ready")
	var tell atomic.Bool // what the mount holds at the end
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			switch in.Text() {
			case "ping":
				say("pong")
			case "paths":
				b, _ := json.Marshal(s.FastPaths())
				say("%s", b)
			case "appear":
				files.ready.Store(true)
				say("there")
			case "show":
				say("shown %v", s.Show(tree, opts))
			case "recovery":
				say("%s, refused %q", s.Recovery(), s.Refused())
			case "leak":
				f, err := files.BackingProbe()
				if err != nil {
					panic(err)
				}
				id, err := s.conn.register(f.Fd())
				say("leaked %d, %v", id, err)
			case "registered":
				say("registered %d", registered(s))
			case "helper":
				say("helper %s", s.at.helper)
			case "tell":
				tell.Store(true)
				say("told")
			case "state":
				say("%s", passState(s, files))
			case "hang":
				broken.hangs.Store(true)
				say("hanging")
			case "mend":
				broken.mended.Store(true)
				say("mended")
			case "release":
				close(broken.released)
			case "detach":
				if err := s.Detach(context.Background()); err != nil {
					say("error: %v", err)
				}
			case "unmount":
				if err := s.Unmount(context.Background()); err != nil {
					say("error: %v", err)
				}
			}
		}
		_ = s.Detach(context.Background())
		os.Exit(2)
	}()
	go func() {
		<-s.Orphaned()
		say("orphaned")
		_ = s.Detach(context.Background())
		os.Exit(0)
	}()
	s.Wait()
	if tell.Load() {
		say("%s", passState(s, files))
	}
	say("ended")
	return nil
}

// tree makes the tree that the daemon serves.
func (k *task) tree(broken *faulty) (*fs.Tree, error) {
	if k.Tree == "opened" {
		var err error
		if k.img, err = openedTree(k.Cache); err != nil {
			return nil, err
		}
		return k.img.Tree(), nil
	}
	layers := trees[k.Tree]()
	if k.Tree == "faulty" {
		layers[1] = faultyLayer(broken)
	}
	return fs.Merge(context.Background(), layers)
}

// A who is a way to mount.
type who struct {
	name      string
	uid       int // of the child
	useHelper bool
	wrap      []string // command that runs the child as the user
	mode
}

// mounters are the ways to mount that this process can test.
func mounters(t *testing.T) []who {
	t.Helper()
	needFUSE(t)
	if !isRoot() {
		needHelper(t)
		return []who{{name: "user", uid: os.Getuid(), useHelper: true}}
	}
	ways := []who{{name: "root"}, {name: "root, with opens", mode: mode{KeepOpens: true}}}
	if inNamespace() {
		return ways
	}
	if _, err := thisHost().helper(); err != nil {
		missing(t, "%v: no test goes through it", err)
		return ways
	}
	return append(ways, who{name: "root through fusermount3", useHelper: true}, who{name: "user", uid: nobody, useHelper: true})
}

// forEachMounter runs a test for every way to mount.
func forEachMounter(t *testing.T, test func(t *testing.T, w who)) {
	for _, w := range mounters(t) {
		t.Run(w.name, func(t *testing.T) { test(t, w) })
	}
}

// missing fails the test where everything must be there, and logs elsewhere.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Logf(format, args...)
}

func needFUSE(t testing.TB) {
	t.Helper()
	if err := thisHost().checkDevice(); err != nil {
		missing(t, "%v", err)
		t.SkipNow()
	}
}

func needHelper(t testing.TB) {
	t.Helper()
	if _, err := thisHost().helper(); err != nil {
		missing(t, "%v", err)
		t.SkipNow()
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if !isRoot() || inNamespace() {
		t.Skip("only root can do this")
	}
}

// openDevice lets ordinary users use /dev/fuse during a test. Tests of other
// packages may do the same at the same time: each holds a shared lock, and
// the last to go restores the mode.
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

// mountDir makes a directory that a user can mount on, with a name that needs
// escapes.
func mountDir(t testing.TB, uid int) string {
	t.Helper()
	top, err := os.MkdirTemp("", "imgfs-fuse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(top) })
	d := filepath.Join(top, `a b\c`)
	if err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(d, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(d) })
	if isRoot() {
		if uid != 0 {
			testenv.OthersCanEnter(t, os.TempDir())
		}
		if err := os.Chown(d, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if d, err = filepath.EvalSymlinks(d); err != nil {
		t.Fatal(err)
	}
	return d
}

// A child is a process of the test binary.
type child struct {
	waited sync.Once
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan string // lines but those of the log; closed at the end

	mu   sync.Mutex
	logs []string
}

// start runs a child as a user.
func start(t testing.TB, uid int, k task) *child {
	t.Helper()
	return startBy(t, uid, nil, k)
}

// startBy runs a child as a user, by a command that changes to that user if
// there is one.
func startBy(t testing.TB, uid int, wrap []string, k task) *child {
	t.Helper()
	if isRoot() && uid != 0 {
		openDevice(t)
	}
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	// The path of the binary may be closed to the user.
	c := &child{t: t, cmd: exec.Command("/proc/self/exe"), events: make(chan string, 1000)}
	if len(wrap) > 0 {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		c.cmd = exec.Command(wrap[0], append(wrap[1:], "/proc/self/fd/3")...)
		c.cmd.ExtraFiles = []*os.File{self}
	}
	if k.files != nil {
		c.cmd.ExtraFiles = k.files
	}
	// The race detector makes a process sleep for a second at its end.
	c.cmd.Env = append(os.Environ(), taskEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	c.cmd.Dir = "/"
	c.cmd.Stderr = os.Stderr
	if isRoot() && uid != 0 {
		testenv.OthersCanEnter(t, os.TempDir())
	}
	if isRoot() && uid != 0 && wrap == nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
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
	go c.listen(out)
	return c
}

func (c *child) listen(out io.Reader) {
	defer close(c.events)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "log: "); ok {
			c.mu.Lock()
			c.logs = append(c.logs, text)
			c.mu.Unlock()
			continue
		}
		c.events <- lines.Text()
	}
}

// next returns the child's next line, "" if it has closed its output.
func (c *child) next() string {
	c.t.Helper()
	select {
	case line := <-c.events:
		return line
	case <-time.After(time.Minute):
		c.t.Fatal("no word from the child process for a minute")
		return ""
	}
}

func (c *child) expect(want string) {
	c.t.Helper()
	if got := c.next(); got != want {
		c.t.Fatalf("the child process says %q, want %q", got, want)
	}
}

func (c *child) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.stdin, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// logged returns the lines logged so far.
func (c *child) logged() []string {
	c.t.Helper()
	c.send("ping")
	c.expect("pong")
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logs
}

// ended waits for a daemon whose tree was unmounted to end by itself.
func (c *child) ended() {
	c.t.Helper()
	c.expect("ended")
	c.expect("")
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("the daemon ended with %v", err)
	}
}

// serve mounts a tree in a child process and returns that and the mountpoint.
func serve(t testing.TB, w who, k task) (*child, string) {
	t.Helper()
	if k.Dir == "" {
		k.Dir = mountDir(t, w.uid)
	}
	k.Role, k.UseHelper, k.mode = "serve", w.useHelper, w.mode
	c := startBy(t, w.uid, w.wrap, k)
	t.Cleanup(func() { c.stop(k.Dir) })
	c.expect("ready")
	return c, k.Dir
}

// stop ends a daemon, whatever state it is in, and its mount.
func (c *child) stop(dir string) {
	c.stdin.Close()
	timer := time.AfterFunc(20*time.Second, func() { _ = c.cmd.Process.Kill() })
	for range c.events {
	}
	c.wait()
	timer.Stop()
	if table, err := mountTable(); err == nil {
		if _, ok := mountedAt(table, dir); ok {
			_ = UnmountLazy(context.Background(), dir)
		}
	}
}

// wait waits for the end of the process, whoever else does so.
func (c *child) wait() { c.waited.Do(func() { _ = c.cmd.Wait() }) }
