//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// prefetchOf returns how far the prefetching of a mount is.
func prefetchOf(t *testing.T, dir string) serve.PrefetchState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := serve.StatsOf(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s.Prefetch
}

// dropBlobs empties the cache of layers, and keeps the indexes.
func (s *sandbox) dropBlobs() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.cache, "blobs")); err != nil {
		s.t.Fatal(err)
	}
}

// TestPrefetchKilled kills a mount that brings its image, slowly. The next one
// goes on where it was, and then there is no need of a registry.
func TestPrefetchKilled(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	l := newLab(t)
	s := newSandbox(t)
	p := newProxy(t, l.host)
	image := p.host + "/" + goTree
	dir := s.mount(image)
	want := dumpOf(t, s.account, dir)
	s.umount(dir)
	s.dropBlobs()

	// It goes no further than this, however long it takes to look.
	p.rate.Store(4_000_000)
	p.limit.Store(p.sent.Load() + 4_000_000)
	dir = s.mount(image, "--prefetch", "--no-recover")
	var killed serve.PrefetchState
	if !eventually(30*time.Second, func() bool { killed = prefetchOf(t, dir); return killed.Have >= 3_000_000 }) {
		t.Fatalf("nothing is brought: %+v", killed)
	}
	if killed.State != "running" || killed.All < 2*killed.Have {
		t.Fatalf("got %+v, want less than half of all", killed)
	}
	if err := syscall.Kill(s.daemon(dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.waitGone(dir)
	s.umount(dir)

	p.rate.Store(0)
	p.limit.Store(0)
	before := p.sent.Load()
	dir = s.mount(image, "--prefetch")
	var done serve.PrefetchState
	if !eventually(30*time.Second, func() bool { done = prefetchOf(t, dir); return done.State != "running" }) || done.State != "done" || done.Have != done.All || done.All != killed.All {
		t.Fatalf("got %+v, want all of %d", done, killed.All)
	}
	if sent, rest := p.sent.Load()-before, killed.All-killed.Have; sent > rest+rest/20 {
		t.Errorf("the second mount fetched %d bytes; %d were missing", sent, rest)
	}
	if log := readFile(t, filepath.Join(s.cache, "imgfs.log")); !strings.Contains(log, dir+": prefetch: all "+show.Bytes(done.All)+" are in the cache\n") {
		t.Errorf("imgfs.log is %q", log)
	}
	s.umount(dir)

	p.stop()
	dir = s.mount(image, "--offline")
	compare(t, "offline", dumpOf(t, s.account, dir), "first", want)
	if got := s.stats(dir); !got.Offline || got.Total.Fetched+got.Total.Requests+got.Total.Errors > 0 || got.Total.Hits == 0 {
		t.Errorf("offline: got %+v", got.Total)
	}
	s.umount(dir)
}

// TestPrefetchLocal has an image of which all is on this machine.
func TestPrefetchLocal(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	_, layout := publish(t, reg, small)
	s := newSandbox(t)
	dir := s.mountpoint()
	r := s.ok("mount", "--prefetch", "oci:"+layout, dir)
	if strings.Count(r.stderr, "nothing to fetch") != 1 {
		t.Errorf("got %q, want a word that there is nothing to fetch", r.stderr)
	}
	if got := s.stats(dir).Prefetch; got.State != "off" {
		t.Errorf("got %+v", got)
	}
	s.umount(dir)
}

// TestOfflineWithoutBytes mounts an image offline of which there are only the
// indexes: what is read fails, and works again in a mount with a network.
func TestOfflineWithoutBytes(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	s.ok("index", image)
	s.dropBlobs()
	reg.Forget()
	dir := s.mount(image, "--offline")
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err == nil {
		t.Errorf("read %d bytes of what is not there", len(text))
	}
	if log := readFile(t, filepath.Join(s.cache, "imgfs.log")); !strings.Contains(log, "the network is not to be used") {
		t.Errorf("imgfs.log is %q", log)
	}
	if got := s.stats(dir).Total; got.Errors == 0 {
		t.Errorf("got %+v, want an error", got)
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	s.umount(dir)
	dir = s.mount(image)
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err != nil || string(text) != noiseText(3<<20) {
		t.Errorf("with a network: error %v, or other content", err)
	}
	s.umount(dir)
}

// TestDamagedChunk damages the cache under a mount: reads get the right bytes, and
// imgfs cache verify finds what nobody has read.
func TestDamagedChunk(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	var rows []indexRow
	if err := json.Unmarshal([]byte(s.ok("index", "--json", image).stdout), &rows); err != nil {
		t.Fatal(err)
	}
	blob := cacheFile(s.cache, "blobs", rows[1].Digest)
	reg.Forget()
	dir := s.mount(image)
	flipByte(t, blob, 600<<10)
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err != nil || string(text) != noiseText(3<<20) {
		t.Errorf("a damaged chunk: error %v, or other content", err)
	}
	total := s.stats(dir).Total
	if n := reg.Bytes(registrytest.Blob); n == 0 || n > 1<<20 || total.Fetched != n || total.Bad != 1 || total.Errors != 0 {
		t.Errorf("%d bytes were fetched again, and the stats are %+v; want the damaged chunk", n, total)
	}
	s.umount(dir)
	if r := s.ok("cache", "verify"); strings.Contains(r.stdout, "removed") {
		t.Errorf("the chunk that was fetched again is wrong:\n%s", r.stdout)
	}

	flipByte(t, blob, 600<<10)
	if r := s.run("cache", "verify"); r.code != cli.ExitFailure || !strings.Contains(r.stdout, "1 of 49 chunks are not what the index says") {
		t.Errorf("a damaged chunk: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	s.ok("cache", "verify")
	dir = s.mount(image)
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err != nil || string(text) != noiseText(3<<20) {
		t.Errorf("after cache verify: error %v, or other content", err)
	}
	s.umount(dir)
}

// TestStatsAreTrue compares what a mount says with what the registry knows and
// the reader did.
func TestStatsAreTrue(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	content := noiseText(5 << 20)
	image, _ := publish(t, reg, small, func(a *labimage.Archive) error { return a.File("noise", content) },
		func(a *labimage.Archive) error { return a.File("other", strings.Repeat("x", 100)) })
	s := newSandbox(t)

	// New layers are read once.
	dir := s.mount(image)
	total := s.stats(dir).Total
	if bytes := reg.Bytes(registrytest.Manifest, registrytest.Blob); total.Indexed+total.Meta != bytes || total.Fetched != 0 || total.Indexed < 5<<20 || total.Meta == 0 {
		t.Errorf("the registry gave %d bytes, the stats say %+v", bytes, total)
	}
	s.umount(dir)

	s.dropBlobs()
	reg.Forget()
	dir = s.mount(image)
	if total = s.stats(dir).Total; total != (serve.TotalStats{}) {
		t.Errorf("nothing was read: got %+v", total)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "other")); err != nil || len(text) != 100 {
		t.Fatalf("%d bytes, error %v", len(text), err)
	}
	if total = s.stats(dir).Total; total.Asked != 100 || total.Reads != 1 {
		t.Errorf("100 bytes were read: got %+v", total)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err != nil || !bytes.Equal(text, []byte(content)) {
		t.Fatalf("error %v, or other content", err)
	}
	var got serve.Stats
	agree := func() bool {
		got = s.stats(dir)
		return got.Total.Fetched == reg.Bytes(registrytest.Blob) && got.Total.Requests == int64(reg.Count(registrytest.Blob)) && got.Total.Wasted == 0
	}
	if !eventually(10*time.Second, agree) {
		t.Errorf("the registry gave %d bytes in %d requests, all of them read, the stats say %+v", reg.Bytes(registrytest.Blob), reg.Count(registrytest.Blob), got.Total)
	}
	if l := got.Line; l.Trip <= 0 || l.Trip > 60 || l.Rate < 1e3 {
		t.Errorf("5 MiB came over the line, and it is %+v", l)
	}
	if text := s.ok("stats", dir).stdout; !strings.Contains(text, "\nservers   1 server, none down; an answer after ") {
		t.Errorf("nothing is told of the line:\n%s", text)
	}
	if want := int64(100 + len(content)); got.Total.Asked != want || got.Total.Errors+got.Total.Bad+got.Total.Indexed != 0 {
		t.Errorf("%d bytes were read: got %+v", want, got.Total)
	}
	// What readahead brings is counted for no file.
	if f := got.Files; len(f) != 2 || f[0].Path != "/noise" || f[0].Asked != int64(len(content)) || f[0].Fetched < 1<<20 || f[1].Path != "/other" || f[1].Fetched == 0 {
		t.Errorf("the files that cost most are %+v, want /noise", got.Files)
	}
	if l := got.Layers; l[0].Fetched != 0 || l[1].Asked != int64(len(content)) || l[1].Fetched+l[2].Fetched != got.Total.Fetched || l[2].Asked != 100 || l[1].Cached != l[1].Size {
		t.Errorf("the layers are %+v", l)
	}
	s.umount(dir)

	// The next mount has all of it on disk.
	reg.Forget()
	dir = s.mount(image)
	if text, err := os.ReadFile(filepath.Join(dir, "noise")); err != nil || len(text) != len(content) {
		t.Fatalf("%d bytes, error %v", len(text), err)
	}
	if total = s.stats(dir).Total; total.Fetched+total.Requests+total.Meta != 0 || total.Hits < int64(len(content))*9/10 || reg.Count(registrytest.Blob) != 0 {
		t.Errorf("with all on disk: got %+v", total)
	}
	s.umount(dir)
}

// TestStatsOfErrors has a registry that gives other bytes.
func TestStatsOfErrors(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	s.ok("index", image)
	s.dropBlobs()
	reg.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
	dir := s.mount(image)
	if text, err := os.ReadFile(filepath.Join(dir, "last")); err == nil {
		t.Errorf("got %q of a registry that lies", text)
	}
	got := s.stats(dir)
	if got.Total.Errors == 0 || got.Total.Bad == 0 || got.Layers[2].Bad != got.Total.Bad || got.Layers[2].Errors == 0 || got.Layers[1].Errors != 0 {
		t.Errorf("got %+v and %+v", got.Total, got.Layers)
	}
	if text := s.ok("stats", dir).stdout; !strings.Contains(text, " wrong\n") {
		t.Errorf("got\n%s", text)
	}
	s.umount(dir)
}
