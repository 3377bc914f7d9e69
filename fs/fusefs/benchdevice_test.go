//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// usage returns what a process has used: time of processors in nanoseconds, and how often
// its threads have waited.
func usage(b *testing.B, pid int) (ns, waits float64) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("%v, %d threads", err, len(tasks))
	}
	for _, t := range tasks {
		text, _ := os.ReadFile(filepath.Join(t, "schedstat"))
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseFloat(first, 64)
		ns += n
		text, _ = os.ReadFile(filepath.Join(t, "status"))
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:\t")
		first, _, _ = strings.Cut(rest, "\n")
		n, _ = strconv.ParseFloat(first, 64)
		waits += n
	}
	return ns, waits
}

// BenchmarkDevice measures what requests cost that come by the device, with recovery and
// without. Where other things run on the machine, the time of the server's processors says
// more than that on the clock.
func BenchmarkDevice(b *testing.B) {
	for _, recovery := range []bool{false, true} {
		for _, c := range []struct {
			name string
			tree string
			n    int // requests, about
			work func(b *testing.B, dir string)
		}{
			{"walk", "bench", benchFiles, find},
			{"files", "bench", len(benchPaths("")), func(b *testing.B, dir string) { readFiles(b, benchPaths(dir)) }},
			{"files4", "bench", len(benchPaths("")), func(b *testing.B, dir string) {
				var readers sync.WaitGroup
				paths := benchPaths(dir)
				for i := range 4 {
					readers.Go(func() { readFiles(b, paths[i*len(paths)/4:(i+1)*len(paths)/4]) })
				}
				readers.Wait()
			}},
			{"statfs", "sample", 20000, func(b *testing.B, dir string) {
				for range 20000 {
					var st unix.Statfs_t
					if err := unix.Statfs(dir, &st); err != nil {
						b.Fatal(err)
					}
				}
			}},
			{"sequential", "sample", 1 << 30 / maxRead, func(b *testing.B, dir string) { readHoles(b, dir, 0) }},
			{"direct", "sample", 1 << 30 / maxRead, func(b *testing.B, dir string) { readHoles(b, dir, unix.O_DIRECT) }},
		} {
			b.Run(fmt.Sprintf("%s/recovery=%v", c.name, recovery), func(b *testing.B) {
				var ns, waits float64
				for b.Loop() {
					b.StopTimer()
					server, dir := benchDevice(b, c.tree, recovery)
					ns0, waits0 := usage(b, server.cmd.Process.Pid)
					b.StartTimer()
					c.work(b, dir)
					b.StopTimer()
					ns1, waits1 := usage(b, server.cmd.Process.Pid)
					ns, waits = ns+ns1-ns0, waits+waits1-waits0
					server.send("unmount")
					server.ended()
					b.StartTimer()
				}
				all := float64(b.N * c.n)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/all, "ns/each")
				b.ReportMetric(ns/all, "server-ns/each")
				b.ReportMetric(waits/all, "waits/each")
			})
		}
	}
}

// benchDevice mounts a tree anew.
func benchDevice(b *testing.B, tree string, recovery bool) (c *child, dir string) {
	w := benchWay(b, false)
	w.IOUring = Off
	if !recovery {
		return serve(b, w, task{Tree: tree})
	}
	h := keep(b, w, task{Tree: tree})
	return h.c, h.dir
}

// readHoles reads 1 GiB of a file that is nearly all a hole, 1 MiB at a time.
func readHoles(b *testing.B, dir string, flags int) {
	fd, err := unix.Open(filepath.Join(dir, "holes"), unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		b.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "holes")
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	for range 1 << 10 {
		if _, err := io.ReadFull(f, buf); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			b.Fatal(err)
		}
	}
}
