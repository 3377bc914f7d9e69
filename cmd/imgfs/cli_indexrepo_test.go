//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// textFiles is a layer of 2,500 files of text, which an index can lead into.
func textFiles(a *labimage.Archive) error {
	rng := rand.New(rand.NewPCG(7, 8))
	content := make([]byte, 4000)
	for i := range 2500 {
		for j := range content {
			content[j] = "etaoin shrdlu\n"[rng.IntN(14)]
		}
		if err := a.File(fmt.Sprintf("%x-%d", rng.Uint64(), i), string(content)); err != nil {
			return err
		}
	}
	return a.File("last", "the last one\n")
}

// TestSecondMachine: with an index repository a machine that has nothing lists an image
// without a byte of its layers, and reads a file with three requests.
func TestSecondMachine(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg, repo := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small, textFiles)
	name := repo.Host() + "/team/indexes"
	first := t.TempDir()
	want := succeed(t, "ls", "-lR", "--cache-dir", first, image)
	succeed(t, "index", "push", "--to", name, "--cache-dir", first, image)

	second := t.TempDir()
	repo.Forget()
	reg.Forget()
	if got := succeed(t, "ls", "-lR", "--cache-dir", second, "--index-repo", name, image); got != want {
		t.Error("the second machine lists something else")
	}
	for _, r := range reg.Requests(registrytest.Blob) {
		if r.Bytes > 4000 {
			t.Errorf("the image's registry was asked for %s %s: %d bytes", r.Path, r.Range, r.Bytes)
		}
	}
	if m, b := repo.Count(registrytest.Manifest), repo.Count(registrytest.Blob); m != 1 || b > 4 {
		t.Errorf("the index repository was asked for %d manifests and %d times for blobs: %+v", m, b, repo.Requests())
	}

	repo.Forget()
	reg.Forget()
	if got := succeed(t, "cat", "--cache-dir", second, "--index-repo", name, image, "last"); got != "the last one\n" {
		t.Errorf("got %q", got)
	}
	if n := repo.Count() + reg.Count(registrytest.Blob); n > 3 {
		t.Errorf("%d requests for a file: %+v %+v", n, repo.Requests(), reg.Requests(registrytest.Blob))
	}
	if n := repo.Bytes() + reg.Bytes(registrytest.Blob); n > 400_000 {
		t.Errorf("%d bytes for a file", n)
	}
	// The indexes are here now, and what is not read again needs nobody.
	repo.Close()
	if got := succeed(t, "ls", "-lR", "--cache-dir", second, "--index-repo", name, image); got != want {
		t.Error("without the index repository the listing is another one")
	}
	if got := succeed(t, "ls", "-lR", "--cache-dir", second, "--index-repo", name, "--offline", image); got != want {
		t.Error("offline the listing is another one")
	}
	// Without the repository the indexes that came from it are not believed.
	reg.Forget()
	if got := succeed(t, "ls", "-lR", "--cache-dir", second, "--index-trust", "local", "--index-repo", name, image); got != want || reg.Bytes(registrytest.Blob) < 1_000_000 {
		t.Errorf("trusting nobody: the same %t, %d bytes of layers were read", got == want, reg.Bytes(registrytest.Blob))
	}
	succeed(t, "cache", "verify", "--cache-dir", second)
}

// TestVerifyByPublishedIndex: what is cached of a layer is compared with the published index
// that it is read by, of which not all is here.
func TestVerifyByPublishedIndex(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg, repo := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, textFiles)
	name := repo.Host() + "/team/indexes"
	succeed(t, "index", "push", "--to", name, "--cache-dir", t.TempDir(), image)
	disk := t.TempDir()
	succeed(t, "cat", "--cache-dir", disk, "--index-repo", name, image, "last")
	var report verifyReport
	verify := func() result {
		t.Helper()
		r := invoke(t, "cache", "verify", "--json", "--cache-dir", disk)
		if report = (verifyReport{}); json.Unmarshal([]byte(r.stdout), &report) != nil {
			t.Fatalf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
		}
		return r
	}
	if r := verify(); r.code != 0 || report.Blobs != 1 || report.Bytes < 60_000 || len(report.Unknown)+len(report.Wrong) != 0 {
		t.Errorf("exit code %d, got %+v", r.code, report)
	}
	files, err := filepath.Glob(filepath.Join(disk, "blobs", "sha256", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got files %q and error %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndexFunc(content[:len(content)-8192], func(r rune) bool { return r != 0 })
	content[at] ^= 1
	if err := os.WriteFile(files[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := verify(); r.code != 1 || len(report.Wrong) != 1 || report.Wrong[0].Kind != "blob" || report.Wrong[0].Chunks != 1 {
		t.Errorf("a byte of a chunk is another: exit code %d, got %+v", r.code, report)
	}
	if got := succeed(t, "cat", "--cache-dir", disk, "--index-repo", name, image, "last"); got != "the last one\n" {
		t.Errorf("got %q", got)
	}
}

// TestBesideImage: an index beside the image is used if all that is published is trusted,
// and else not.
func TestBesideImage(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small, textFiles)
	first := t.TempDir()
	want := succeed(t, "ls", "-lR", "--cache-dir", first, image)
	succeed(t, "index", "push", "--cache-dir", first, image)
	for trust, passes := range map[string]bool{"": true, "bound": true, "local": true, "published": false} {
		args := []string{"ls", "-lR", "--cache-dir", t.TempDir(), image}
		if trust != "" {
			args = slices.Insert(args, 1, "--index-trust", trust)
		}
		reg.Forget()
		if got := succeed(t, args...); got != want {
			t.Errorf("%q: another listing", trust)
		}
		if n := reg.Bytes(registrytest.Blob); (n > 1_000_000) != passes {
			t.Errorf("%q: %d bytes of blobs came", trust, n)
		}
	}
}

// TestIndexRepositoryVariable: the variable names repositories, and a wrong one is a wrong
// command line, for commands with several images, too.
func TestIndexRepositoryVariable(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg, repo := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small, textFiles)
	succeed(t, "index", "push", "--to", repo.Host()+"/x", "--cache-dir", t.TempDir(), image)
	for _, text := range []string{repo.Host() + "/x", repo.Host() + "/none, " + repo.Host() + "/x"} {
		t.Setenv("IMGFS_INDEX_REPO", text)
		reg.Forget()
		if succeed(t, "ls", "--cache-dir", t.TempDir(), image); reg.Bytes(registrytest.Blob) > 100_000 {
			t.Errorf("%q: %d bytes of layers came", text, reg.Bytes(registrytest.Blob))
		}
	}
	for _, args := range [][]string{{"ls", image}, {"cat", image, "last"}, {"index", image}, {"inspect", image}} {
		for _, text := range []string{"a b", "https://" + repo.Host() + "/x", ","} {
			t.Setenv("IMGFS_INDEX_REPO", text)
			checkRefusal(t, invoke(t, append(args, "--cache-dir", t.TempDir())...), cli.ExitUsage, []string{"the variable IMGFS_INDEX_REPO: "}, "imgfs help "+args[0])
		}
	}
}

// TestBadIndexRepository: whatever an index repository does, the image is listed and read,
// and waits for it no longer than three seconds.
func TestBadIndexRepository(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	want := succeed(t, "ls", "-lR", "--cache-dir", t.TempDir(), image)
	for what, kinds := range map[string][]registrytest.Kind{"manifests": {registrytest.Manifest}, "blobs": {registrytest.Blob}} {
		for name, fault := range map[string]func(s *registrytest.Server) registrytest.Fault{
			"401": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusUnauthorized) },
			"404": func(*registrytest.Server) registrytest.Fault { return registrytest.Status(http.StatusNotFound) },
			"500": func(*registrytest.Server) registrytest.Fault {
				return registrytest.Status(http.StatusInternalServerError)
			},
			"page":    func(*registrytest.Server) registrytest.Fault { return registrytest.Page() },
			"flipped": func(*registrytest.Server) registrytest.Fault { return registrytest.FlipBit() },
			"hang":    func(s *registrytest.Server) registrytest.Fault { return s.Stall(-1) },
		} {
			repo := registrytest.New(t, &registrytest.Options{Writable: true})
			succeed(t, "index", "push", "--to", repo.Host()+"/x", "--cache-dir", t.TempDir(), image)
			for _, k := range kinds {
				repo.Inject(k, registrytest.Always(fault(repo)))
			}
			began := time.Now()
			r := invoke(t, "ls", "-lR", "--cache-dir", t.TempDir(), "--index-repo", repo.Host()+"/x", image)
			if r.code != 0 || r.stdout != want || strings.Contains(r.stderr, "hint") {
				t.Errorf("%s %s: exit code %d, the same %t, stderr %q", what, name, r.code, r.stdout == want, r.stderr)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s %s: it took %v", what, name, took)
			}
			if says := "no indexes come from " + repo.Host() + "/x"; strings.Contains(r.stderr, says) != (what == "manifests" && name != "404" && name != "flipped") {
				t.Errorf("%s %s: stderr %q, and %q", what, name, r.stderr, says)
			}
			repo.Close()
		}
	}
}

// TestIndexRepositoryGone: an index whose parts cannot be had any more when they are
// needed is made again from the layer.
func TestIndexRepositoryGone(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small, textFiles)
	for what, fault := range map[string]registrytest.Fault{
		"gone": registrytest.Status(http.StatusNotFound), "refused": registrytest.Status(http.StatusForbidden), "failing": registrytest.Status(http.StatusInternalServerError),
	} {
		repo := registrytest.New(t, &registrytest.Options{Writable: true})
		name := repo.Host() + "/team/indexes"
		succeed(t, "index", "push", "--to", name, "--cache-dir", t.TempDir(), image)
		second := t.TempDir()
		succeed(t, "ls", "-lR", "--cache-dir", second, "--index-repo", name, image)
		repo.Inject(registrytest.Blob, registrytest.Always(fault))
		r := invoke(t, "cat", "--cache-dir", second, "--index-repo", name, image, "last")
		if r.code != 0 || r.stdout != "the last one\n" || !strings.Contains(r.stderr, "made here") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", what, r.code, r.stdout, r.stderr)
		}
	}
}
