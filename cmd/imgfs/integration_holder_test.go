//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// maxHolder is how many bytes of memory a holder may have to itself.
const maxHolder = 4 << 20

// TestHolderMemory: what a holder has of the program's file its server has, too; the rest
// is little, also when it has restarted a server and is of another program.
func TestHolderMemory(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	dir := s.mount(image)
	check := func(when string) {
		t.Helper()
		private, resident := int64(0), int64(0)
		if !eventually(soon, func() bool {
			private, resident = memoryOf(t, s.holder(dir))
			return private < maxHolder
		}) {
			t.Errorf("%s a holder has %d bytes to itself, want less than %d", when, private, maxHolder)
		}
		t.Logf("%s: %d KB private, %d KB resident", when, private>>10, resident>>10)
	}
	check("at first")
	s.killed(dir)
	check("after a restart")
	s.upgrade(anotherImgfs(t), dir)
	check("after an upgrade")
	s.umount(dir)
}

// memoryOf returns what a process has in memory, and what of it no other one has.
func memoryOf(t *testing.T, pid int) (private, resident int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var name string
		var n int64
		if _, err := fmt.Sscan(string(line), &name, &n); err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(name, "Private_"):
			private += n << 10
		case name == "Rss:":
			resident = n << 10
		}
	}
	return private, resident
}
