//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotsproxy "github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// must runs a command of containerd's client in a namespace, which must succeed, and returns
// what it prints.
func (e *engine) must(namespace string, args ...string) string {
	e.t.Helper()
	r := e.finish(e.ctr(namespace, args...))
	if r.code != 0 {
		e.t.Fatalf("%s: ctr %q: exit code %d\n%s%s", namespace, args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// refuses runs a command of containerd's client, which must fail, and returns what it says.
func (e *engine) refuses(args ...string) string {
	e.t.Helper()
	r := e.finish(e.ctr(e.space(), args...))
	if r.code == 0 {
		e.t.Errorf("ctr %q succeeds\n%s%s", args, r.stdout, r.stderr)
	}
	return r.stdout + r.stderr
}

// pulling is the command that pull runs.
func pulling(image string, flags ...string) []string {
	return append(append([]string{"image", "pull", "--plain-http", "--snapshotter", "imgfs"}, flags...), image)
}

// execs runs a command in a container that stays.
func (e *engine) execs(name string, words ...string) result {
	e.t.Helper()
	return e.finish(e.ctr(e.space(), append([]string{"task", "exec", "--exec-id", fmt.Sprint("exec-", rand.Uint64()), name}, words...)...))
}

// rootfs is where the files of a container are mounted for it, without what it mounts itself.
func (e *engine) rootfs(namespace, name string) string {
	return filepath.Join(e.dir, "state", "io.containerd.runtime.v2.task", namespace, name, "rootfs")
}

// asContainerd returns what containerd asks snapshots of, connected until the end of the
// test.
func (e *engine) asContainerd() snapshots.Snapshotter {
	e.t.Helper()
	conn, err := grpc.NewClient("unix:"+e.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	return snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "imgfs")
}

// asking are the labels by which a client of containerd asks for a chain.
func asking(image string, manifest, chain digest.Digest) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotRef:                   chain.String(),
		"containerd.io/snapshot/cri.image-ref":       image,
		"containerd.io/snapshot/cri.manifest-digest": manifest.String(),
	})
}

// openLayout reads a layout.
func openLayout(t testing.TB, layout string) *labimage.Image {
	t.Helper()
	img, err := labimage.Open(layout)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// chainsOf are the chain ids of a layout's image, the base first.
func chainsOf(img *labimage.Image) []digest.Digest {
	return identity.ChainIDs(slices.Clone(img.DiffIDs))
}

// pushedLayout lets a registry hold the image of a layout, and returns its name.
func pushedLayout(t testing.TB, reg *registrytest.Server, layout, name string) string {
	t.Helper()
	if err := reg.PushLayout(layout, name); err != nil {
		t.Fatal(err)
	}
	return reg.Host() + "/" + name + ":" + labimage.Tag
}

// wasAsked reports whether somebody has asked a registry for a blob.
func wasAsked(reg *registrytest.Server, d digest.Digest) bool {
	return slices.ContainsFunc(reg.Requests(registrytest.Blob, registrytest.CDN), func(r registrytest.Record) bool {
		return strings.HasSuffix(r.Path, d.String())
	})
}

// heldBack has a registry send a blob a few bytes at a time until a channel is closed, and then
// the rest. All others come as always.
func heldBack(of digest.Digest, until <-chan struct{}) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
		if strings.HasSuffix(r.URL.Path, of.String()) {
			w = &heldWriter{w, r, until}
		}
		serve(w, r)
	}
}

// A heldWriter is the answer of heldBack. It has no other methods, by which an answer could be
// sent at once.
type heldWriter struct {
	http.ResponseWriter
	r     *http.Request
	until <-chan struct{}
}

// Write implements io.Writer.
func (w *heldWriter) Write(p []byte) (written int, err error) {
	for written < len(p) {
		some := p[written:min(written+256, len(p))]
		select {
		case <-w.until:
			some = p[written:]
		case <-w.r.Context().Done():
			return written, w.r.Context().Err()
		case <-time.After(20 * time.Millisecond):
		}
		n, err := w.ResponseWriter.Write(some)
		written += n
		if err == nil {
			err = http.NewResponseController(w.ResponseWriter).Flush()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// noiseOf returns n bytes that do not compress, others for each seed.
func noiseOf(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// median returns the one in the middle, and the longest.
func median(all []time.Duration) (middle, longest time.Duration) {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2], sorted[len(sorted)-1]
}

// empties removes all that containerd has in some namespaces, and what it has lost itself:
// shims that were started when it was killed, and what these have mounted.
func (e *engine) empties(namespaces ...string) {
	e.t.Helper()
	for _, ns := range namespaces {
		left := ""
		if !eventually(60*time.Second, func() bool { left = e.emptied(ns); return left == "" }) {
			e.t.Errorf("%s: containerd keeps %s", ns, left)
		}
	}
	for _, pid := range e.shims() {
		e.endShim(pid)
	}
	for _, dir := range mountsBelow(filepath.Join(e.dir, "state")) {
		_ = unmountNow(dir) // it may be gone with its shim
	}
	for _, ns := range namespaces {
		e.collects(ns)
	}
}

// emptied removes what there is in a namespace, and returns what could not be.
func (e *engine) emptied(ns string) (left string) {
	list := func(args ...string) []string { return strings.Fields(e.finish(e.ctr(ns, args...)).stdout) }
	for _, name := range list("task", "ls", "-q") {
		e.finish(e.ctr(ns, "task", "rm", "--force", name))
	}
	for _, kind := range []string{"container", "image", "leases"} {
		for _, name := range list(kind, "ls", "-q") {
			if r := e.finish(e.ctr(ns, kind, "rm", name)); r.code != 0 {
				left += kind + " " + name + ": " + r.stderr
			}
		}
	}
	return left
}

// collects has containerd collect its garbage, and waits for that.
func (e *engine) collects(ns string) {
	e.t.Helper()
	e.must(ns, "leases", "create", "--id", "empty")
	e.must(ns, "leases", "rm", "--sync", "empty")
}

// terminates ends the snapshotter as a service manager does.
func (e *engine) terminates() {
	e.t.Helper()
	_ = e.snapshotter.Process.Signal(syscall.SIGTERM)
	if err := e.snapshotter.Wait(); err != nil {
		e.t.Errorf("the snapshotter ends with %v", err)
	}
	e.snapshotter = nil
}
