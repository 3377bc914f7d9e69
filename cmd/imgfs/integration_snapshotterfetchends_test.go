//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// written returns about how many bytes of layers are in the content store, or on their way.
func (e *engine) written() (size int64) {
	e.t.Helper()
	top := filepath.Join(e.dir, "root", "io.containerd.content.v1.content")
	err := filepath.WalkDir(top, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it is gone by now
		}
		if st, err := d.Info(); err == nil && st.Size() > 64<<10 { // else it is no part of a layer
			size += st.Size()
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return size
}

// TestSnapshotterFetchEnds: an interrupted fetch leaves what it has, and no lease; the next
// one goes on from there. One whose registry sends wrong bytes leaves nothing of them.
func TestSnapshotterFetchEnds(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "debian")
		args := []string{"--namespace", e.space(), "--cache-dir", filepath.Join(e.dir, "another"), image}

		reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.HasSuffix(r.URL.Path, layers[0].String()) {
				registrytest.FlipBit()(w, r, serve)
			} else {
				serve(w, r)
			}
		}))
		said := e.fetch(1, args...)
		if !strings.Contains(said, "what came is not the blob") {
			t.Errorf("of wrong bytes it says %q", said)
		}
		if n, left := e.blobs(), e.does("content", "active"); n != 2 || strings.Count(left, "\n") > 1 {
			t.Errorf("wrong bytes have left %d blobs and\n%s", n, left)
		}

		// The first answers come, the others do not.
		reg.Inject(registrytest.Blob, func(n int) registrytest.Fault {
			if n > 3 { // config and two ranges
				return reg.Stall(-1)
			}
			return nil
		})
		reg.Forget()
		cmd := e.command(append([]string{"snapshotter", "fetch", "--containerd", e.address(), "--root", e.root()}, args...)...)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !eventually(20*time.Second, func() bool { return reg.Count(registrytest.Blob) > 3 && e.written() > 0 }) {
			t.Error("nothing is written")
		}
		begun, written := time.Now(), e.written()
		if err := cmd.Process.Signal(unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code says it
		if code := cmd.ProcessState.ExitCode(); code != 1 || time.Since(begun) > 10*time.Second {
			t.Errorf("interrupted, it ends with %d after %v:\n%s", code, time.Since(begun), out.String())
		}
		reg.Forget()
		reg.Inject(registrytest.Blob, nil)
		if leases := e.does("leases", "ls", "-q"); strings.TrimSpace(leases) != "" {
			t.Errorf("leases are left: %q", leases)
		}
		e.fetch(0, args...)
		e.hasLayers(layers)
		if n, size := reg.Bytes(registrytest.Blob), sizeBelow(t, runnables(t)["debian"]); n > size-written {
			t.Errorf("%d bytes came, though containerd had %d of %d", n, written, size)
		}
		if left := e.does("content", "active"); strings.Count(left, "\n") > 1 {
			t.Errorf("still being written:\n%s", left)
		}
	})
}

// TestSnapshotterFetchTogether: who fetches the same image at the same time waits for each
// other, and each layer comes once.
func TestSnapshotterFetchTogether(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, layers := e.lacks(reg, "debian")
		reg.Forget()
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				r := e.finish(e.command("snapshotter", "fetch", "--containerd", e.address(), "--namespace", e.space(), "--cache-dir", filepath.Join(e.dir, fmt.Sprint("another", i)), image))
				if r.code != 0 {
					t.Errorf("exit code %d: %s", r.code, r.stderr)
				}
			})
		}
		all.Wait()
		e.hasLayers(layers)
		if n, size := reg.Bytes(registrytest.Blob), sizeBelow(t, runnables(t)["debian"]); n > size*3/2 {
			t.Errorf("%d bytes came of %d", n, size)
		}
	})
}

// TestSnapshotterFetchRemoved: an image that is removed while it is fetched, with garbage
// collected, is kept by the lease until the fetch ends, which says so. The lease of one that
// was killed ends by itself.
func TestSnapshotterFetchRemoved(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, _ := e.lacks(reg, "debian")
		begin := func() (cmd *exec.Cmd, out *bytes.Buffer, release func()) {
			held := make(chan struct{})
			reg.Inject(registrytest.Blob, registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
				select {
				case <-held:
				case <-r.Context().Done():
				}
				serve(w, r)
			}))
			reg.Forget()
			cmd, out = e.command("snapshotter", "fetch", "--containerd", e.address(), "--namespace", e.space(), "--cache-dir", filepath.Join(e.dir, "another"), image), &bytes.Buffer{}
			cmd.Stderr = out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if !eventually(20*time.Second, func() bool { return reg.Count(registrytest.Blob) > 0 }) {
				t.Fatalf("nothing is asked: %s", out)
			}
			return cmd, out, sync.OnceFunc(func() { close(held) })
		}

		killed, _, release := begin()
		if err := killed.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = killed.Wait() // it was killed
		release()
		left := e.does("leases", "ls")
		if strings.Count(left, "containerd.io/gc.expire=") != 1 {
			t.Errorf("a killed fetch leaves the leases\n%s", left)
		}
		e.does("leases", "rm", strings.Fields(e.does("leases", "ls", "-q"))[0])

		cmd, out, release := begin()
		defer release()
		e.does("image", "rm", "--sync", image)
		release()
		if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "it was removed meanwhile") {
			t.Errorf("it ends with %v and says %q", err, out)
		}
		other := pushed(t, reg, "busybox")
		reg.Inject(registrytest.Blob, nil)
		e.pull(other)
		e.does("image", "rm", "--sync", other)
		if n := e.blobs(); n > 0 {
			t.Errorf("the content store has %d blobs of no image", n)
		}
		e.leavesNoTree()
	})
}

// TestSnapshotterFetchFull: a full disk is said to be one, and what was written is gone.
func TestSnapshotterFetchFull(t *testing.T) {
	testenv.Slow(t)
	eachEngine(t, func(t *testing.T, e *engine) {
		reg := registrytest.New(t, nil)
		image, _ := e.lacks(reg, "debian")
		// A file system for what is being written alone.
		dir := filepath.Join(e.dir, "root", "io.containerd.content.v1.content", "ingest")
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("no small disk: %v", err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		said := e.fetch(1, "--namespace", e.space(), image)
		if !strings.Contains(said, "the disk of containerd's content store is full") || !strings.Contains(said, "no space left on device") {
			t.Errorf("it says %q", said)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left: %v, error %v", entries, err)
		}
	})
}
