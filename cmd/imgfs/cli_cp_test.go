//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"golang.org/x/sys/unix"
)

// copied is a layer with what cp has to tell apart.
func copied(a *labimage.Archive) error {
	return errors.Join(small(a),
		a.Dir("usr"), a.Dir("usr/lib"), a.File("usr/lib/libc", "code"), a.Symlink("lib", "usr/lib"),
		a.Device("null", tar.TypeChar, 1, 3), a.File("odd\n\x1b[31m", "odd"), a.Symlink("out", "../../../../etc/os-release"))
}

// contentsBelow is what is in a directory: paths, and contents or targets.
func contentsBelow(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range filesBelow(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if to, lerr := os.Readlink(filepath.Join(dir, name)); lerr == nil {
			content, err = []byte("-> "+to), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(name + "=" + strings.TrimSpace(string(content)) + " ")
	}
	return strings.TrimSpace(b.String())
}

// TestCp: what goes where, as cp has it.
func TestCp(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, copied)
	cache := t.TempDir()
	for _, c := range []struct {
		name, args string // I is the image, D the directory
		want       string
		errors     string // after imgfs: , joined with |; the exit code is 1 then
	}{
		{"into a directory", "I /etc/os-release D", "os-release=NAME=small", ""},
		{"joined", "I:/etc/os-release D", "os-release=NAME=small", ""},
		{"a new name", "I etc/os-release D/new", "new=NAME=small", ""},
		{"several", "I /etc/os-release /usr/lib/libc D", "libc=code os-release=NAME=small", ""},
		{"several joined", "I:/etc/os-release /usr/lib/libc D/", "libc=code os-release=NAME=small", ""},
		{"a link is followed", "I /os-release D", "os-release=NAME=small", ""},
		{"and kept with -P", "-P I /os-release D", "os-release=-> etc/os-release", ""},
		{"and with -a", "-a I /os-release D", "os-release=-> etc/os-release", ""},
		{"but followed with a slash", "-a I /lib/ D", "lib/libc=code", ""},
		{"links lead nowhere out", "I /out D", "out=NAME=small", ""},
		{"a directory", "I /usr D", "usr/lib/libc=code", ""},
		{"with -r", "-r I /usr D", "usr/lib/libc=code", ""},
		{"with -R and -f", "-Rf I /usr D", "usr/lib/libc=code", ""},
		{"a directory as a new one", "I /usr D/new", "new/lib/libc=code", ""},
		{"what is in it", "I /usr/. D", "lib/libc=code", ""},
		{"what is in it, as a new one", "I /usr/. D/new/", "new/lib/libc=code", ""},
		{"-T merges", "-T I /usr D", "lib/libc=code", ""},
		{"-t", "-t D I /usr/lib/libc /etc/os-release", "libc=code os-release=NAME=small", ""},
		{"a link to a directory", "I /lib D", "lib/libc=code", ""},
		{"-L", "-L I /conf/os-release /os-release D/../D", "os-release=NAME=small", "D/../D/os-release: another file has been copied to this name"},
		{"no such path", "I /no /usr/lib/libc D", "libc=code", "I: /no: no such file or directory"},
		{"no such directory", "I /usr/lib/libc D/no/new", "", "D/no: no such file or directory"},
		{"several to what is not there", "I /usr/lib/libc /etc D/no", "", "D/no: no such file or directory"},
		{"a file as a directory", "I /usr/lib/libc D/no/", "", "I: /usr/lib/libc: D/no/: not a directory"},
		{"-T onto a directory", "-T I /usr/lib/libc D", "", "I: /usr/lib/libc: D: is a directory"},
		{"a dangling link", "I /dangling D", "", "I: /dangling: no such file or directory"},
		{"a device", "I /null D", "", "I: /null: a device is made only if all attributes are kept|hint: -a copies devices, too"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			place := strings.NewReplacer("I", image, "D", dir)
			var args []string
			for _, a := range strings.Fields(c.args) {
				if a[0] != '-' {
					a = strings.ReplaceAll(place.Replace(a), "/../"+dir, "/../"+filepath.Base(dir))
				}
				args = append(args, a)
			}
			r := invoke(t, append([]string{"cp", "-q", "--cache-dir", cache}, args...)...)
			if got := contentsBelow(t, dir); got != c.want {
				t.Errorf("imgfs cp %s: got %s, want %s", c.args, got, c.want)
			}
			says := strings.ReplaceAll(strings.ReplaceAll(r.stderr, image, "I"), dir, "D")
			want := ""
			for e := range strings.SplitSeq(strings.ReplaceAll(c.errors, "D/../D", "D"), "|") {
				if e != "" {
					want += "imgfs: " + e + "\n"
				}
			}
			says = strings.ReplaceAll(says, "D/../"+filepath.Base(dir), "D")
			if says != want || (r.code == cli.ExitFailure) != (want != "") || r.stdout != "" {
				t.Errorf("imgfs cp %s: got exit code %d, %q and\n%swant\n%s", c.args, r.code, r.stdout, says, want)
			}
		})
	}
}

// TestCpStdout: - is one file; and what is no regular file here is written to.
func TestCpStdout(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, copied)
	cache := t.TempDir()
	if got := succeed(t, "cp", "-q", "--cache-dir", cache, image+":/os-release", "-"); got != "NAME=small\n" {
		t.Errorf("got %q", got)
	}
	succeed(t, "cp", "-q", "--cache-dir", cache, image+":/os-release", "/dev/null")
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode()&os.ModeDevice == 0 {
		t.Errorf("/dev/null is %v, error %v", st.Mode(), err)
	}
	checkRefusal(t, invoke(t, "cp", "-q", "--cache-dir", cache, image, "/etc", "-"), cli.ExitFailure, []string{image + ": /etc: is a directory"}, "imgfs tar "+image+" /etc")
	checkRefusal(t, invoke(t, "cp", "-q", "--cache-dir", cache, image, "/etc", "/dev/full"), cli.ExitFailure, []string{"/dev/full: cannot overwrite what is no directory with a directory"}, "")
	checkRefusal(t, invoke(t, "cp", "-q", "--cache-dir", cache, image, "/os-release", "/dev/full"), cli.ExitFailure, []string{"/dev/full: no space left on device"}, "")
}

// TestCpFIFO has a FIFO as the destination: a file is written into it, and nothing else has
// imgfs wait for a reader.
func TestCpFIFO(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, copied)
	cache, fifo := t.TempDir(), filepath.Join(t.TempDir(), "q")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// ends runs a command that may not wait for the FIFO: if it does, it gets a reader.
	ends := func(args ...string) result {
		t.Helper()
		late := time.AfterFunc(20*time.Second, func() {
			t.Errorf("imgfs cp %q waits for a reader", args)
			_, _ = os.ReadFile(fifo)
		})
		defer late.Stop()
		return invoke(t, append([]string{"cp", "-q", "--cache-dir", cache}, args...)...)
	}
	checkRefusal(t, ends(image+":/etc", fifo), cli.ExitFailure, []string{fifo + ": cannot overwrite what is no directory with a directory"}, "")
	checkRefusal(t, ends("-T", image+":/etc", fifo), cli.ExitFailure, []string{fifo + ": cannot overwrite what is no directory with a directory"}, "")
	checkRefusal(t, ends(image+":/no", fifo), cli.ExitFailure, []string{"/no: no such file or directory"}, "")
	checkRefusal(t, ends("-a", image+":/null", fifo), cli.ExitFailure, []string{"/null: not a regular file"}, "")
	checkRefusal(t, ends(image, "/etc", "/usr", fifo), cli.ExitFailure, []string{fifo + ": not a directory"}, "")
	if r := ends("-n", image+":/os-release", fifo); r.code != 0 {
		t.Errorf("-n: exit code %d: %s", r.code, r.stderr)
	}
	got := make(chan string)
	go func() {
		time.Sleep(100 * time.Millisecond) // cp(1) waits for a reader, too
		b, err := os.ReadFile(fifo)
		got <- fmt.Sprint(string(b), err)
	}()
	succeed(t, "cp", "-q", "--cache-dir", cache, image+":/os-release", fifo)
	if text := <-got; text != "NAME=small\n<nil>" {
		t.Errorf("the reader got %q", text)
	}
}

// TestCpUsage: command lines that mean nothing, and what was meant.
func TestCpUsage(t *testing.T) {
	alone(t)
	for _, c := range []struct{ args, says, hint string }{
		{"", "no image named", ""},
		{"fedora", "no destination", ""},
		{"fedora:/etc", "no destination", "imgfs cp fedora:/etc ."},
		{"fedora /etc", "no path in the image fedora, or no destination", "imgfs cp fedora /etc ."},
		{"./file fedora:/etc", "imgfs only reads images", ""},
		{"fedora a b -", "stdout takes one file, and not 2", "imgfs tar"},
		{"-T -t x fedora a", "-t and -T contradict", ""},
		{"-i fedora a b", "unknown", "-n"},
	} {
		r := invoke(t, append([]string{"cp"}, strings.Fields(c.args)...)...)
		checkRefusal(t, r, cli.ExitUsage, []string{c.says}, c.hint)
	}
}

// TestTar: which names are in the tar, and where it goes.
func TestTar(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, copied)
	cache := t.TempDir()
	run := func(args ...string) result {
		return invoke(t, append([]string{"tar", "-q", "--cache-dir", cache}, args...)...)
	}
	names := func(b string) string {
		var all []string
		r := tar.NewReader(strings.NewReader(b))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			all = append(all, h.Name)
		}
		return strings.Join(all, " ")
	}
	whole := run(image)
	if want := "conf dangling empty/ etc/ etc/.hidden etc/os-release fifo lib null odd\n\x1b[31m os-release out usr/ usr/lib/ usr/lib/libc"; names(whole.stdout) != want {
		t.Errorf("got %q, want %q", names(whole.stdout), want)
	}
	for args, want := range map[string]string{image + " usr /etc/os-release": "usr/ usr/lib/ usr/lib/libc etc/os-release", image + ":/usr/lib": "usr/lib/ usr/lib/libc"} {
		if r := run(strings.Fields(args)...); names(r.stdout) != want || r.code != 0 {
			t.Errorf("imgfs tar %s: got %q, want %q\n%s", args, names(r.stdout), want, r.stderr)
		}
	}
	checkRefusal(t, run(image, "/usr", "/no"), cli.ExitFailure, []string{image + ": /no: no such file"}, "")
	checkRefusal(t, run(image+":/usr", "x:/usr"), cli.ExitUsage, []string{"a tar has the files of one"}, "")
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	for range 2 { // it replaces what was there
		if r := run("-o", file, image); r.code != 0 || r.stdout != "" {
			t.Errorf("exit code %d\n%s", r.code, r.stderr)
		}
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, []byte(whole.stdout)) {
		t.Errorf("the file has %d bytes, error %v; stdout had %d", len(b), err, len(whole.stdout))
	}
	checkRefusal(t, run("-o", "/dev/full", image), cli.ExitFailure, []string{"/dev/full: no space left on device"}, "")
	checkRefusal(t, run("-o", dir, image), cli.ExitFailure, []string{dir + ": is a directory"}, "")
	checkRefusal(t, run("-o", filepath.Join(dir, "no", "x"), image), cli.ExitFailure, []string{"no such file or directory"}, "")
	// A registry that sends something else: the file that was there stays.
	if err := os.RemoveAll(filepath.Join(cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	reg.Inject(registrytest.Blob, registrytest.Always(registrytest.FlipBit()))
	checkRefusal(t, run("-o", file, image), cli.ExitFailure, []string{image + ": /etc/os-release: layer sha256:", "the tar is not whole"}, "")
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, []byte(whole.stdout)) {
		t.Errorf("after a failure the file has %d bytes, error %v", len(b), err)
	}
	if got := filesBelow(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if r := run(image); r.code != cli.ExitFailure || strings.HasSuffix(r.stdout, strings.Repeat("\x00", 1024)) || r.stdout == "" {
		t.Errorf("exit code %d, %d bytes of tar", r.code, len(r.stdout))
	}
}

// TestCpDevices: of several devices that are not copied, one has the hint.
func TestCpDevices(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("dev"), a.Device("dev/null", tar.TypeChar, 1, 3), a.Device("dev/zero", tar.TypeChar, 1, 5))
	})
	r := invoke(t, "cp", "-q", "--cache-dir", t.TempDir(), image, "/dev", t.TempDir())
	if n := strings.Count(r.stderr, "a device is made only"); r.code != cli.ExitFailure || n != 2 || strings.Count(r.stderr, "hint: ") != 1 {
		t.Errorf("got exit code %d and\n%s", r.code, r.stderr)
	}
}
