//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hugeSizes are numbers with which nothing may be done without a look.
var hugeSizes = []string{"9223372036854775807", "9223372036854775806", "9223372036854775296", "4611686018427387904", "1152921504606846976",
	"1152921504606846975", "1125899906842624", "9223372036854775808", "18446744073709551615", "-1", "-9223372036854775808", "1e300"}

// hugeImages are images of which one number is a size, by what it is the size of.
func hugeImages(t *testing.T, size string) map[string]string {
	t.Helper()
	good := tarOf(t, tar.Header{Name: "a"})
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: good}}})
	manifest, _ := store.Get(top.Digest)
	images := map[string]string{}
	layout := func(name string, top ocispec.Descriptor, change func(index []byte) []byte) {
		dir := filepath.Join(publicDir(t), "image")
		if err := store.WriteLayout(dir, top); err != nil {
			t.Fatal(err)
		}
		index, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "index.json"), string(change(index)))
		images[name] = "oci:" + dir
	}
	same := func(index []byte) []byte { return index }
	for _, part := range []string{"layers", "config"} {
		re := regexp.MustCompile(`("` + part + `":[^]}]*"size":)\d+`)
		changed := re.ReplaceAll(manifest, []byte("${1}"+size))
		if bytes.Equal(changed, manifest) {
			t.Fatalf("%s has no size in %s", part, manifest)
		}
		layout(part, store.Put(top.MediaType, changed), same)
	}
	layout("index.json", top, func(index []byte) []byte {
		return regexp.MustCompile(`("size":)\s*\d+`).ReplaceAll(index, []byte("${1}"+size))
	})
	return images
}

// TestHugeSizes has images that claim sizes at the end of what numbers can say:
// each command says what is wrong, or does not care, and never more.
func TestHugeSizes(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	for _, size := range hugeSizes {
		for name, image := range hugeImages(t, size) {
			for _, args := range [][]string{{"ls", image}, {"cat", image, "/a"}, {"index", image}, {"inspect", image}, {"mount", "-f", image, s.mountpoint()}} {
				if args[0] == "mount" && (name != "layers" || os.Getenv("IMGFS_HOSTILE") == "") {
					continue // it might work
				}
				for _, limit := range []string{"", "0"} {
					if limit != "" {
						args = append([]string{"--max-layer-size=" + limit}, args...)
					}
					r := s.run(args...)
					fine := r.code == 0 // digests decide
					if !fine && (r.code != cli.ExitFailure || !strings.HasPrefix(r.stderr, "imgfs: ")) || strings.Contains(r.stderr+r.stdout, "goroutine ") {
						t.Errorf("%s of %s: imgfs %q: exit code %d\n%.400s", size, name, args, r.code, r.stderr)
					}
				}
			}
		}
	}
}

// sparseOf is a layer of a sparse file of a size, with a byte of data.
func sparseOf(t testing.TB, size string) sourcetest.Layer {
	return hugeLayer(t, func(w layerWriter) {
		body := append([]byte("1\n0\n1\n"), make([]byte, 506)...)
		h := tar.Header{Name: "GNUSparseFile.0/f", Size: 513, PAXRecords: map[string]string{
			"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f", "GNU.sparse.realsize": size}}
		rawSparse(w, h, append(body, 'D'))
	})
}

// endsSoon ends a command by a signal, and says how long that took.
func endsSoon(t *testing.T, s *sandbox, sig syscall.Signal, args ...string) {
	t.Helper()
	cmd := s.command(args...)
	var stderr bytes.Buffer
	var out countingWriter
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if args[0] == "cat" && !eventually(20*time.Second, func() bool { return out.n.Load() > 0 }) {
		t.Errorf("imgfs %q prints nothing", args)
	}
	begun := time.Now()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the exit code tells
	took := time.Since(begun)
	t.Logf("imgfs %q: %v after %v", args[0], took, sig)
	want := cli.ExitFailure
	if args[0] == "diff" || args[0] == "grep" {
		want = exitTrouble
	}
	if code := cmd.ProcessState.ExitCode(); code != want || strings.Count(stderr.String(), "interrupted") != 1 {
		t.Errorf("imgfs %q after %v: exit code %d, want %d, %q", args, sig, code, want, &stderr)
	}
	// One second where nobody else is busy.
	if took > 5*time.Second {
		t.Errorf("imgfs %q took %v to end", args, took)
	}
	if args[0] == "cat" && out.other {
		t.Error("cat wrote others than zeros and D")
	}
}

// A countingWriter counts what it gets and looks at it.
type countingWriter struct {
	n     atomic.Int64
	other bool // something that is neither 0 nor D
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.other = w.other || len(bytes.Trim(p, "\x00D")) > 0
	w.n.Add(int64(len(p)))
	return len(p), nil
}

// TestHugeSparseFile prints a file of 8 EiB until it is interrupted, and lists it.
func TestHugeSparseFile(t *testing.T) {
	testenv.Slow(t)
	for _, size := range []string{"9223372036854775807", "9223372036854775806", "4611686018427387904"} {
		image := layoutOf(t, sparseOf(t, size))
		s := newSandbox(t)
		if r := s.ok("ls", "-l", image); !strings.Contains(r.stdout, size) {
			t.Errorf("ls -l: %q", r.stdout)
		}
		endsSoon(t, s, syscall.SIGINT, "cat", image, "/f")
		for _, args := range [][]string{{"sum", "--read", image, "/f"}, {"grep", "-ac", "no line", image, "/f"}} {
			endsSoon(t, s, syscall.SIGINT, args...)
		}
	}
	r := newSandbox(t).run("ls", layoutOf(t, sparseOf(t, "9223372036854775808")))
	if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "sparse") {
		t.Errorf("a file of 2^63 bytes: exit code %d, %q", r.code, r.stderr)
	}
}

// TestInterruptedMerge ends commands while they merge layers, which would take
// them minutes.
func TestInterruptedMerge(t *testing.T) {
	testenv.Slow(t)
	deep := strings.Repeat("d/../", 800) + "d"
	image := layoutOf(t, hugeLayer(t, func(w layerWriter) {
		w.add(tar.Header{Name: "d/f"}, 0)
		for i := range 4 {
			w.add(tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint("s", i), Linkname: deep[:len(deep)-1] + map[bool]string{true: "d", false: fmt.Sprint("s", i+1)}[i == 1]}, 0)
		}
		for i := range 400_000 {
			w.add(tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: "s0/f"}, 0)
		}
	}))
	s := newSandbox(t)
	s.ok("index", image)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		endsSoon(t, s, sig, "ls", image)
	}
}

// TestInterruptedOutput ends a command whose output nobody takes.
func TestInterruptedOutput(t *testing.T) {
	image := layoutOf(t, sparseOf(t, "9223372036854775807"))
	s := newSandbox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := s.command("cat", image, "/f")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// It is under way as soon as something is in the pipe.
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code tells
	if took := time.Since(begun); took > 5*time.Second || cmd.ProcessState.ExitCode() != cli.ExitFailure || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d after %v, %q", cmd.ProcessState.ExitCode(), took, &stderr)
	}
}
