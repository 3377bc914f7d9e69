//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// crashLayer has files whose reading ends the process of the server: by a signal, and as Go
// ends it.
func crashLayer() fs.Layer {
	return layerOf(crashing{}, file("crash", 0o644, 0, 4096), file("panic", 0o644, panicOff, 4096))
}

const panicOff = 1 << 20

type crashing struct{}

func (crashing) ReadFileAt(_ context.Context, _ []byte, off, _ int64) (int, error) {
	if off >= panicOff {
		os.Stderr.Close() // what it says is of no use
		go panic("a reader's goroutine")
	} else {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	select {}
}

// A hammering is what a process tells that has read a mount while its servers were killed.
type hammering struct {
	Done   int64    // things that were looked at
	Errors []string // the first of them
	Pauses []int    // milliseconds, of those that are longer than 10
}

// hammerRole reads a mount in all ways until its standard input ends, and compares.
func hammerRole(k task) error {
	tree, err := k.tree(&faulty{})
	if err != nil {
		return err
	}
	h := &hammer{dir: k.Dir, tree: tree}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, look := range []func() error{h.buffered, h.buffered, h.direct, h.mapped, h.walk, h.names, h.run, h.held()} {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				h.result(look())
			}
		})
	}
	all.Go(func() { h.probe(stop) })
	say("reading")
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(stop)
	all.Wait()
	text, err := json.Marshal(h.all)
	say("%s", text)
	return err
}

type hammer struct {
	dir  string
	tree *fs.Tree
	n    atomic.Uint64

	mu  sync.Mutex
	all hammering
}

func (h *hammer) result(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all.Done++
	if err != nil && len(h.all.Errors) < 20 {
		h.all.Errors = append(h.all.Errors, err.Error())
	}
}

// hammered are the files that are read.
var hammered = []string{"mega", "setuid", "etc/passwd", "program"}

// pick returns one of them.
func (h *hammer) pick() (path string, n fs.Node) {
	name := hammered[rand.IntN(len(hammered))]
	n = h.tree.Root()
	for part := range strings.SplitSeq(name, "/") {
		n, _ = n.Child(part)
	}
	return filepath.Join(h.dir, name), n
}

// compare reads some of a file.
func (h *hammer) compare(f io.ReaderAt, n fs.Node) error {
	size := n.Attr().Size
	off := rand.Int64N(size)
	got := make([]byte, min(size-off, 1+rand.Int64N(200_000)))
	want := make([]byte, len(got))
	if _, err := f.ReadAt(got, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := n.ReadAt(context.Background(), want, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("wrong bytes of inode %d from %d on", n.Ino(), off)
	}
	return nil
}

func (h *hammer) open(flags int) error {
	path, n := h.pick()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = h.compare(f, n)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return err
}

func (h *hammer) buffered() error { return h.open(os.O_RDONLY) }
func (h *hammer) direct() error   { return h.open(os.O_RDONLY | unix.O_DIRECT) }

// held returns what reads a file that stays open.
func (h *hammer) held() func() error {
	n, _ := h.tree.Root().Child("mega")
	f, err := os.Open(filepath.Join(h.dir, "mega"))
	return func() error {
		if err != nil {
			return err
		}
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		return h.compare(f, n)
	}
}

func (h *hammer) mapped() error {
	path, n := h.pick()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int(n.Attr().Size)
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(data)
	// A page that cannot be read is a signal, which ends the process.
	err = h.compare(bytes.NewReader(data), n)
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return err
}

func (h *hammer) walk() error {
	seen := 0
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		seen++
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		return err
	})
	if err == nil && seen < 25 {
		err = fmt.Errorf("a walk found %d names", seen)
	}
	return err
}

func (h *hammer) names() error {
	// The kernel has not asked for this name.
	missing := filepath.Join(h.dir, "missing-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatUint(h.n.Add(1), 10))
	if _, err := os.Lstat(missing); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("a name that there is not: %w", err)
	}
	value := make([]byte, 10)
	n, err := unix.Lgetxattr(filepath.Join(h.dir, "etc"), "user.of-a-directory", value)
	if err != nil || string(value[:n]) != "d" {
		return fmt.Errorf("an attribute is %q, error %v", value[:max(n, 0)], err)
	}
	to, err := os.Readlink(filepath.Join(h.dir, "link"))
	if err != nil || to != "etc/passwd" {
		return fmt.Errorf("a link leads to %q, error %v", to, err)
	}
	return nil
}

func (h *hammer) run() error {
	err := exec.Command(filepath.Join(h.dir, "program"), "-c", "exit 7").Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		return fmt.Errorf("a program ends with %v", err)
	}
	if f, err := os.Open(filepath.Join(h.dir, "program")); err == nil {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
	}
	return nil
}

// probe measures how long there is no answer.
func (h *hammer) probe(stop <-chan struct{}) {
	for {
		begun := time.Now()
		if err := statfs(context.Background(), h.dir); err != nil && !errors.Is(err, ErrNoAnswer) {
			h.result(err)
		}
		if took := time.Since(begun); took > 10*time.Millisecond {
			h.mu.Lock()
			h.all.Pauses = append(h.all.Pauses, int(took.Milliseconds()))
			h.mu.Unlock()
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// kills is how often the server is killed in a test: IMGFS_KILLS, or 15 times.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("IMGFS_KILLS")
	if text == "" {
		return 15
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSucceedsKills kills the server of a mount again and again while it is read in all
// ways: nobody notices but for a pause.
func TestSucceedsKills(t *testing.T) {
	testenv.Slow(t)
	ways := mounters(t)
	cases := []struct {
		name string
		w    who
		k    task
	}{{"device", ways[0], task{}}}
	if isRoot() && !inNamespace() && isPrivileged() {
		cases = append(cases, struct {
			name string
			w    who
			k    task
		}{"passthrough", who{mode: mode{Passthrough: On, Disk: true}}, task{}})
	}
	for _, w := range ways {
		if w.useHelper && (w.uid != 0 || !isRoot()) {
			cases = append(cases, struct {
				name string
				w    who
				k    task
			}{"fusermount3", w, task{}})
		}
	}
	if isRoot() {
		cases = append(cases, struct {
			name string
			w    who
			k    task
		}{"allow_other", ways[0], task{AllowOther: true}})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.w.Passthrough == On {
				needPassthrough(t)
			}
			c.k.Tree, c.k.Identity = "survive", "survive"
			killUnderReaders(t, keep(t, c.w, c.k))
		})
	}
}

func killUnderReaders(t *testing.T, h *keeper) {
	reader := h.w.uid
	if h.k.AllowOther {
		reader = nobody
	}
	hammer := start(t, reader, task{Role: "hammer", Dir: h.dir, Tree: h.k.Tree})
	t.Cleanup(func() { _ = hammer.cmd.Process.Kill() })
	hammer.expect("reading")
	n := kills(t)
	for range n {
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		h.kill()
		h.mustNext(int(unix.SIGKILL))
	}
	hammer.stdin.Close()
	var got hammering
	if err := json.Unmarshal([]byte(hammer.next()), &got); err != nil {
		t.Fatal(err)
	}
	hammer.expect("")
	_ = hammer.cmd.Wait()
	for _, e := range got.Errors {
		t.Error(e)
	}
	if got.Done < int64(n) {
		t.Errorf("%d things were looked at, over %d kills", got.Done, n)
	}
	if h.w.Passthrough == On {
		// The kernel does not wait for the answers when files are closed.
		var state string
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			h.c.send("state")
			if state = h.c.next(); strings.HasPrefix(state, "0 open, 0 passed") || time.Now().After(end) {
				break
			}
		}
		if !strings.HasPrefix(state, "0 open, 0 passed") {
			t.Errorf("when all is closed the last server has %s", state)
		}
	}
	slices.Sort(got.Pauses)
	load, _ := os.ReadFile("/proc/loadavg")
	if len(got.Pauses) > 0 {
		t.Logf("%d kills, %d looks; %d pauses, median %d, p90 %d, max %d ms; load %s", n, got.Done, len(got.Pauses),
			got.Pauses[len(got.Pauses)/2], got.Pauses[len(got.Pauses)*9/10], got.Pauses[len(got.Pauses)-1], strings.TrimSpace(string(load)))
	}
}
