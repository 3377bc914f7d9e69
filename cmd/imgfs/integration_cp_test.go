//go:build linux

package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// copiedLayouts are images with all that can be in one.
func copiedLayouts(t *testing.T) map[string]string {
	t.Helper()
	layout := filepath.Join(publicDir(t), "layout")
	// The link has the attributes of the file, as umoci does not give the file those of the link.
	private := func(a *labimage.Archive) error {
		attributes := []labimage.Option{labimage.Mode(0o600), labimage.Owner(1, 2), labimage.ModTime(time.Unix(1e9, 0))}
		return errors.Join(a.File("etc/private", "private", attributes...), a.Link("usr/again", "etc/private", attributes...), a.Dir("usr/closed", labimage.Mode(0o700)), a.File("usr/closed/in", "in"))
	}
	if _, err := labimage.Write(layout, copied, private); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"zoo": newLab(t).layouts[zoo], "small": layout}
}

// TestCpEqualsCp: what cp copies, cp(1) with the same flags copies of a real unpack.
func TestCpEqualsCp(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	user := otherUser(t)
	for name, layout := range copiedLayouts(t) {
		t.Run(name, func(t *testing.T) {
			rootfs := unpackLayout(t, layout)
			whole := dumpOf(t, thisUser(), rootfs)
			for _, who := range []account{thisUser(), user} {
				t.Run(who.name, func(t *testing.T) {
					s := sandboxOf(t, who)
					readable := dumpOf(t, who, rootfs)
					for _, flags := range []string{"-a", "-r", "-rp"} {
						// cp(1) follows no link below its arguments, as imgfs, and makes devices without -a.
						into, ours := s.mountpoint(), s.mountpoint()
						theirs := s.finish(s.program("cp", flags, rootfs+"/.", into))
						r := s.run("cp", flags, "oci:"+layout+":"+labimage.Tag, "/", ours)
						if devices := who.uid == 0 && flags == "-a"; (r.code == 0) != devices {
							t.Errorf("%s: exit code %d, cp(1) %d\n%s", flags, r.code, theirs.code, r.stderr)
						}
						// Root sees all of both.
						got, want := dumpOf(t, thisUser(), ours), dumpOf(t, thisUser(), into)
						adaptToFlags(flags, got, want)
						if who.uid != 0 {
							addUnreadable(got, want, readable, whole)
						}
						compare(t, "imgfs cp "+flags, got, "cp", want)
						s.removeAll(into, ours)
					}
				})
			}
		})
	}
}

// TestTarEqualsUnpack: what GNU tar and bsdtar make of imgfs tar is the unpacked tree.
func TestTarEqualsUnpack(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	for name, layout := range copiedLayouts(t) {
		t.Run(name, func(t *testing.T) {
			rootfs := unpackLayout(t, layout)
			s := newSandbox(t)
			archive := filepath.Join(s.dir, "a.tar")
			s.ok("tar", "-o", archive, "oci:"+layout+":"+labimage.Tag, "/")
			for program, flags := range map[string][]string{"tar": {"--xattrs", "--xattrs-include=*", "--acls", "--same-owner"}, "bsdtar": nil} {
				t.Run(program, func(t *testing.T) {
					need(t, program)
					into := s.mountpoint()
					tool(t, program, append(flags, "--numeric-owner", "-C", into, "-xpf", archive)...)
					got, want := dumpOf(t, s.account, into), dumpOf(t, s.account, rootfs)
					if program == "bsdtar" { // see package treetar
						delete(got, `"/time/before-1970"`)
						delete(want, `"/time/before-1970"`)
						delete(got, `""`) // bsdtar sets the root's time before its files are there
						delete(want, `""`)
					}
					compare(t, program, got, "umoci", want)
				})
			}
		})
	}
}

// adaptToFlags takes from the dumps of what imgfs cp and cp(1) made what flags do not
// promise to be equal. Without -a imgfs makes no devices; without -a and -p the time is
// that of the copy; and cp -p of coreutils keeps ACLs, which imgfs keeps with -a.
func adaptToFlags(flags string, got, want dump) {
	if flags == "-a" {
		return
	}
	for path, line := range want {
		if strings.HasPrefix(line, "mode=2") || strings.HasPrefix(line, "mode=6") {
			delete(want, path)
		} else {
			want[path] = posixACL.ReplaceAllString(line, "")
		}
	}
	if flags == "-r" {
		for _, d := range []dump{got, want} {
			for path, line := range d {
				d[path] = modTime.ReplaceAllString(line, "")
			}
		}
	}
}

var (
	posixACL = regexp.MustCompile(`"system\.posix_acl_[a-z]+=(\\.|[^"\\])*" ?`)
	modTime  = regexp.MustCompile(`mtime=\S+ `)
	essence  = regexp.MustCompile(`^mode=(\d+)\d{4} .*(size=\d+) .*(target=.*) xattrs=.*(sha256=.*)`)
)

// addUnreadable adds to want, which cp(1) made as a user, what that user may not read of the
// unpacked tree, and imgfs reads in the image: its kind and its content, which root sees.
func addUnreadable(got, want, readable, whole dump) {
	for path, line := range whole {
		mine, seen := readable[path]
		_, made := want[path]
		if made || seen && !strings.HasSuffix(mine, "sha256=denied") || strings.HasPrefix(line, "mode=2") || strings.HasPrefix(line, "mode=6") {
			continue
		}
		want[path] = essence.ReplaceAllString(line, "$1 $2 $3 $4")
		if mine, ok := got[path]; ok {
			got[path] = essence.ReplaceAllString(mine, "$1 $2 $3 $4")
		}
	}
}

// removeAll removes directories, in which there may be some that nobody may write.
func (s *sandbox) removeAll(dirs ...string) {
	s.t.Helper()
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			s.t.Error(err)
		}
	}
}

// slow has a registry send blobs little by little.
func slow(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	serve(&slowWriter{w}, r)
}

type slowWriter struct{ http.ResponseWriter }

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for part := range slices.Chunk(p, 4<<10) {
		time.Sleep(10 * time.Millisecond)
		k, err := w.ResponseWriter.Write(part)
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// TestCpInterrupted: Ctrl-C in the middle leaves whole files, and no others.
func TestCpInterrupted(t *testing.T) {
	testenv.Slow(t)
	content := noiseText(300 << 10)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, func(a *labimage.Archive) error {
		var errs []error
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			errs = append(errs, a.File("dir/"+name, content))
		}
		return errors.Join(errs...)
	})
	s := newSandbox(t)
	s.ok("index", "-q", image)
	if err := os.RemoveAll(filepath.Join(s.cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	reg.Inject(registrytest.Blob, registrytest.Always(slow))
	for _, args := range [][]string{{"cp", "-a", image, "/dir"}, {"tar", image, "-o"}} {
		into := filepath.Join(s.mountpoint(), "into")
		cmd := s.command(append(args, into)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun := eventually(20*time.Second, func() bool {
			entries, err := os.ReadDir(filepath.Dir(into))
			files, _ := os.ReadDir(into)
			return err == nil && len(entries) > 0 && (len(files) > 0 || args[0] == "tar")
		})
		time.Sleep(50 * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGINT)
		err := cmd.Wait()
		var status *exec.ExitError
		if !begun || !errors.As(err, &status) || status.ExitCode() != cli.ExitFailure || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: begun %t, error %v\n%s", args, begun, err, &stderr)
		}
		entries, _ := os.ReadDir(filepath.Dir(into))
		if args[0] == "tar" {
			if len(entries) > 0 {
				t.Errorf("of an archive that is not whole there is %q", entries)
			}
			continue
		}
		files := filesBelow(t, into)
		if len(files) == 0 || len(files) == 8 {
			t.Errorf("%d files", len(files))
		}
		for _, name := range files {
			if b, err := os.ReadFile(filepath.Join(into, name)); string(b) != content || err != nil {
				t.Errorf("%s has %d bytes, error %v", name, len(b), err)
			}
		}
	}
}

// TestCpDisk: a disk that is full, and one that cannot be written.
func TestCpDisk(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small, func(a *labimage.Archive) error {
		return errors.Join(a.File("etc/big", noiseText(3<<20)), a.File("etc/zz", "last"))
	})
	s := newSandbox(t)
	dir := s.mountpoint()
	testenv.SmallDisk(t, dir, 1<<20)
	r := s.run("cp", "-q", "-a", image, "/etc", dir)
	if want := "imgfs: " + dir + "/etc/big: no space left on device\n"; r.code != cli.ExitFailure || r.stderr != want {
		t.Errorf("exit code %d, %q, want %q", r.code, r.stderr, want)
	}
	if got := strings.Join(filesBelow(t, dir), " "); got != "etc/.hidden" {
		t.Errorf("there is %q", got)
	}
	testenv.RemountReadOnly(t, dir)
	r = s.run("cp", "-q", "-a", image, "/etc", dir)
	if want := "imgfs: " + dir + "/etc/.hidden: read-only file system\n"; r.code != cli.ExitFailure || r.stderr != want {
		t.Errorf("exit code %d, %q, want %q", r.code, r.stderr, want)
	}
}

// TestTarPipe: a reader that has enough ends imgfs quietly, as it ends cat.
func TestTarPipe(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, func(a *labimage.Archive) error { return a.File("big", noiseText(8<<20)) })
	s := newSandbox(t)
	r := s.finish(s.program("bash", "-c", `set -o pipefail; "$0" tar -q "$1" | head -c 1000 | wc -c; echo ${PIPESTATUS[0]}`, imgfsBinary(t), image))
	if r.stderr != "" || strings.Fields(r.stdout)[0] != "1000" || strings.Fields(r.stdout)[1] != "141" {
		t.Errorf("got %q and\n%s", r.stdout, r.stderr)
	}
}
