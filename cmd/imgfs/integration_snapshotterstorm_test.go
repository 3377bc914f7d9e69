//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const (
	// stormEnv says how many processes are killed.
	stormEnv     = "IMGFS_STORM"
	stormShort   = 8
	stormClients = 8
	stormSpaces  = 4
)

// A stormImage is an image whose containers tell the sums of its files.
type stormImage struct {
	name string
	want string // what they print
}

// A storm is what clients do to an engine while processes are killed.
type storm struct {
	*engine
	images []stormImage
	over   atomic.Bool

	mu      sync.Mutex
	reasons map[string]int

	pulls, runs, failures, removals, collections atomic.Int64
}

// TestSnapshotterStorm: while the snapshotter, containerd and the processes that index, mount
// and serve are killed at random, 8 clients in 4 namespaces pull, run and remove, and another
// one has garbage collected and the cache emptied. No container ever reads a wrong byte, and
// those that run all the time read all that they want. In the end everything can be removed,
// and nothing is left: no mount, no process, no file, no lock.
func TestSnapshotterStorm(t *testing.T) {
	testenv.Slow(t)
	kills := stormShort
	if text := os.Getenv(stormEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("the variable %s: %v", stormEnv, err)
		}
		kills = n
	}
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	st := &storm{engine: e, reasons: map[string]int{}, images: stormImages(t, reg)}
	reg.Inject(registrytest.Blob, registrytest.Always(afterSome)) // for kills to hit passes
	for i := range stormSpaces {
		st.stays(i)
	}
	var clients sync.WaitGroup
	for i := range stormClients {
		clients.Go(func() { st.client(i) })
	}
	clients.Go(st.collector)
	killed := map[string]int{}
	for range kills {
		time.Sleep(time.Duration(rand.Int64N(int64(time.Second))))
		killed[st.killsOne()]++
	}
	done := func() bool { return st.pulls.Load() > 0 && st.runs.Load() > 0 && st.collections.Load() > 0 }
	if !eventually(2*time.Minute, done) {
		t.Error("nothing is done any more")
	}
	st.over.Store(true)
	clients.Wait()
	t.Logf("killed %v; %d pulls, %d containers, %d failures of commands, %d images removed, %d collections",
		killed, st.pulls.Load(), st.runs.Load(), st.failures.Load(), st.removals.Load(), st.collections.Load())
	for reason, n := range st.reasons {
		t.Logf("%d × ctr %s", n, strings.TrimSpace(reason))
	}
	log := e.log("snapshotter.log")
	t.Logf("%d layers were unpacked, %d passes failed", strings.Count(log, " is unpacked: "), strings.Count(log, "the pass over the layers of "))
	for i := range stormSpaces {
		st.stayed(i)
	}
	var spaces []string
	for i := range stormSpaces {
		spaces = append(spaces, st.spaceOf(i))
	}
	e.empties(spaces...)
	e.leavesNoTree()
	e.terminates()
	if held := append(locksBelow(t, e.cache), locksBelow(t, e.root())...); len(held) > 0 {
		t.Errorf("locks are held of %q", held)
	}
}

// spaceOf returns one of the namespaces.
func (st *storm) spaceOf(i int) string { return fmt.Sprint(st.space(), "-", i%stormSpaces) }

// stormImages are images in a registry. Some have all layers of another one, and all a common
// base. Containers that stay are of the first one: others come and go, with their trees.
func stormImages(t *testing.T, reg *registrytest.Server) (images []stormImage) {
	t.Helper()
	for i, parts := range [][]uint64{{1}, {1, 2}, {3, 4, 5}, {6}, {6, 7}, {8}} {
		var layers []labimage.Layer
		files := map[string]string{}
		for _, part := range parts {
			for n := range 6 {
				files[fmt.Sprintf("data/%d/%d", part, n)] = noiseOf(part<<8+uint64(n), n*n*20_000+1)
			}
			layers = append(layers, func(a *labimage.Archive) error {
				for n := range 6 {
					if err := a.File(fmt.Sprintf("data/%d/%d", part, n), noiseOf(part<<8+uint64(n), n*n*20_000+1)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		img := stormImage{name: pushedLayout(t, reg, runnableWith(t, "busybox", layers...), fmt.Sprint("storm", i))}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			img.want += fmt.Sprintf("%x  /%s\n", sha256.Sum256([]byte(files[name])), name)
		}
		images = append(images, img)
	}
	return images
}

// What a command says at last of why it failed, and words that no other command says.
var (
	failureWords = regexp.MustCompile(`: [^:]*$`)
	ownWords     = regexp.MustCompile(`"[^"]*[0-9][^"]*"|[0-9a-f]{64}`)
)

// afterSome answers rightly, after some time.
func afterSome(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
	serve(w, r)
}

// tries runs a command of containerd's client in a namespace. Any may fail in a storm, but none
// may hang.
func (st *storm) tries(ns string, args ...string) (r result, ok bool) {
	const limit = 3 * time.Minute
	ctx, cancel := context.WithTimeout(st.t.Context(), limit)
	defer cancel()
	of := st.ctr(ns, args...)
	cmd := exec.CommandContext(ctx, of.Path, of.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = of.Env, of.Dir, of.WaitDelay
	r = st.finish(cmd)
	if ctx.Err() != nil && st.t.Context().Err() == nil {
		st.t.Errorf("ctr %q hangs for %v", args, limit)
	}
	if r.code != 0 {
		st.failures.Add(1)
		st.mu.Lock()
		defer st.mu.Unlock()
		st.reasons[args[0]+" "+args[1]+failureWords.FindString(ownWords.ReplaceAllString(r.stderr, "…"))]++
	}
	return r, r.code == 0
}

// client pulls, runs and removes until the storm is over.
func (st *storm) client(i int) {
	ns := st.spaceOf(i)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
	for n := 0; !st.over.Load(); n++ {
		img := st.images[random.IntN(len(st.images))]
		if _, ok := st.tries(ns, pulling(img.name)...); !ok {
			time.Sleep(100 * time.Millisecond) // containerd may be down
			continue
		}
		st.pulls.Add(1)
		name := fmt.Sprintf("client%d-%d", i, n)
		r, ok := st.tries(ns, "run", "--rm", "--snapshotter", "imgfs", img.name, name, "probe", "same", "/data", fmt.Sprintf("%x", sha256.Sum256([]byte(img.want))))
		st.isRight(img, name, r, ok)
		if !ok {
			st.tries(ns, "task", "rm", "--force", name)
			st.tries(ns, "container", "rm", name)
		}
		if random.IntN(8) > 0 {
			if _, ok := st.tries(ns, "image", "rm", "--sync", img.name); ok {
				st.removals.Add(1)
			}
		}
	}
}

// isRight checks what a container says. It compares all that it has read itself: containerd may
// lose what is printed last, and who was cut off has printed its first lines.
func (st *storm) isRight(img stormImage, name string, r result, ok bool) {
	const wrong = 98 // of probe
	whole := r.stdout[:strings.LastIndex(r.stdout, "\n")+1]
	if r.code == wrong || !strings.HasPrefix(img.want, whole) {
		st.t.Errorf("%s, of %s: exit code %d, has read\n%s, want\n%s", name, img.name, r.code, r.stdout, img.want)
	} else if ok {
		st.runs.Add(1)
	}
}

// collector has containerd collect its garbage, and imgfs forget what it has.
func (st *storm) collector() {
	for n := 0; !st.over.Load(); n++ {
		ns := st.spaceOf(n)
		lease := fmt.Sprint("lease", n)
		for _, args := range [][]string{
			{"content", "prune", "references"}, {"leases", "create", "--id", lease}, {"leases", "rm", "--sync", lease},
			{"image", "rm", "--sync", st.images[n%len(st.images)].name},
		} {
			if _, ok := st.tries(ns, args...); ok && args[0] == "leases" {
				st.collections.Add(1)
			}
		}
		if n%2 == 1 {
			if r := st.run("cache", "prune", "--all"); r.code > 0 { // not killed
				st.t.Errorf("imgfs cache prune: %s", r.stderr)
			}
		}
	}
}

// stays has a container of a namespace read its files again and again, past what the kernel
// keeps. It ends if one cannot be read, or is another one.
func (st *storm) stays(i int) {
	st.t.Helper()
	const script = "probe sums /data >/first || exit 1; while probe sums /data >/now; do cmp /first /now || exit 2; sleep 0.2; done; exit 3"
	img := st.images[0]
	st.must(st.spaceOf(i), pulling(img.name)...)
	st.must(st.spaceOf(i), "run", "--detach", "--snapshotter", "imgfs", img.name, "stays", "/usr/bin/busybox", "sh", "-c", strings.ReplaceAll(script, "cmp", "busybox cmp"))
	root := st.rootfs(st.spaceOf(i), "stays")
	if !eventually(30*time.Second, func() bool { text, _ := os.ReadFile(filepath.Join(root, "first")); return string(text) == img.want }) {
		text, _ := os.ReadFile(filepath.Join(root, "first"))
		st.t.Fatalf("%s reads\n%s, want\n%s", st.spaceOf(i), text, img.want)
	}
}

// stayed checks that the container of stays goes on.
func (st *storm) stayed(i int) {
	st.t.Helper()
	r, ok := st.tries(st.spaceOf(i), "task", "ls")
	if !ok || !slices.ContainsFunc(strings.Split(r.stdout, "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) == 3 && f[0] == "stays" && f[2] == "RUNNING"
	}) {
		st.t.Errorf("%s: the container that stays does not run any more:\n%s%s", st.spaceOf(i), r.stdout, r.stderr)
		return
	}
	now := filepath.Join(st.rootfs(st.spaceOf(i), "stays"), "now")
	before, err := os.Stat(now)
	if err != nil {
		st.t.Error(err)
		return
	}
	if !eventually(30*time.Second, func() bool { st, err := os.Stat(now); return err == nil && st.ModTime().After(before.ModTime()) }) {
		st.t.Errorf("%s: the container that stays reads nothing any more", st.spaceOf(i))
	}
}

// killsOne kills a process, and has what is to run again run again. It returns what the
// process was.
func (st *storm) killsOne() (what string) {
	st.t.Helper()
	switch rand.IntN(8) {
	case 0, 1:
		st.kill(&st.snapshotter)
		st.startSnapshotter()
		return "snapshotter"
	case 2:
		st.kill(&st.containerd)
		st.startContainerd()
		return "containerd"
	case 3:
		st.kill(&st.containerd)
		st.kill(&st.snapshotter)
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		st.startSnapshotter()
		st.startContainerd()
		return "both"
	}
	all := slices.DeleteFunc(processes(""), func(pid int) bool { return pid == st.snapshotter.Process.Pid })
	if len(all) == 0 {
		return "nothing"
	}
	pid := all[rand.IntN(len(all))]
	// Of those that index there are few, and not for long.
	if i := slices.IndexFunc(all, func(pid int) bool { words := cmdline(pid); return len(words) > 1 && words[1] == "index" }); i >= 0 && rand.IntN(2) == 0 {
		pid = all[i]
	}
	words, holder := cmdline(pid), isHolder(pid)
	if syscall.Kill(pid, syscall.SIGKILL) != nil || len(words) < 2 {
		return "nothing"
	}
	st.served(words)
	if holder {
		return "holder"
	}
	return words[1]
}

// served waits until a tree has a server and a holder again, or is not mounted any more: what
// loses both at the same time is dead. It is given the arguments of one that was killed.
func (st *storm) served(words []string) {
	st.t.Helper()
	for _, dir := range words {
		if !strings.HasPrefix(dir, filepath.Join(st.root(), "chains")+"/") {
			continue
		}
		if !eventually(30*time.Second, func() bool { return !mounted(dir) || len(serving(dir)) > 0 && len(holders(dir)) > 0 }) {
			st.t.Errorf("%s is mounted, with servers %v and holders %v", dir, serving(dir), holders(dir))
		}
	}
}
