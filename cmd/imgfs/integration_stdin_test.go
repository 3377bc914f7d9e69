//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// saved is an archive as docker save writes it, called app:v1, of plain layers.
func saved(t *testing.T, layers ...labimage.Layer) string {
	t.Helper()
	layout := t.TempDir()
	if _, err := labimage.Write(layout, layers...); err != nil {
		t.Fatal(err)
	}
	img, err := labimage.Open(layout)
	if err != nil {
		t.Fatal(err)
	}
	var files, names, diffIDs []string
	for i, l := range img.Manifest.Layers {
		z, err := os.Open(filepath.Join(layout, "blobs", "sha256", l.Digest.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		zr, err := gzip.NewReader(z)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(zr)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d/layer.tar", i)
		files = append(files, name, string(content))
		names = append(names, fmt.Sprintf("%q", name))
		diffIDs = append(diffIDs, fmt.Sprintf("%q", digest.FromBytes(content)))
	}
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%s]}}`, strings.Join(diffIDs, ","))
	files = append(files, "config.json", config, "manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":["app:v1"],"Layers":[%s]}]`, strings.Join(names, ",")))
	return tarOfFiles(t, files...)
}

// filter runs a program on some bytes.
func filter(t *testing.T, content string, program string, args ...string) string {
	t.Helper()
	need(t, program)
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// reading runs imgfs with something on its standard input: a file, or what a pipe brings.
func (s *sandbox) reading(stdin io.Reader, args ...string) result {
	s.t.Helper()
	cmd := s.command(args...)
	cmd.Stdin = stdin
	return s.finish(cmd)
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestStdin reads images from standard input, of both kinds, compressed and not, from a
// pipe and from a file, under each name that they have there.
func TestStdin(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	big := noiseText(300 << 10)
	layer := func(a *labimage.Archive) error { return a.File("big", big) }
	layout := t.TempDir()
	if _, err := labimage.Write(layout, small, layer); err != nil {
		t.Fatal(err)
	}
	for kind, plain := range map[string]string{"oci-archive": packed(t, layout, ""), "docker-archive": saved(t, small, layer)} {
		tag := map[string]string{"oci-archive": labimage.Tag, "docker-archive": "app:v1"}[kind]
		for wrapped, content := range map[string]string{
			"": plain, "gzip": string(gzipOf(t, []byte(plain))), "xz": filter(t, plain, "xz", "-c"), "zstd": filter(t, plain, "zstd", "-c"), "bzip2": filter(t, plain, "bzip2", "-c"),
		} {
			file := writeFile(t, filepath.Join(t.TempDir(), "archive"), content)
			for _, name := range []string{"-", "-:" + tag, kind + ":-", kind + ":-:" + tag} {
				if wrapped != "" && name != "-" {
					continue
				}
				t.Run(kind+" "+wrapped+" "+name, func(t *testing.T) {
					s := s.in(t)
					for from, stdin := range map[string]io.Reader{"a pipe": strings.NewReader(content), "a file": opened(t, file)} {
						if r := s.reading(stdin, "cat", name, "etc/os-release", "/big"); r.code != 0 || r.stdout != "NAME=small\n"+big {
							t.Errorf("cat %s of %s: exit code %d, %d bytes\n%s", name, from, r.code, len(r.stdout), r.stderr)
						}
					}
					if r := s.reading(strings.NewReader(content), "ls", "-q", name+":/etc", name+":/conf/"); r.code != 0 || strings.Count(r.stdout, "os-release\n") != 2 {
						t.Errorf("ls %s:/etc: exit code %d\n%s%s", name, r.code, r.stdout, r.stderr)
					}
				})
			}
		}
	}
	if r := s.ok("cache", "ls", "--json"); strings.Contains(r.stdout, `"-`) || strings.Contains(r.stdout, `:-`) {
		t.Errorf("the cache knows an image on standard input by its name:\n%s", r.stdout)
	}
}

// TestStdinMount mounts images from standard input. The process in the background has
// read a pipe when the command returns, and reads a file on.
func TestStdinMount(t *testing.T) {
	needFUSE(t)
	s := newSandbox(t)
	big := noiseText(300 << 10)
	content := saved(t, small, func(a *labimage.Archive) error { return a.File("big", big) })
	file := writeFile(t, filepath.Join(t.TempDir(), "archive"), content)
	for name, stdin := range map[string]func() io.Reader{
		"pipe": func() io.Reader { return strings.NewReader(content) },
		"file": func() io.Reader { return opened(t, file) },
	} {
		for _, flags := range [][]string{nil, {"-f"}} {
			t.Run(name+strings.Join(flags, ""), func(t *testing.T) {
				s := s.in(t)
				dir := s.mountpoint()
				cmd := s.command(append(append([]string{"mount"}, flags...), "-", dir)...)
				cmd.Stdin = stdin()
				ended := make(chan result, 1)
				go func() { ended <- s.finish(cmd) }()
				if !eventually(20*time.Second, func() bool { return mounted(dir) }) {
					t.Fatalf("it is not mounted: %+v", <-ended)
				}
				if got, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || string(got) != big {
					t.Errorf("read %d bytes, error %v", len(got), err)
				}
				s.umount(dir)
				if r := <-ended; r.code != 0 {
					t.Errorf("exit code %d\n%s", r.code, r.stderr)
				}
			})
		}
	}
}

// TestStdinRefused has what is no archive on standard input, and archives that cannot be
// read from there.
func TestStdinRefused(t *testing.T) {
	alone(t)
	s := newSandbox(t)
	content := saved(t, small)
	for _, c := range []struct {
		name  string
		stdin string
		args  []string
		says  []string
		hint  string
	}{
		{"nothing", "", []string{"ls", "-"}, []string{"-: unsupported image: it is not a tar archive: there is nothing in it"}, ""},
		{"text", strings.Repeat("text\n", 1000), []string{"ls", "-"}, []string{"it is not a tar archive"}, ""},
		{"zeros", strings.Repeat("\x00", 1<<20), []string{"ls", "-"}, []string{"it begins with zeros"}, ""},
		{"JSON", `{"a":"` + strings.Repeat("b", 1000) + `"}`, []string{"ls", "-"}, []string{"it begins like a JSON document"}, ""},
		{"lz4", "\x04\x22\x4d\x18junk", []string{"ls", "-"}, []string{"compressed with lz4"}, ""},
		{"a root file system", tarOfFiles(t, "etc/passwd", "", "usr/bin/x", ""), []string{"ls", "-"}, []string{"a tar of a root file system", "not an archive as docker save writes it, or"}, ""},
		{"the other kind", content, []string{"ls", "oci-archive:-"}, []string{"it is an archive as docker save writes it"}, "write docker-archive:-\n"},
		{"a name that it does not have", content, []string{"ls", "-:other"}, []string{"-:other: ", "app:v1"}, ""},
		{"cut", content[:len(content)/2], []string{"ls", "-"}, []string{"-: unsupported image: reading it as a tar: the member at byte", "it ends too early"}, ""},
		{"twice", content, []string{"ls", "-:app:v1:/etc", "docker-archive:-:/etc"}, []string{"docker-archive:-:/etc: docker-archive:-: standard input has been read"}, "put the archive into a file"},
		{"too big", content, []string{"ls", "--max-layer-size", "1000", "-"}, []string{"more than the 1000 bytes allowed"}, "--max-layer-size"},
		{"no room", saved(t, func(a *labimage.Archive) error { return a.File("big", noiseText(4<<20)) }), []string{"ls", "--cache-size", "1M", "-"}, nil, "more room"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			r := s.reading(strings.NewReader(c.stdin), c.args...)
			if c.name == "twice" { // the first is listed
				r.stdout = strings.TrimPrefix(r.stdout, "-:app:v1:/etc:\nos-release\n")
			}
			checkRefusal(t, r, cli.ExitFailure, c.says, c.hint)
		})
	}
	if r := s.reading(opened(t, t.TempDir()), "ls", "-"); r.code != cli.ExitFailure || !strings.Contains(r.stderr, "it is a directory") {
		t.Errorf("a directory: exit code %d\n%s", r.code, r.stderr)
	}
}

// TestStdinInterrupted: Ctrl-C ends what waits for standard input, also of a mount, and
// nothing is left.
func TestStdinInterrupted(t *testing.T) {
	s := newSandbox(t)
	content := saved(t, small)
	dir := s.mountpoint()
	for _, args := range [][]string{{"ls", "-"}, {"mount", "-", dir}, {"mount", "-f", "-", dir}} {
		if args[0] == "mount" {
			needFUSE(t)
		}
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.WriteString(content[:2000]); err != nil {
			t.Fatal(err)
		}
		cmd := s.command(args...)
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = from, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		from.Close()
		time.Sleep(300 * time.Millisecond) // it has begun to read
		begun := time.Now()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if took := time.Since(begun); err == nil || took > 5*time.Second || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%q: ended after %v with %v:\n%s", args, took, err, stderr.String())
		}
		to.Close()
	}
	s.gone(dir)
}

// TestStdinOffset: what a shell has read of a file is not read again.
func TestStdinOffset(t *testing.T) {
	s := newSandbox(t)
	file := writeFile(t, filepath.Join(t.TempDir(), "archive"), "a line\n"+saved(t, small))
	f := opened(t, file)
	if _, err := f.Seek(int64(len("a line\n")), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if r := s.reading(f, "cat", "-", "/etc/os-release"); r.code != 0 || r.stdout != "NAME=small\n" {
		t.Errorf("exit code %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
}
