//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestMountArguments has arguments of mount that are the wrong way round, or that
// are options of mount(8) that cannot be.
func TestMountArguments(t *testing.T) {
	home := alone(t)
	t.Chdir(home)
	for _, dir := range []string{"mnt", "debian", "registry.test/a"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := labimage.Write("layout", small); err != nil {
		t.Fatal(err)
	}
	tool(t, "tar", "-C", "layout", "-cf", "image.tar", ".")
	const swapped = "mount: the arguments are the wrong way round"
	for _, c := range []struct {
		args       string
		says, hint string
	}{
		{"HOME/mnt fedora", swapped, "imgfs mount fedora HOME/mnt"},
		{"./mnt fedora:41", swapped, "imgfs mount fedora:41 ./mnt"},
		{". quay.io/a/b", swapped, "imgfs mount quay.io/a/b ."},
		{"mnt quay.io/a/b", swapped, "imgfs mount quay.io/a/b mnt"},
		{"mnt fedora", "mount: there is no directory fedora", "imgfs mount fedora mnt, if fedora is the image"},
		{"debian new", "mount: there is no directory new", "imgfs mount new debian, if new is the image"},
		{"HOME/none fedora", swapped, "imgfs mount fedora HOME/none"},
		{"mnt oci:HOME/layout", swapped, "imgfs mount oci:HOME/layout mnt"},
		{"./mnt ./layout", swapped, "imgfs mount ./layout ./mnt"},
		{"mnt image.tar", swapped, "imgfs mount image.tar mnt"},
		{"fedora:41 debian:12", "mount: debian:12 is the name of an image", "imgfs mount fedora:41 DIR"},
		{"oci:layout docker://debian", "mount: docker://debian is the name of an image", "imgfs mount oci:layout DIR"},
		{"fedora:HOME/mnt", "mount: fedora:HOME/mnt: an image and a directory are two words", "imgfs mount fedora HOME/mnt"},
		{"", "mount: an image is needed", "usage: imgfs mount [FLAGS] IMAGE [DIR]; imgfs help mount"},
		{"a b c", "mount: an image is needed", "usage: imgfs mount [FLAGS] IMAGE [DIR]; imgfs help mount"},
		{"-o rw x y", "mount: the option rw is not possible", "overlay"},
		{"-o ro,remount x y", "mount: the option remount is not possible", "imgfs umount DIR"},
		{"-o allow_ohter x y", "mount: there is no option allow_ohter", "-o allow_other"},
		{"-o frobnicate=1 x y", "mount: there is no option frobnicate", "-o takes ro"},
		{"-o detached x y", "mount: there is no option detached", "-o"},
		{"-o index-rep=host/x x y", "mount: there is no option index-rep", "-o index-repo"},
		{"-o index_trust=all x y", `mount: the option index_trust: invalid argument "all"`, "imgfs help mount"},
		{"-o version x y", "mount: there is no option version", "-o takes ro"},
		{"-o options=ro x y", "mount: there is no option options", "-o"},
		{"-o platform x y", "mount: the option platform needs a value", "imgfs help mount"},
		{"-o platform= x y", `mount: the option platform: invalid argument ""`, "imgfs help mount"},
		{"-o cache-size=much x y", `mount: the option cache-size: invalid argument "much"`, "imgfs help mount"},
		{"-o \x1b[2J x y", `mount: there is no option $'\033[2J'`, "-o takes ro"},
		{"-ro quay.io/a/b y", "mount: there is no option quay.io/a/b", "imgfs mount -o ro IMAGE DIR"},
		{"-o uid=1000 x y", "mount: the option uid is not possible", "owners and modes"},
		{"-w x y", "mount: what is mounted cannot be written", "overlay"},
		{"--rw x y", "mount: what is mounted cannot be written", "overlay"},
		{"-t ext4 x y", "mount: imgfs mounts images, and nothing of type ext4", "mount -t ext4"},
		{"--bind x y", "unknown flag: --bind", "mount --bind OLD NEW"},
		{"-d x y", "unknown shorthand flag: 'd' in -d", "leave it out"},
		{"-foreground x y", "-foreground: a flag of several letters", "--foreground"},
		{"--volume=x y", "unknown flag: --volume", "imgfs mount IMAGE DIR"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := append([]string{"mount"}, strings.Fields(strings.ReplaceAll(c.args, "HOME", home))...)
			checkRefusal(t, invoke(t, args...), cli.ExitUsage, []string{strings.ReplaceAll(c.says, "HOME", home)}, strings.ReplaceAll(c.hint, "HOME", home))
		})
	}
	for _, c := range []struct{ args, says, hint string }{
		{"--offline fedora ./none", "mount HOME/none: mountpoint does not exist", "mkdir HOME/none"},
		{"--offline fedora none", "mount HOME/none: mountpoint does not exist", "mkdir HOME/none"},
		{"mnt/", "mnt/: not an image: it is an empty directory", "imgfs mount IMAGE mnt/"},
		{"HOME/mnt", "HOME/mnt: not an image: it is an empty directory", "imgfs mount IMAGE HOME/mnt"},
	} {
		args := append([]string{"mount", "-f"}, strings.Fields(strings.ReplaceAll(c.args, "HOME", home))...)
		r := invoke(t, args...)
		if !strings.HasPrefix(c.args, "--") {
			checkRefusal(t, r, cli.ExitFailure, []string{strings.ReplaceAll(c.says, "HOME", home)}, strings.ReplaceAll(c.hint, "HOME", home))
		} else if r.code != cli.ExitFailure || !strings.Contains(r.stderr, "mountpoint does not exist\nimgfs: hint: mkdir ") {
			t.Errorf("imgfs %q: got exit code %d and\n%s", args, r.code, r.stderr)
		}
	}
	if left, err := filepath.Glob(home + "/imgfs/*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left, error %v", left, err)
	}
}

// TestMountOptions mounts with options and flags as mount(8) has them.
func TestMountOptions(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	for _, c := range []struct {
		flags, shows, hides string
	}{
		{"-o ro", "ro,", "noexec"},
		{"-r -t fuse.imgfs -n", "ro,nosuid,nodev,", "noexec"},
		{"-o ro,noatime,nosuid,nodev,_netdev,nofail,x-systemd.automount,user,defaults -t imgfs", "ro,nosuid,nodev,", "noexec"},
		{"--options=noexec,platform=linux/amd64 -o cache_dir=other,offline=false,quiet", "noexec", "allow_other"},
	} {
		dir := s.mountpoint()
		s.ok(append(append([]string{"mount"}, strings.Fields(c.flags)...), image, dir)...)
		line := mountLine(t, dir)
		if !strings.Contains(line, c.shows) || c.hides != "" && strings.Contains(line, c.hides) {
			t.Errorf("with %s: the mount is %q, want %q and not %q", c.flags, line, c.shows, c.hides)
		}
		s.umount(dir)
	}
	repo := registrytest.New(t, &registrytest.Options{Writable: true})
	s.ok("index", "push", "--to", repo.Host()+"/b", "--cache-dir", t.TempDir(), image)
	dir := s.mount(image, "-o", "index_repo="+repo.Host()+"/a,index-repo="+repo.Host()+"/b,index-trust=bound,index-trust=published", "--cache-dir", t.TempDir())
	if l := s.stats(dir).Layers; len(l) != 1 || !strings.HasPrefix(l[0].Index.From, repo.Host()+"/b@") {
		t.Errorf("with -o index-repo: got %+v", l)
	}
	s.umount(dir)
	if _, err := os.Stat(filepath.Join(s.dir, "other", "version")); err != nil {
		t.Errorf("-o cache_dir had no effect: %v", err)
	}
	if os.Geteuid() == 0 {
		dir := s.mount(image, "-o", "allow_other")
		if line := mountLine(t, dir); !strings.Contains(line, "allow_other") {
			t.Errorf("the mount is %q, want allow_other", line)
		}
		s.umount(dir)
	}
}

// mountLine returns the line of a mount in /proc/self/mountinfo.
func mountLine(t *testing.T, dir string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, fmt.Sprintf(" %s ", dir)) {
			return line
		}
	}
	t.Fatalf("%s is not in the mount table", dir)
	return ""
}
