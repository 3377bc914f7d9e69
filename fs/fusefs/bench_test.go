//go:build linux

package fusefs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// benchMount mounts a tree anew, so that the kernel knows nothing of it. Its
// content costs next to nothing.
func benchMount(b *testing.B, tree string, keepOpens bool) (c *child, dir string) {
	return serve(b, benchWay(b, keepOpens), task{Tree: tree})
}

// benchWay is the way to mount in benchmarks.
func benchWay(b *testing.B, keepOpens bool) who {
	needFUSE(b)
	w := who{mode: mode{KeepOpens: keepOpens}}
	if !isRoot() {
		needHelper(b)
		w.uid, w.useHelper = os.Getuid(), true
	}
	return w
}

// find walks a tree as "find -printf %s" does: readdir and stat of everything.
func find(b *testing.B, dir string) {
	out, err := exec.Command("find", dir, "-type", "f", "-printf", "%s\n").Output()
	if n := strings.Count(string(out), "\n"); n != benchFiles || err != nil {
		b.Fatalf("find: %v, %d files, want %d", err, n, benchFiles)
	}
}

// readFiles opens, reads and closes files, without what package os does to
// them.
func readFiles(b *testing.B, paths []string) {
	buf := make([]byte, 16<<10)
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := unix.Read(fd, buf); n < 100 || err != nil {
			b.Fatalf("reading %s: %d, %v", p, n, err)
		}
		unix.Close(fd)
	}
}

// benchPaths returns every twelfth file.
func benchPaths(dir string) []string {
	var paths []string
	for i := 0; i < benchFiles; i += 12 {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("d%02d/e%02d/module-%d.js", i%100, i/100%(benchDirs/100), i)))
	}
	return paths
}

// BenchmarkMounted measures walks of 100,000 files and reads of 8,334 small
// ones, each first with nothing in the kernel's caches and then again.
func BenchmarkMounted(b *testing.B) {
	for _, opens := range []bool{false, true} {
		for name, work := range map[string]func(b *testing.B, dir string){
			"walk":  find,
			"files": func(b *testing.B, dir string) { readFiles(b, benchPaths(dir)) },
		} {
			b.Run(fmt.Sprintf("%s/opens=%v/cold", name, opens), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					c, dir := benchMount(b, "bench", opens)
					b.StartTimer()
					work(b, dir)
					b.StopTimer()
					c.send("unmount")
					c.ended()
					b.StartTimer()
				}
			})
			b.Run(fmt.Sprintf("%s/opens=%v/warm", name, opens), func(b *testing.B) {
				_, dir := benchMount(b, "bench", opens)
				work(b, dir)
				for b.Loop() {
					work(b, dir)
				}
			})
		}
	}
}

// BenchmarkSequential reads 5 GiB, nearly all of it a hole: what the way
// through the kernel costs at least.
func BenchmarkSequential(b *testing.B) {
	b.SetBytes(sparse)
	for b.Loop() {
		b.StopTimer()
		c, dir := benchMount(b, "sample", false)
		b.StartTimer()
		f, err := os.Open(filepath.Join(dir, "holes"))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 256<<10)); n != sparse || err != nil {
			b.Fatalf("%d, %v", n, err)
		}
		f.Close()
		b.StopTimer()
		c.send("unmount")
		c.ended()
		b.StartTimer()
	}
}

// BenchmarkXattrMiss asks for an attribute that is not there, as "ls -l" does of
// each file, in a tree without any.
func BenchmarkXattrMiss(b *testing.B) {
	_, dir := benchMount(b, "plain", false)
	path, buf := filepath.Join(dir, "srv/index"), make([]byte, 256)
	for b.Loop() {
		if _, err := unix.Getxattr(path, "security.selinux", buf); err == nil {
			b.Fatal("there is one")
		}
	}
}
