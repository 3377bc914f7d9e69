//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// makePackages makes the packages of a version in dir, and returns what make said.
func makePackages(t *testing.T, dir, version string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-C", "../..", "package", "VERSION="+version)
	cmd.Env = append(append(os.Environ(), "OUT="+dir, "SOURCE_DATE_EPOCH=1700000000"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestPackage makes both packages, and installs, upgrades and removes them with dpkg and
// rpm, without a change to this system.
func TestPackage(t *testing.T) {
	testenv.Slow(t)
	need(t, "make", "git", "gzip")
	dir := publicDir(t)
	out, err := makePackages(t, dir, "1.0.0")
	if err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	debs, rpms := []string{fmt.Sprintf("%s/imgfs_1.0.0-1_%s.deb", dir, runtime.GOARCH)}, textLines(out)
	if len(rpms) != 2 || rpms[0] != debs[0] || !strings.HasPrefix(rpms[1], dir+"/imgfs-1.0.0-1.") {
		t.Fatalf("make package says %q", out)
	}
	rpms = rpms[1:]
	first := readFile(t, debs[0]) + readFile(t, rpms[0])
	out, err = makePackages(t, dir, "1.0.1")
	if err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	debs, rpms = append(debs, textLines(out)[0]), append(rpms, textLines(out)[1])

	t.Run("deb", func(t *testing.T) { t.Parallel(); checkDeb(t, debs) })
	t.Run("rpm", func(t *testing.T) { t.Parallel(); checkRPM(t, rpms) })
	t.Run("again", func(t *testing.T) {
		t.Parallel()
		again := t.TempDir()
		if out, err := makePackages(t, again, "1.0.0"); err != nil {
			t.Fatalf("make package: %v\n%s", err, out)
		}
		second := readFile(t, filepath.Join(again, filepath.Base(debs[0]))) + readFile(t, filepath.Join(again, filepath.Base(rpms[0])))
		if first != second {
			t.Error("two builds differ")
		}
	})
	t.Run("install", func(t *testing.T) { t.Parallel(); checkInstall(t, debs[0]) })
}

// textLines returns the lines of what a program prints.
func textLines(out string) []string { return strings.Split(strings.TrimSpace(out), "\n") }

// checkDeb has debpackage.sh try two versions.
func checkDeb(t *testing.T, debs []string) {
	need(t, "dpkg", "unshare", "mount", "chroot", "zsh", "fish")
	needRoot(t)
	needFUSE(t)
	if err := exec.Command("dpkg", "-s", "fuse3").Run(); err != nil {
		missing(t, "dpkg knows of no fuse3, which the package depends on: %v", err)
	}
	if exec.Command("dpkg", "-s", "imgfs").Run() == nil {
		t.Skip("imgfs is installed here as a package")
	}
	work := publicDir(t)
	for i, deb := range debs {
		if err := os.Link(deb, fmt.Sprintf("%s/%d.deb", work, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(work, "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := labimage.Write(filepath.Join(work, "image"), func(a *labimage.Archive) error {
		return errors.Join(a.Dir("etc"), a.File("etc/hello", "hello\n"))
	})
	if err != nil {
		t.Fatal(err)
	}
	database := readFile(t, "/var/lib/dpkg/status")
	script := filepath.Join(mustAbs(t, "testdata"), "debpackage.sh")
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", script, work)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if readFile(t, "/var/lib/dpkg/status") != database {
		t.Error("this system's database of packages changed")
	}
	checkLeft(t, filepath.Join(work, "left"))
}

// leftFine are files that dpkg, man and the dynamic linker change, whichever package comes
// or goes.
var leftFine = regexp.MustCompile(`^/(var/lib/(dpkg|man-db)|var/log|var/cache/(man|ldconfig|debconf))/|^/var/lib/systemd/deb-systemd|^/(etc|var/cache)/imgfs$|^/(root|tmp)/?`)

// checkLeft looks for what is not as it was in the changes that an overlay has.
func checkLeft(t *testing.T, upper string) {
	t.Helper()
	err := filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, upper)
		if err != nil || name == "" || leftFine.MatchString(name) {
			return err
		}
		was, err := os.Lstat(name)
		switch info, infoErr := d.Info(); {
		case infoErr != nil:
			return infoErr
		case err != nil:
			t.Errorf("%s is left behind", name)
		case info.Mode() != was.Mode():
			t.Errorf("%s is %v, and was %v", name, info.Mode(), was.Mode())
		case info.Mode().IsRegular() && readFile(t, path) != readFile(t, name):
			t.Errorf("%s is another file than before", name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// checkRPM inspects the packages, and installs them where nothing else is.
func checkRPM(t *testing.T, rpms []string) {
	need(t, "rpm")
	needRoot(t) // for --root
	for _, p := range rpms {
		if out := tool(t, "rpm", "-K", p); !strings.Contains(out, "digests OK") {
			t.Errorf("rpm -K: %s", out)
		}
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	about := tool(t, "rpm", "-qp", "--qf", "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{LICENSE} %{BUILDTIME}\n", rpms[0])
	if want := "imgfs 1.0.0-1 " + arch + " Apache-2.0 1700000000\n"; about != want {
		t.Errorf("the .rpm is %q, want %q", about, want)
	}
	if requires := tool(t, "rpm", "-qp", "--requires", rpms[0]); !slices.Contains(textLines(requires), "fuse3") {
		t.Errorf("it requires %q", requires)
	}
	if scripts := tool(t, "rpm", "-qp", "--scripts", rpms[0]); strings.TrimSpace(scripts) != "postinstall scriptlet (using /bin/sh):\n"+strings.TrimSpace(readFile(t, "package/postinst.rpm")) {
		t.Errorf("it has scripts: %s", scripts)
	}
	root := t.TempDir()
	rpm := func(args ...string) string {
		return tool(t, "rpm", append([]string{"--root", root}, args...)...)
	}
	rpm("--initdb")
	for i, p := range rpms {
		rpm("-U", "--nodeps", p)
		if out := rpm("-V", "--nodeps", "imgfs"); out != "" {
			t.Errorf("rpm -V: %s", out)
		}
		if got, want := tool(t, filepath.Join(root, "usr/bin/imgfs"), "version"), fmt.Sprintf("imgfs v1.0.%d\n", i); got != want {
			t.Errorf("installed is %q, want %q", got, want)
		}
	}
	rpm("-e", "--nodeps", "imgfs")
	for _, f := range filesBelow(t, root) {
		if !regexp.MustCompile(`/(rpm|\.rpmdb)/`).MatchString(f) { // its database
			t.Errorf("%s is left behind", f)
		}
	}
}

// checkInstall compares what make install makes with what is in the package.
func checkInstall(t *testing.T, deb string) {
	need(t, "dpkg-deb")
	packaged, installed := t.TempDir(), t.TempDir()
	tool(t, "dpkg-deb", "-x", deb, packaged)
	tool(t, "make", "-s", "--no-print-directory", "-C", "../..", "install-files", "PROGRAM="+imgfsBinary(t), "DESTDIR="+installed, "PREFIX=/usr", "ZSH=vendor-completions")
	var got []string
	for _, f := range filesBelow(t, packaged) {
		if !strings.Contains(f, "share/doc/") && !strings.Contains(f, "share/lintian/") {
			got = append(got, strings.TrimSuffix(f, ".gz"))
		}
	}
	want := filesBelow(t, installed)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the package has %q, make install makes %q", got, want)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// TestPackageVersion: what the packages of commits and tags are called, in the order in
// which dpkg and rpm take them for newer.
func TestPackageVersion(t *testing.T) {
	t.Parallel()
	need(t, "git", "dpkg", "rpm")
	dir := t.TempDir()
	build := writeFile(t, filepath.Join(dir, "cmd/imgfs/package/build"), readFile(t, "package/build"))
	run := func(env []string, name string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir), "VERSION="), env...)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := run(nil, "sh", build, "version"); err == nil || !strings.Contains(out, "hint: make package VERSION=1.2.3") {
		t.Errorf("without git: %v, %q", err, out)
	}
	for _, version := range []string{"x", "1.2", "1.2.3-", "1.2.3 4", "1.2.3\n4", "-1.2.3", "01.2.3", "1.2.3-a-b", "1.2.3~rc1", "../1.2.3", "\x1b[31m1.2.3"} {
		out, err := run([]string{"VERSION=" + version}, "sh", build, "version")
		if err == nil || !strings.Contains(out, " is no version\npackage: hint: VERSION=1.2.3") || strings.Contains(out, "\x1b") {
			t.Errorf("VERSION=%q: %v, %q", version, err, out)
		}
	}
	git := func(args ...string) {
		t.Helper()
		if out, err := run([]string{"GIT_COMMITTER_DATE=2026-01-02T03:04:05Z"}, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", ".")
	var versions []string
	for _, c := range []struct{ tag, pattern string }{
		{"", `0\.0\.0~dev\.20260102030405\.g[0-9a-f]{12}`},
		{"v0.1.0-rc.1", `0\.1\.0~rc\.1`},
		{"", `0\.1\.0~rc\.1\.dev\.20260102030405\.g[0-9a-f]{12}`},
		{"v0.1.0-rc.2", `0\.1\.0~rc\.2`},
		{"v0.1.0", `0\.1\.0`},
		{"", `0\.1\.1~dev\.20260102030405\.g[0-9a-f]{12}`},
		{"v0.1.1-rc.1", `0\.1\.1~rc\.1`},
		{"v0.1.1", `0\.1\.1`},
		{"v0.1.10", `0\.1\.10`},
	} {
		git("commit", "-q", "--allow-empty", "-m", "x")
		if c.tag != "" {
			git("tag", c.tag)
		}
		got, err := run(nil, "sh", build, "version")
		if err != nil || !regexp.MustCompile("^"+c.pattern+"$").MatchString(got) {
			t.Errorf("the version of %q: %v, %q, want %s", c.tag, err, got, c.pattern)
		}
		versions = append(versions, got)
	}
	for i := range versions[1:] {
		older, newer := versions[i], versions[i+1]
		if err := exec.Command("dpkg", "--compare-versions", older+"-1", "lt", newer+"-1").Run(); err != nil {
			t.Errorf("dpkg does not take %s for older than %s", older, newer)
		}
		if out := tool(t, "rpm", "--eval", fmt.Sprintf("%%{lua: print(rpm.vercmp('%s', '%s'))}", older, newer)); strings.TrimSpace(out) != "-1" {
			t.Errorf("rpm does not take %s for older than %s: %s", older, newer, out)
		}
	}
	writeFile(t, build, readFile(t, build)+"\n")
	if got, err := run(nil, "sh", build, "version"); err != nil || got != "0.1.10+dirty" {
		t.Errorf("of a changed file: %q, %v", got, err)
	}
}
