//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// mount mounts a tree for a child, or goes on with a mount that another one has left.
func (k *task) mount(tree *fs.Tree, opts *Options) (s *Server, err error) {
	opts.Identity = k.Identity
	if k.Succeed {
		return k.succeed(tree, opts)
	}
	if k.Keep {
		if opts.Kept, err = NewKept(); err != nil {
			return nil, err
		}
	}
	if k.Early {
		at, err := Check(context.Background(), k.Dir, opts)
		if err != nil {
			return nil, err
		}
		defer at.Close()
		s, err = at.Attach(context.Background(), opts)
		if err != nil {
			return nil, err
		}
	} else if s, err = Mount(context.Background(), k.Dir, tree, opts); err != nil {
		return nil, err
	}
	if k.Keep {
		if err := opts.Kept.SetNote([]byte("since " + k.Dir)); err != nil {
			return nil, err
		}
		device, state := opts.Kept.Files()
		say("kept %d %d", device.Fd(), state.Fd())
	}
	return s, nil
}

func (k *task) succeed(tree *fs.Tree, opts *Options) (*Server, error) {
	if k.Drop {
		if err := (&Server{}).DropPrivileges(); err != nil && !errors.Is(err, errors.ErrUnsupported) { // -race takes cgo
			return nil, err
		}
	}
	kept, err := OpenKept(os.NewFile(3, "/dev/fuse"), os.NewFile(4, "state"))
	if err != nil {
		return nil, err
	}
	if kept.Gone() {
		return nil, errors.New("gone")
	}
	if note := string(kept.Note()); kept.Dir() != k.Dir || note != "since "+k.Dir {
		return nil, fmt.Errorf("the mount %q with the note %q", kept.Dir(), note)
	}
	if k.Early {
		tree = nil
	}
	p, err := Prepare(context.Background(), kept, tree, opts)
	if err != nil {
		return nil, err
	}
	opts.Kept = kept
	return p.Start(k.Died)
}

// A keeper keeps a mount while its servers come and go, as a holder does.
type keeper struct {
	t     testing.TB
	w     who
	k     task
	c     *child // the server
	dir   string
	files []*os.File // the device and the state
}

// keep mounts a tree in a child process that others can follow.
func keep(t testing.TB, w who, k task) *keeper {
	t.Helper()
	k.Dir, k.Role, k.Keep, k.UseHelper, k.mode = mountDir(t, w.uid), "serve", true, w.useHelper, w.mode
	h := &keeper{t: t, w: w, k: k, dir: k.Dir, c: start(t, w.uid, k)}
	t.Cleanup(func() {
		for _, f := range h.files {
			f.Close()
		}
		h.c.stop(h.dir)
	})
	var device, state int
	if line := h.c.next(); !strings.HasPrefix(line, "kept ") {
		t.Fatal(line)
	} else if _, err := fmt.Sscanf(line, "kept %d %d", &device, &state); err != nil {
		t.Fatal(err)
	}
	h.c.expect("ready")
	pid, err := unix.PidfdOpen(h.c.cmd.Process.Pid, 0)
	if err != nil {
		t.Skipf("no descriptors of processes: %v", err)
	}
	defer unix.Close(pid)
	for _, n := range []int{device, state} {
		fd, err := unix.PidfdGetfd(pid, n, 0)
		if err != nil {
			t.Skipf("descriptors of another process cannot be had: %v", err)
		}
		unix.CloseOnExec(fd)
		h.files = append(h.files, os.NewFile(uintptr(fd), "kept"))
	}
	return h
}

// kill kills the server, and waits for its end.
func (h *keeper) kill() {
	h.t.Helper()
	if err := h.c.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	h.died()
}

// died waits for the end of the server, which comes by itself.
func (h *keeper) died() {
	h.t.Helper()
	for line := range h.c.events {
		if strings.HasPrefix(line, "error: ") {
			h.t.Errorf("the server says %s", line)
		}
	}
	h.c.wait()
}

// dies returns what is closed when the server has ended by itself.
func (h *keeper) dies() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		h.died()
		close(ended)
	}()
	return ended
}

// next starts the next server, which ends with what it has to say if that is not "ready".
func (h *keeper) next(died int) (said string) {
	h.t.Helper()
	k := h.k
	k.Keep, k.Succeed, k.Died, k.files = false, true, died, h.files
	c := start(h.t, h.w.uid, k)
	said = c.next()
	blocked := 0
	for ; said == "blocked"; said = c.next() { // what was under way may be quicker
		blocked++
	}
	if said != "ready" {
		c.stop("")
		return said
	}
	for range blocked {
		c.events <- "blocked"
	}
	h.c = c
	return said
}

func (h *keeper) mustNext(died int) {
	h.t.Helper()
	if said := h.next(died); said != "ready" {
		h.t.Fatalf("the next server says %q", said)
	}
}

// TestSucceedsAnother: a server that would show or negotiate something else does not go on,
// and changes nothing.
func TestSucceedsAnother(t *testing.T) {
	h := keep(t, mounters(t)[0], task{Tree: "sample", Identity: "one"})
	was := h.k
	for _, c := range []struct {
		name   string
		change func(*task)
		want   string
	}{
		{"another tree", func(k *task) { k.Identity = "two" }, `the tree is "two", and was "one"`},
		{"no ACLs", func(k *task) { k.Tree = "acl" }, "the capabilities are"},
		{"another kernel", func(k *task) { k.Disabled = since418 }, "the capabilities are"},
		{"no tree", func(k *task) { k.Early = true }, "it has a tree already"},
		{"io_uring", func(k *task) { k.IOUring = On }, "io_uring"},
	} {
		c.change(&h.k)
		if said := h.next(9); !strings.HasPrefix(said, "error: "+ErrChanged.Error()) || !strings.Contains(said, c.want) {
			t.Errorf("%s: the next server says %q, want %q", c.name, said, c.want)
		}
		h.k = was
	}
	if err := statfs(t.Context(), h.dir); err != nil {
		t.Error(err)
	}
	h.kill()
	h.mustNext(9)
	h.c.send("recovery")
	h.c.expect(`on, refused []`)
	compareAll(t, mustOpen(t, filepath.Join(h.dir, "mega"), os.O_RDONLY), mustLookup(t, treeNamed(t, "sample"), "mega"))
}

// TestSucceedsGone: after an unmount there is nothing to go on with.
func TestSucceedsGone(t *testing.T) {
	h := keep(t, mounters(t)[0], task{Tree: "sample"})
	h.kill()
	if err := UnmountLazy(t.Context(), h.dir); err != nil {
		t.Fatal(err)
	}
	if said := h.next(9); said != "error: gone" {
		t.Errorf("the next server says %q", said)
	}
}

// TestSucceedsUnmount: a successor unmounts what another has mounted, and ends.
func TestSucceedsUnmount(t *testing.T) {
	forEachMounter(t, func(t *testing.T, w who) {
		h := keep(t, w, task{Tree: "sample"})
		h.kill()
		h.mustNext(9)
		h.c.send("unmount")
		h.c.ended()
		if table, err := mountTable(); err != nil {
			t.Error(err)
		} else if _, ok := mountedAt(table, h.dir); ok {
			t.Error("it is still mounted")
		}
	})
}

// TestSucceedsReader: who waits for data has it from the next server; signals that end a
// read do so there, too, and others do not.
func TestSucceedsReader(t *testing.T) {
	w := mounters(t)[0]
	h := keep(t, w, task{Tree: "faulty"})
	reader, thread := startReader(t, h.c, w, "map", h.dir)
	killed, _ := startReader(t, h.c, w, "read", h.dir)
	h.kill()
	if err := unix.Tgkill(reader.cmd.Process.Pid, thread, unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	h.mustNext(9)
	h.c.expect("blocked")
	begun := time.Now()
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = killed.cmd.Process.Wait()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("a reader that was killed ended after %v", took)
	}
	sendSignals(t, reader, thread)
	h.kill()
	h.mustNext(9)
	h.c.send("release")
	if got := reader.next(); got != "4096 bytes" {
		t.Errorf("the reader says %q", got)
	}
}

// TestSucceedsEarly: the successor of a server without a tree gets one.
func TestSucceedsEarly(t *testing.T) {
	h := keep(t, mounters(t)[0], task{Tree: "sample", Early: true, Identity: "late"})
	waiting := start(t, h.w.uid, task{Role: "read", Dir: filepath.Join(h.dir, "etc/passwd")})
	time.Sleep(50 * time.Millisecond) // it may have got as far
	for range 2 {
		h.kill()
		h.mustNext(9)
	}
	h.c.send("show")
	h.c.expect("shown <nil>")
	waiting.next() // its thread
	if got := waiting.next(); !strings.Contains(got, "1234") {
		t.Errorf("the reader says %q", got)
	}
	h.kill()
	h.k.Early = false
	h.mustNext(9)
	compareAll(t, mustOpen(t, filepath.Join(h.dir, "mega"), os.O_RDONLY), mustLookup(t, treeNamed(t, "sample"), "mega"))
}

// TestSucceedsCrash: a file whose reading kills servers cannot be read, and all others can.
func TestSucceedsCrash(t *testing.T) {
	for name, died := range map[string]int{"crash": int(unix.SIGSEGV), "panic": 0} {
		t.Run(name, func(t *testing.T) { testSucceedsCrash(t, name, died) })
	}
}

func testSucceedsCrash(t *testing.T, name string, died int) {
	w := mounters(t)[0]
	h := keep(t, w, task{Tree: "survive"})
	reader := start(t, w.uid, task{Role: "read", Dir: filepath.Join(h.dir, name)})
	reader.next() // its thread
	servers := 0
	for ; servers < 10; servers++ {
		if servers > 0 {
			h.mustNext(died)
		}
		select {
		case <-h.dies():
			continue
		case line := <-reader.events:
			if !strings.Contains(line, unix.EIO.Error()) {
				t.Errorf("the reader says %q, want EIO", line)
			}
		case <-time.After(time.Minute):
			t.Fatal("the server neither dies nor answers")
		}
		break
	}
	if servers != 2 {
		t.Errorf("%d servers have died, want 2", servers)
	}
	again := start(t, w.uid, task{Role: "read", Dir: filepath.Join(h.dir, name)})
	again.next()
	if line := again.next(); !strings.Contains(line, unix.EIO.Error()) {
		t.Errorf("another reader says %q, want EIO", line)
	}
	compareAll(t, mustOpen(t, filepath.Join(h.dir, "mega"), os.O_RDONLY), mustLookup(t, treeNamed(t, "survive"), "mega"))
}

// pending returns how many requests a server has read and not answered.
func (h *keeper) pending() int {
	h.t.Helper()
	m, err := journal.Open(h.reopenState())
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.Close()
	return len(journal.NewJournal(m).Pending())
}

// reopenState returns the state with an offset of its own.
func (h *keeper) reopenState() *os.File {
	h.t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", h.files[1].Fd()), os.O_RDWR, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

// rushing is how many requests wait at a time in TestSucceedsRush: each has a thread.
func rushing() int {
	if os.Getenv("IMGFS_KILLS") != "" {
		return 5000
	}
	return 1000
}

// rushRole has many threads wait for a mount.
func rushRole(k task) error {
	var all sync.WaitGroup
	for range rushing() {
		all.Go(func() {
			_, _ = unix.Getxattr(k.Dir, "user.imgfs", nil)
		})
	}
	all.Wait()
	return nil
}

// TestSucceedsRush: thousands of requests that wait at a time are taken over, too. They end
// with their process, and leave no memory behind.
func TestSucceedsRush(t *testing.T) {
	testenv.Slow(t)
	h := keep(t, mounters(t)[0], task{Tree: "sample", Early: true})
	rush := start(t, h.w.uid, task{Role: "rush", Dir: h.dir})
	t.Cleanup(func() { _ = rush.cmd.Process.Kill() })
	await := func(want int) {
		t.Helper()
		end := time.Now().Add(time.Minute)
		for got := h.pending(); got != want; got = h.pending() {
			if time.Now().After(end) {
				t.Fatalf("%d requests are under way, want %d", got, want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	n := rushing()
	await(n)
	h.kill()
	h.mustNext(int(unix.SIGKILL))
	if got := h.pending(); got != n {
		t.Errorf("%d requests are under way after the server's death, want %d", got, n)
	}
	if err := rush.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = rush.cmd.Wait()
	await(0)
	var st unix.Stat_t
	if err := unix.Fstat(int(h.files[1].Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if kept := st.Blocks * 512; kept > 1<<20 {
		t.Errorf("%d bytes of the state stay in memory", kept)
	}
	h.c.send("unmount")
	h.c.ended()
}

// TestSucceedsDropped: a server without the rights that serving does not need goes on in all
// that the first one did.
func TestSucceedsDropped(t *testing.T) {
	needPassthrough(t)
	h := keep(t, who{mode: mode{Passthrough: On, Disk: true}}, task{Tree: "sample", Drop: true})
	h.kill()
	h.mustNext(int(unix.SIGKILL))
	mega := mustLookup(t, treeNamed(t, "sample"), "mega")
	f := mustOpen(t, filepath.Join(h.dir, "mega"), os.O_RDONLY)
	compareAll(t, f, mega)
	h.c.send("state")
	if state := h.c.next(); !strings.HasPrefix(state, "1 open, 1 passed") {
		t.Errorf("the server has %s", state)
	}
	f.Close()
	h.c.send("unmount")
	h.c.ended()
}

// registered takes back all backing files that may be registered, and returns which were:
// the kernel gives out identifiers in rising order.
func registered(s *Server) (ids []int32) {
	t, _ := journal.NewTable(s.kept.memory)
	for id := range t.Highest() + blindSweep {
		if s.conn.unregister(id+1) == nil {
			ids = append(ids, id+1)
		}
	}
	return ids
}

// TestSucceedsLeak: a successor gives back the backing files that a server has registered
// and said nothing of.
func TestSucceedsLeak(t *testing.T) {
	needPassthrough(t)
	h := keep(t, who{mode: mode{Passthrough: On, Disk: true}}, task{Tree: "sample"})
	h.c.send("leak")
	leaked := h.c.next()
	h.kill()
	h.mustNext(int(unix.SIGKILL))
	h.c.send("registered")
	if got := h.c.next(); got != "registered []" {
		t.Errorf("%s; leaked was %s", got, leaked)
	}
	h.c.send("leak") // which "registered" would have seen
	h.c.next()
	h.c.send("registered")
	if got := h.c.next(); got == "registered []" {
		t.Error("what is registered is not seen")
	}
}

// TestServersAndHolder: who only keeps the descriptors of a mount does not serve it.
func TestServersAndHolder(t *testing.T) {
	h := keep(t, mounters(t)[0], task{Tree: "sample"})
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	mounted, _ := mountedAt(table, h.dir)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, HolderCommand), []byte("read _\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("sh", HolderCommand)
	holder.Dir, holder.ExtraFiles = dir, h.files
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = holder.Wait()
	}()
	if len(connectionsOf(fmt.Sprintf("/proc/%d", os.Getpid()))) == 0 {
		t.Skip("this kernel does not tell whose mount a descriptor is of")
	}
	// This process has the descriptors, too, and may be found in the server's place.
	for _, f := range h.files {
		f.Close()
	}
	if got := Servers(t.Context())[mounted.device]; got != h.c.cmd.Process.Pid {
		t.Errorf("process %d serves it, want %d; %d keeps it", got, h.c.cmd.Process.Pid, holder.Process.Pid)
	}
}
