//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestSnapshotterGC: while a slow registry sends an image that nobody has indexed, and
// containerd collects garbage all the time, other containers start as they do otherwise, and
// the snapshotter prepares snapshots at once. The pull that waits is not disturbed.
func TestSnapshotterGC(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "busybox")
	layout := runnableWith(t, "busybox", noiseLayer("big", 9), func(a *labimage.Archive) error { return a.File("top", "top\n") })
	big := openLayout(t, layout)
	slow := pushedLayout(t, reg, layout, "big")
	e.pull(image)
	e.runs(image, "first", "true")

	stop := e.collecting(image)
	defer stop()
	idle := e.starts("idle", image)

	arrives := make(chan struct{})
	reg.Inject(registrytest.Blob, registrytest.Always(heldBack(big.Manifest.Layers[2].Digest, arrives)))
	pulled := make(chan result, 1)
	go func() { pulled <- e.finish(e.ctr(e.space(), pulling(slow)...)) }()
	if !eventually(20*time.Second, func() bool { return wasAsked(reg, big.Manifest.Layers[2].Digest) }) {
		t.Fatal("nobody asks for the big layer")
	}
	busy := e.starts("busy", image)
	e.preparesAtOnce(image, slow, big)
	select {
	case r := <-pulled:
		t.Errorf("the pull has not waited: exit code %d\n%s", r.code, r.stderr)
		pulled <- r
	default:
	}
	close(arrives)
	if r := <-pulled; r.code != 0 {
		t.Errorf("the pull that waited: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	t.Logf("containers start within %v, and %v during a pass", idle, busy)
	if busy > 2*idle {
		t.Errorf("during a pass a container starts within %v, and else within %v", busy, idle)
	}
	if n := stop(); n < 5 {
		t.Errorf("garbage was collected %d times only", n)
	}
	if got := e.runs(slow, "last", "cat", "/top"); got != "top\n" {
		t.Errorf("a container of the image prints %q", got)
	}
	e.does("image", "rm", image)
	e.does("image", "rm", "--sync", slow)
	e.leavesNoTree()
}

// noiseLayer is a layer of n MiB that do not compress.
func noiseLayer(name string, n int) labimage.Layer {
	return func(a *labimage.Archive) error {
		for i := range n {
			if err := a.File(fmt.Sprint(name, "/", i), noiseOf(uint64(i), 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}
}

// collecting has containerd collect garbage until stop is called, which returns how often it
// did. An image is removed each time.
func (e *engine) collecting(image string) (stop func() (times int)) {
	ending, ended, times := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-ending:
				return
			default:
			}
			other := fmt.Sprintf("other.invalid/image:%d", n)
			for _, args := range [][]string{{"image", "tag", image, other}, {"image", "rm", "--sync", other}} {
				if r := e.finish(e.ctr(e.space(), args...)); r.code != 0 {
					e.t.Errorf("ctr %q: %s", args, r.stderr)
					return
				}
			}
			times.Add(1)
		}
	}()
	stopped := false
	return func() int {
		if !stopped {
			stopped = true
			close(ending)
			<-ended
		}
		return int(times.Load())
	}
}

// starts returns how long a container takes from its start to its end, in the middle of
// some.
func (e *engine) starts(name, image string) time.Duration {
	e.t.Helper()
	var took []time.Duration
	for i := range 5 {
		begun := time.Now()
		e.runs(image, fmt.Sprint(name, i), "true")
		took = append(took, time.Since(begun))
	}
	middle, _ := median(took)
	return middle
}

// preparesAtOnce measures how long Prepare takes, as containerd calls it: for containers of an
// image, and for the layers of one that is being indexed.
func (e *engine) preparesAtOnce(image, slow string, big *labimage.Image) {
	e.t.Helper()
	const limit = 20 * time.Millisecond
	s, ctx := e.asContainerd(), e.t.Context()
	tops := chainsOf(big)
	var containers, layers []time.Duration
	for i := range 15 {
		// Garbage collection may remove what containerd does not know, before it is used.
		key := fmt.Sprintf("%s/x/%d", e.space(), i)
		begun := time.Now()
		_, err := s.Prepare(ctx, key, e.topOf(image))
		containers = append(containers, time.Since(begun))
		if err != nil && !errdefs.IsNotFound(err) {
			e.t.Errorf("Prepare for a container: %v", err)
		}
		if err := s.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			e.t.Errorf("Remove: %v", err)
		}
		for n, chain := range tops {
			parent := ""
			if n > 0 {
				parent = tops[n-1].String()
			}
			begun := time.Now()
			_, err := s.Prepare(ctx, fmt.Sprint(key, "-", n), parent, asking(slow, big.Top.Digest, chain))
			layers = append(layers, time.Since(begun))
			if !errdefs.IsAlreadyExists(err) && !errdefs.IsNotFound(err) {
				e.t.Errorf("Prepare for layer %d: %v", n+1, err)
			}
		}
	}
	for what, all := range map[string][]time.Duration{"container": containers, "layer": layers} {
		middle, longest := median(all)
		e.t.Logf("Prepare for a %s takes %v, at most %v", what, middle, longest)
		if middle > limit {
			e.t.Errorf("Prepare for a %s takes %v, want less than %v", what, middle, limit)
		}
	}
}

// topOf returns the name of the snapshot of all layers of an image.
func (e *engine) topOf(image string) string {
	e.t.Helper()
	name := image[strings.Index(image, "/")+1 : strings.LastIndex(image, ":")]
	chains := chainsOf(openLayout(e.t, runnables(e.t)[name]))
	return chains[len(chains)-1].String()
}

// TestSnapshotterGCKeeps: a snapshot is not removed by garbage collection between the moment
// it is made and the moment containerd knows it, and what a lease has outlives its image.
func TestSnapshotterGCKeeps(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	other := pushed(t, reg, "busybox")
	e.pull(image)
	e.pull(other)
	stop := e.collecting(other)
	defer stop()
	for i := range 8 {
		if got := e.runs(image, fmt.Sprint("one", i), "cat", "/etc/motd"); got != "third layer\n" {
			t.Errorf("a container prints %q", got)
		}
		e.does("image", "rm", "--sync", image)
		e.pull(image)
	}
	stop()
	e.does("image", "rm", "--sync", image, other)
	e.leavesNoTree()
	var left []string
	if err := e.asContainerd().Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		left = append(left, info.Name)
		return nil
	}); err != nil || len(left) > 0 {
		t.Errorf("snapshots left: %q, %v", left, err)
	}
}

// TestSnapshotterIndexGone: where the index of a chain has gone from the cache, as it may when
// that is full, and the registry is slow, the container that needs it is told to come later,
// and can be started then. Others wait for no longer, when garbage is collected, and start as
// they do otherwise while the layers are read.
func TestSnapshotterIndexGone(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "busybox")
	layout := runnableWith(t, "busybox", noiseLayer("big", 9), func(a *labimage.Archive) error { return a.File("top", "top\n") })
	layer := openLayout(t, layout).Manifest.Layers[2].Digest
	slow := pushedLayout(t, reg, layout, "big")
	e.pull(image)
	e.pull(slow)
	e.runs(image, "first", "true")
	stop := e.collecting(image)
	defer stop()
	idle := e.starts("idle", image)

	e.ok("cache", "prune", "--all")
	reg.Forget()
	arrives := make(chan struct{})
	reg.Inject(registrytest.Blob, registrytest.Always(heldBack(layer, arrives)))
	run := func(name string) result {
		return e.finish(e.ctr(e.space(), "run", "--rm", "--snapshotter", "imgfs", slow, name, "cat", "/top"))
	}
	started := make(chan result, 1)
	go func() { started <- run("early") }()
	longest := time.Duration(0)
	for n := 0; len(started) == 0; n++ {
		begun := time.Now()
		e.runs(image, fmt.Sprint("meanwhile", n), "true")
		longest = max(longest, time.Since(begun))
	}
	r := <-started
	if r.code == 0 || r.took > 20*time.Second || !strings.Contains(r.stderr, "try again later") {
		t.Errorf("the container that needs a pass: exit code %d, after %v\n%s", r.code, r.took, r.stderr)
	}
	if !wasAsked(reg, layer) {
		t.Error("nobody has asked for the big layer")
	}
	busy := e.starts("busy", image)
	t.Logf("containers start within %v, during a pass within %v, and while one waited for it within %v", idle, busy, longest)
	if busy > 2*idle || longest > 15*time.Second {
		t.Errorf("containers start within %v, during a pass within %v, and while one waited for it within %v", idle, busy, longest)
	}
	close(arrives)
	if !eventually(20*time.Second, func() bool { r = run("later"); return r.code == 0 }) || r.stdout != "top\n" {
		t.Errorf("after the pass a container prints %q\n%s", r.stdout, r.stderr)
	}
	stop()
	e.does("image", "rm", "--sync", image, slow)
	e.leavesNoTree()
}
