package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// peak returns the most memory that a process which has ended took, in MiB.
func peak(cmd *exec.Cmd) int64 { return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10 }

// peakOf returns that of one that runs.
func peakOf(t testing.TB, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	n, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n >> 10
}

// TestMetadataMemory has images that are hard on memory, in every way that there
// is. One that needs less than it may works, one that needs more is refused,
// with a hint, and neither takes much more memory than was allowed. By default
// little is allowed; IMGFS_HOSTILE=1 has
// all kinds of image, and what users get.
func TestMetadataMemory(t *testing.T) {
	bound, most, args := int64(64), int64(64*115/100+130), []string{"-q", "--max-metadata=64M"}
	all := os.Getenv("IMGFS_HOSTILE") != ""
	if all {
		bound, most, args = 1024, 1228, []string{"-q"}
	}
	for _, kind := range heavyKinds {
		if !all && !kind.always {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			for _, percent := range []int64{80, 130} {
				image := layoutOf(t, kind.layers(t, int(bound<<20*percent/100/kind.unit))...)
				s := newSandbox(t)
				for _, command := range []string{"index", "ls", "ls"} {
					cmd := s.command(append(args, command, image)...)
					r := s.finish(cmd)
					t.Logf("%d%%, %s: exit code %d, %d MiB, %v CPU", percent, command, r.code, peak(cmd), cmd.ProcessState.UserTime())
					if got := peak(cmd); got > most {
						t.Errorf("%d%%, %s: %d MiB, want at most %d", percent, command, got, most)
					}
					switch {
					case percent < 100 || kind.light || command == "index" && kind.merging:
						if r.code != 0 {
							t.Errorf("%d%%, %s: %s", percent, command, r.stderr)
						}
					case r.code == exitError && strings.Contains(r.stderr, "layer sha256:") && strings.Contains(r.stderr, "too many entries"):
					case r.code != exitError || !strings.Contains(r.stderr, "too many names and attributes") || !strings.Contains(r.stderr, "hint: ") ||
						!strings.Contains(r.stderr, "--max-metadata"):
						t.Errorf("%d%%, %s: exit code %d\n%.500s", percent, command, r.code, r.stderr)
					}
				}
			}
		})
	}
}

// TestMetadataMemoryMounted is TestMetadataMemory for a mount and what is read
// from it, and for cat.
func TestMetadataMemoryMounted(t *testing.T) {
	needFUSE(t)
	for _, kind := range heavyKinds {
		if kind.name != "files of a byte" && kind.name != "attributes" && kind.name != "names" {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			image := layoutOf(t, kind.layers(t, int(96<<20*80/100/kind.unit))...)
			s := newSandbox(t)
			dir := s.mount(image, "--max-metadata=96M", "--provenance")
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) == 0 {
				t.Fatalf("%d names, %v", len(entries), err)
			}
			value := make([]byte, 1<<16)
			if kind.name == "files of a byte" { // then the digests of all are read
				if _, err := syscall.Getxattr(dir+"/0/0", "user.imgfs.digest", value); err != nil {
					t.Errorf("the digest of a file: %v", err)
				}
			}
			if got := peakOf(t, s.daemon(dir)); got > 96*115/100+160 {
				t.Errorf("the mount takes %d MiB", got)
			}
			s.umount(dir)
			cmd := s.command("-q", "--max-metadata=96M", "cat", image, "no-such-file")
			if r := s.finish(cmd); r.code != exitError || !strings.Contains(r.stderr, "no-such-file") || peak(cmd) > 96*115/100+160 {
				t.Errorf("cat: exit code %d, %d MiB\n%.500s", r.code, peak(cmd), r.stderr)
			}
		})
	}
}
