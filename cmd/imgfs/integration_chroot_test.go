//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// helloSource is a program that shows where it runs.
const helloSource = `package main

import (
	"fmt"
	"os"
)

func main() {
	text, err := os.ReadFile("/etc/greeting")
	fmt.Printf("%s%v %d\n", text, err, os.Geteuid())
}
`

// helloImage makes a layout of an image with a program that needs nothing
// but the kernel.
func helloImage(t testing.TB) (layout string) {
	t.Helper()
	src := t.TempDir()
	source, program := filepath.Join(src, "hello.go"), filepath.Join(src, "hello")
	if err := os.WriteFile(source, []byte(helloSource), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CGO_ENABLED", "0")
	tool(t, "go", "build", "-ldflags=-s -w", "-o", program, source)
	content := readFile(t, program)
	layout = publicDir(t)
	_, err := labimage.Write(layout, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("bin"), a.Dir("etc"),
			a.File("bin/hello", content, labimage.Mode(0o755)),
			a.File("bin/setuid-hello", content, labimage.Mode(0o4755)),
			a.File("bin/closed-hello", content, labimage.Mode(0o744)),
			a.File("bin/no-hello", content, labimage.Mode(0o644)),
			a.File("etc/greeting", "a lower layer\n"))
	}, func(a *labimage.Archive) error {
		return a.File("etc/greeting", "hello from the image\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

// TestChroot runs a program in an image.
func TestChroot(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	dir := s.mount("oci:" + helloImage(t))
	for _, program := range []string{"/bin/hello", "/bin/setuid-hello", "/bin/closed-hello"} {
		r := s.finish(s.program("chroot", dir, program))
		if want := "hello from the image\n<nil> 0\n"; r.stdout != want || r.code != 0 {
			t.Errorf("chroot %s: exit code %d, %q, want %q\n%s", program, r.code, r.stdout, want, r.stderr)
		}
	}
	r := s.finish(s.program("chroot", dir, "/bin/no-hello"))
	if r.code != 126 || !strings.Contains(r.stderr, "Permission denied") {
		t.Errorf("a file that is not executable: exit code %d, %q", r.code, r.stderr)
	}
	s.umount(dir)
}

// TestExecutePermission runs programs of an image as a user. The setuid bit
// is shown, but has no effect.
func TestExecutePermission(t *testing.T) {
	testenv.Slow(t)
	image := "oci:" + helloImage(t)
	forEachMounter(t, func(t *testing.T, who account) {
		s := sandboxOf(t, who)
		dir := s.mount(image)
		for _, c := range []struct {
			program, mode string
			runs          bool
		}{
			{"hello", "755", true}, {"setuid-hello", "4755", true}, {"closed-hello", "744", who.uid == 0}, {"no-hello", "644", false},
		} {
			path := filepath.Join(dir, "bin", c.program)
			if r := s.finish(s.program("stat", "-c", "%a", path)); r.stdout != c.mode+"\n" {
				t.Errorf("mode of %s: %q, want %s\n%s", c.program, r.stdout, c.mode, r.stderr)
			}
			out, err := s.program(path).Output()
			if !c.runs && errors.Is(err, syscall.EACCES) {
				continue
			}
			if uid := fmt.Sprintf(" %d\n", who.uid); err != nil || !strings.HasSuffix(string(out), uid) {
				t.Errorf("running %s as %s: %q, %v, want it to end with %q", c.program, who.name, out, err, uid)
			}
		}
		s.umount(dir)
	})
}
