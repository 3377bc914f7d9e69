//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

const (
	fioSize = 64 << 20
	fioFile = "fio.dat"
)

// fioWays are how fio reads. What it wrote has a checksum in every 4 KiB.
var fioWays = [][]string{
	{"--name=psync", "--ioengine=psync", "--rw=randread", "--bs=4k"},
	{"--name=mmap", "--ioengine=mmap", "--rw=randread", "--bs=4k"},
	{"--name=libaio", "--ioengine=libaio", "--iodepth=16", "--direct=1", "--rw=randread", "--bs=16k"},
	{"--name=sequential", "--ioengine=psync", "--rw=read", "--bs=128k"},
}

// TestStressFio has fio, which knows what it has written, read it from a
// mount with eight processes.
func TestStressFio(t *testing.T) {
	needFUSE(t)
	length, big := stressTime(t)
	if !big {
		t.Skipf("the variable %s does not say for how long", stressEnv)
	}
	need(t, "fio")
	plain := t.TempDir()
	s := newSandbox(t)
	s.fio(plain, "--name=write", "--rw=write", "--bs=4k", "--do_verify=0", fmt.Sprintf("--size=%d", fioSize))
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, func(a *labimage.Archive) error {
		f, err := os.Open(filepath.Join(plain, fioFile))
		if err != nil {
			return err
		}
		defer f.Close()
		return a.Copy(fioFile, fioSize, f)
	})
	size := sizeOf(t, layout)
	for i := range stressModes {
		mode := &stressModes[i]
		t.Run(mode.name, func(t *testing.T) {
			s := newSandbox(t)
			dir := s.mountAs(mode, image, size, big)
			seconds := int(length.Seconds()) / len(fioWays)
			for _, way := range fioWays {
				s.fio(dir, append(way, "--readonly", "--verify_fatal=1", "--invalidate=1", fmt.Sprintf("--numjobs=%d", stressReaders), "--group_reporting",
					"--time_based", fmt.Sprintf("--runtime=%d", max(1, seconds)))...)
			}
			s.umount(dir)
		})
	}
}

// fio runs fio on its file in a directory. It fails if a byte is wrong.
func (s *sandbox) fio(dir string, args ...string) {
	s.t.Helper()
	cmd := s.program("fio", append(args, "--filename="+filepath.Join(dir, fioFile), "--verify=crc32c", "--verify_interval=4k", "--minimal")...)
	if r := s.finish(cmd); r.code != 0 {
		s.t.Errorf("%q: exit code %d\n%.4000s", cmd.Args, r.code, r.stderr)
	}
}
