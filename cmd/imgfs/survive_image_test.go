//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// surviveImage is the image of TestStress, and what a walk has to find: links, xattrs,
// a large directory, and a program.
func surviveImage(t testing.TB, first uint64) ([]stressFile, []labimage.Layer) {
	t.Helper()
	need(t, "busybox")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	content, layers := stressImage(false, first)
	return content, append(layers, func(a *labimage.Archive) error {
		errs := []error{a.Dir("bin"), a.File(surviveProgram, string(program), labimage.Mode(0o755)), a.Dir("odd"), a.Fifo("odd/fifo"), a.Dir("odd/many")}
		for i := range 300 {
			name := fmt.Sprintf("odd/many/%03d", i)
			errs = append(errs, a.File(name, name, labimage.Xattr("user.number", fmt.Sprint(i))),
				a.Symlink(fmt.Sprintf("%03d", (i+1)%300), name+".link"))
		}
		return errors.Join(append(errs, a.Link("odd/hard", "odd/many/000"))...)
	})
}
