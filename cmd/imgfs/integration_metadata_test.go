//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// finishMeasured runs a command to its end and returns its peak of resident
// memory in MiB, as the kernel tells it while it runs. What the kernel tells
// afterwards includes what the process had that started it: this one.
func (s *sandbox) finishMeasured(cmd *exec.Cmd) (result, int64) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for most := int64(0); ; {
		select {
		case <-ended:
			return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(begun)}, most
		case <-time.After(2 * time.Millisecond):
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); exe == cmd.Path {
				most = max(most, residentPeak(cmd.Process.Pid))
			}
		}
	}
}

// residentPeak returns that of a process, 0 if it has ended.
func residentPeak(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	fmt.Sscan(line, &kib)
	return kib >> 10
}

// TestMetadataMemory has images that are hard on memory, in every way that there
// is. One that needs less than it may works, one that needs more is refused,
// with a hint, and neither takes much more memory than was allowed. By default
// little is allowed; IMGFS_HOSTILE=1 has
// all kinds of image, and what users get.
func TestMetadataMemory(t *testing.T) {
	testenv.Slow(t)
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
					r, got := s.finishMeasured(cmd)
					t.Logf("%d%%, %s: exit code %d, %d MiB, %v CPU", percent, command, r.code, got, cmd.ProcessState.UserTime())
					if got > most {
						t.Errorf("%d%%, %s: %d MiB, want at most %d", percent, command, got, most)
					}
					switch {
					case percent < 100 || kind.light || command == "index" && kind.merging:
						if r.code != 0 {
							t.Errorf("%d%%, %s: %s", percent, command, r.stderr)
						}
					case r.code == cli.ExitFailure && strings.Contains(r.stderr, "layer sha256:") && strings.Contains(r.stderr, "too many entries"):
					case r.code != cli.ExitFailure || !strings.Contains(r.stderr, "too many names and attributes") || !strings.Contains(r.stderr, "hint: ") ||
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
	testenv.Slow(t)
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
			if got := residentPeak(s.daemon(dir)); got > 96*115/100+160 {
				t.Errorf("the mount takes %d MiB", got)
			}
			s.umount(dir)
			cmd := s.command("-q", "--max-metadata=96M", "cat", image, "no-such-file")
			if r, got := s.finishMeasured(cmd); r.code != cli.ExitFailure || !strings.Contains(r.stderr, "no-such-file") || got > 96*115/100+160 {
				t.Errorf("cat: exit code %d, %d MiB\n%.500s", r.code, got, r.stderr)
			}
		})
	}
}
