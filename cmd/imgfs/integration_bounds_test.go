//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// zeroTar is a tar with a file of n zeros, and a small one behind it.
func zeroTar(t *testing.T, n int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"zeros", make([]byte, n)}, {"small", []byte("hello")}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// frameImage puts an image into a store whose layer is a small zstd frame that
// decodes to more than n bytes.
func frameImage(t *testing.T, store *sourcetest.Store, n int) (top ocispec.Descriptor, layer digest.Digest) {
	t.Helper()
	content := zeroTar(t, n)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	blob := w.EncodeAll(content, nil)
	l := sourcetest.Layer{Content: blob, MediaType: ocispec.MediaTypeImageLayerZstd, DiffID: digest.FromBytes(content)}
	return sourcetest.Tagged(store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{l}}), "latest"), digest.FromBytes(blob)
}

// frameLayout writes such an image as an OCI layout and returns its name.
func frameLayout(t *testing.T, n int) (image string, layer digest.Digest) {
	t.Helper()
	store := sourcetest.NewStore()
	top, layer := frameImage(t, store, n)
	dir := publicDir(t)
	if err := store.WriteLayout(dir, top); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir, layer
}

// nameless returns how many files without a name a mount has in its cache, and
// how many bytes these take.
func (s *sandbox) nameless(dir string) (n int, size int64) {
	s.t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon(dir)))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, fd := range fds {
		var st syscall.Stat_t
		at, _ := os.Readlink(fd) // some are closed by now
		if strings.HasPrefix(at, s.cache+"/") && strings.HasSuffix(at, " (deleted)") && syscall.Stat(fd, &st) == nil {
			n, size = n+1, size+st.Blocks*512
		}
	}
	return n, size
}

// cacheList is what imgfs cache ls --json prints.
func (s *sandbox) cacheList() (list cacheList) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.ok("cache", "ls", "--json").stdout), &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// TestBoundsLongSpan: the file that a long span is decoded into counts in the
// size of the cache, and shows; where it does not fit the span is decoded again.
func TestBoundsLongSpan(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "cat", "tail")
	const long = 48 << 20
	image, _ := frameLayout(t, long)
	for _, tt := range []struct {
		size string
		most int64
		fits bool
	}{{"32M", 32 << 20, false}, {"128M", 128 << 20, true}} {
		t.Run(tt.size, func(t *testing.T) {
			s := newSandbox(t)
			dir := s.mount(image, "--cache-size", tt.size)
			for file, want := range map[string]string{"small": "hello", "zeros": strings.Repeat("\x00", 10)} {
				if r := s.finish(s.program("tail", "-c", "10", filepath.Join(dir, file))); r.code != 0 || r.stdout != want {
					t.Errorf("%s: exit code %d, %q%s", file, r.code, r.stdout, r.stderr)
				}
			}
			n, size := s.nameless(dir)
			st, list := s.stats(dir), s.cacheList()
			if (n == 1) != tt.fits || tt.fits && (size < long || st.Temporary < long) || !tt.fits && st.Temporary+list.Temporary != 0 {
				t.Errorf("%d files without a name take %d bytes; stats says %d, cache ls %d", n, size, st.Temporary, list.Temporary)
			}
			if list.Temporary < st.Temporary-4<<20 || list.Usage+size > tt.most {
				t.Errorf("%d bytes on disk and %d in temporary files (cache ls says %d), the size is %d", list.Usage, size, list.Temporary, tt.most)
			}
			if text := s.ok("stats", dir).stdout; strings.Contains(text, " in temporary files") != tt.fits {
				t.Errorf("stats prints:\n%s", text)
			}
			if text := s.ok("cache", "ls").stdout; strings.Contains(text, "temporary files") != tt.fits {
				t.Errorf("cache ls prints:\n%s", text)
			}
			s.umount(dir)
			if n := s.cacheList().Temporary; n != 0 {
				t.Errorf("%d bytes are temporary when nothing is mounted", n)
			}
		})
	}
}

// TestBoundsLayerSize: a layer that is bigger than allowed is refused, by what
// the manifest says of it before anything of it is asked for.
func TestBoundsLayerSize(t *testing.T) {
	alone(t)
	cache := t.TempDir()
	image, layer := frameLayout(t, 4<<20)
	r := invoke(t, "ls", "--cache-dir", cache, "--max-layer-size", "2M", image)
	checkRefusal(t, r, cli.ExitFailure, []string{"layer " + layer.String(), "2097152"}, "--max-layer-size")
	checkCache(t, cache)
	succeed(t, "ls", "--cache-dir", cache, "--max-layer-size", "5M", image)
	r = invoke(t, "ls", "--cache-dir", cache, "--max-layer-size", "2M", image)
	checkRefusal(t, r, cli.ExitFailure, []string{"layer " + layer.String(), "2097152"}, "--max-layer-size")

	reg, store := registrytest.New(t, nil), sourcetest.NewStore()
	top := edited(tarOf(t, tar.Header{Name: "a"}), `("layers":.*"size":)\d+`, fmt.Sprintf("${1}%d", int64(1)<<50))(t, store)
	image = publishStore(reg, store, top)
	for _, args := range [][]string{{"ls"}, {"ls", "--max-layer-size", "1T"}, {"cat"}, {"index", "--fetch"}} {
		reg.Forget()
		args = append(args, "--cache-dir", t.TempDir(), "--tls-verify=false", image)
		if args[0] == "cat" {
			args = append(args, "/a")
		}
		checkRefusal(t, invoke(t, args...), cli.ExitFailure, []string{"layer sha256:", "1125899906842624"}, "--max-layer-size")
		if n := reg.Count(registrytest.Blob); n > 1 {
			t.Errorf("%q: %d blobs were asked for, want the config alone", args, n)
		}
	}
}

// TestBoundsArchive: a compressed archive is unpacked into the cache, within
// its size and that of layers, and what is none is not.
func TestBoundsArchive(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	need(t, "tar")
	image, _ := frameLayout(t, 1<<20)
	layout := strings.TrimPrefix(image, "oci:")
	writeFile(t, filepath.Join(layout, "more"), strings.Repeat("\x00", 24<<20))
	dir := t.TempDir()
	good, plain := filepath.Join(dir, "good.tgz"), filepath.Join(dir, "good.tar")
	tool(t, "tar", "-C", layout, "-czf", good, ".")
	tool(t, "tar", "-C", layout, "-cf", plain, ".")
	zeros := writeFile(t, filepath.Join(dir, "zeros.gz"), string(gzipOf(t, make([]byte, 1<<20))))
	for _, tt := range []struct {
		name, file  string
		flags, says []string
		hint        string
	}{
		{"room", good, []string{"--cache-size=64M"}, nil, ""},
		{"no bound", good, []string{"--cache-size=none", "--max-layer-size=none"}, nil, ""},
		{"plain", plain, []string{"--cache-size=1M", "--max-layer-size=2M"}, nil, ""},
		{"cache", good, []string{"--cache-size=16M"}, []string{good, "cache has no room"}, "--cache-size"},
		{"layer", good, []string{"--max-layer-size=16M"}, []string{good, "16777216"}, "--max-layer-size"},
		{"no archive", zeros, nil, []string{zeros, "not a tar archive"}, ""},
		{"device", "/dev/zero", nil, []string{"/dev/zero", "not a tar archive"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"ls", "inspect"} {
				cache, temp := t.TempDir(), t.TempDir()
				t.Setenv("TMPDIR", temp)
				r := invoke(t, append(append([]string{command, "--cache-dir", cache}, tt.flags...), "oci-archive:"+tt.file)...)
				if tt.says != nil {
					checkRefusal(t, r, cli.ExitFailure, tt.says, tt.hint)
					checkCache(t, cache)
				} else if r.code != 0 {
					t.Errorf("%s: exit code %d\n%s", command, r.code, r.stderr)
				}
				if left := append(filesBelow(t, temp), filesBelow(t, filepath.Join(cache, "tmp"))...); len(left) > 0 {
					t.Errorf("%s: left behind: %q", command, left)
				}
			}
		})
	}
}

// TestBoundsPipe: Ctrl-C ends the wait for an archive that nobody writes.
func TestBoundsPipe(t *testing.T) {
	s := newSandbox(t)
	pipe := filepath.Join(s.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := s.command("ls", "oci-archive:"+pipe)
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// The other end can be opened when it has the pipe open.
		var end *os.File
		opened := eventually(20*time.Second, func() bool {
			end, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			return err == nil
		})
		if !opened {
			t.Fatalf("the pipe is not opened: %v", err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		said, _ := io.ReadAll(stderr) // Wait tells
		_ = cmd.Wait()
		timer.Stop()
		end.Close()
		if cmd.ProcessState.ExitCode() != cli.ExitFailure {
			t.Errorf("%v: it ended with %v and said %q", sig, cmd.ProcessState, said)
		}
	}
}
