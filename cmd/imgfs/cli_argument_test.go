//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFileArguments has the forms in which ls and cat take images and paths, with
// registries and with files.
func TestFileArguments(t *testing.T) {
	home := alone(t)
	t.Chdir(home)
	reg := registrytest.New(t, nil)
	first, _ := publish(t, reg, small)
	layout := filepath.Join(home, "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		return errors.Join(a.Dir("etc"), a.File("etc/os-release", "NAME=other\n"), a.File("etc/two\nlines", "odd\n"), a.Symlink("link", "etc"), a.File("x:/y", "colon\n"))
	}); err != nil {
		t.Fatal(err)
	}
	tag := ":" + labimage.Tag
	cache := "--cache-dir=" + t.TempDir()
	for _, c := range []struct {
		args []string
		want string
		says string // on stderr; then the exit code is 1
	}{
		{[]string{"cat", first + ":/etc/os-release"}, "NAME=small\n", ""},
		{[]string{"cat", "docker://" + first + ":/etc/os-release"}, "NAME=small\n", ""},
		{[]string{"cat", strings.TrimSuffix(first, ":latest") + ":/etc/os-release"}, "NAME=small\n", ""},
		{[]string{"cat", "oci:layout:/etc/os-release"}, "NAME=other\n", ""},
		{[]string{"cat", "oci:layout" + tag + ":/etc/os-release"}, "NAME=other\n", ""},
		{[]string{"cat", "oci:" + layout + ":/etc/os-release"}, "NAME=other\n", ""},
		{[]string{"cat", "oci:" + layout + tag + ":/etc/two\nlines"}, "odd\n", ""},
		{[]string{"cat", "oci:layout:/x:/y"}, "colon\n", ""},
		{[]string{"cat", "oci:layout", "x:/y"}, "colon\n", ""},
		{[]string{"cat", "oci:layout:/link/../etc/./os-release"}, "NAME=other\n", ""},
		{[]string{"cat", "oci:layout://etc//os-release"}, "NAME=other\n", ""},
		{[]string{"cat", first + ":/etc/os-release", "oci:layout:/etc/os-release", "/x:/y", first + ":/os-release", "/etc/os-release"},
			"NAME=small\nNAME=other\ncolon\nNAME=small\nNAME=small\n", ""},
		{[]string{"cat", "oci:layout:/etc/os-release/"}, "", "oci:layout:/etc/os-release/: not a directory\n"},
		{[]string{"cat", "oci:layout:/no", "oci:layout:/etc/os-release", "/no"}, "NAME=other\n",
			"oci:layout:/no: no such file or directory\nimgfs: oci:layout: /no: no such file or directory\n"},
		{[]string{"cat", "oci:layout:/etc/two\nlin"}, "", `oci:layout:/etc/two\nlin: no such file or directory` + "\n"},
		{[]string{"ls", "oci:layout:/etc"}, "os-release\ntwo\nlines\n", ""},
		{[]string{"ls", "oci:layout:/"}, "etc\nlink\nx:\n", ""},
		{[]string{"ls", "oci:layout:/link"}, "os-release\ntwo\nlines\n", ""},
		{[]string{"ls", "oci:layout:/etc/os-release"}, "oci:layout:/etc/os-release\n", ""},
		{[]string{"ls", "oci:layout:/etc", first + ":/etc/", "/os-release"}, "/os-release\n\n" + first + ":/etc/:\nos-release\n\noci:layout:/etc:\nos-release\ntwo\nlines\n", ""},
		{[]string{"ls", "-R", "oci:layout:/"}, "oci:layout:/:\netc\nlink\nx:\n\noci:layout:/etc:\nos-release\ntwo\nlines\n\noci:layout:/x::\ny\n", ""},
		{[]string{"ls", "oci:nowhere:/etc", "oci:layout:/link", "oci:nowhere:/usr", "/bin"}, "oci:layout:/link:\nos-release\ntwo\nlines\n",
			"oci:nowhere:/etc: oci:nowhere: not an OCI image layout: index.json: not found: stat nowhere/index.json: no such file or directory\nimgfs: hint: that was read as imgfs ls oci:nowhere /etc\n"},
		{[]string{"ls", "oci:layout", "oci:layout:/etc"}, "", "oci:layout: oci:layout:/etc: no such file or directory\nimgfs: hint: files of several images are oci:layout:/PATH and oci:layout:/etc\n"},
	} {
		r := invoke(t, append([]string{c.args[0], "-q", cache}, c.args[1:]...)...)
		says := ""
		if c.says != "" {
			says = "imgfs: " + c.says
		}
		if r.stdout != c.want || r.stderr != says || (r.code == cli.ExitFailure) != (c.says != "") || r.code == cli.ExitUsage {
			t.Errorf("imgfs %q: got exit code %d,\n%s\non stderr\n%s\nwant\n%s\nand\n%s", c.args, r.code, r.stdout, r.stderr, c.want, says)
		}
	}
}

// TestFileArgumentsOnce counts how often an image is asked for that several arguments
// name.
func TestFileArgumentsOnce(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	name, _ := publish(t, reg, small)
	succeed(t, "cat", "-q", "--cache-dir", t.TempDir(), name+":/etc/os-release")
	once := reg.Count(registrytest.Manifest)
	args := []string{"cat", "-q", "--cache-dir", t.TempDir(), name + ":/etc/os-release", "/os-release", name + ":/conf/os-release"}
	if succeed(t, args...); reg.Count(registrytest.Manifest) != 2*once {
		t.Errorf("got %d requests for manifests, want %d as with one argument", reg.Count(registrytest.Manifest)-once, once)
	}
	reg.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(404)))
	r := invoke(t, append([]string{"cat", "-q", "--cache-dir", t.TempDir()}, args[4:]...)...)
	if r.code != cli.ExitFailure || strings.Count(r.stderr, "not found") != 1 {
		t.Errorf("got exit code %d and\n%swant %d and the error once", r.code, r.stderr, cli.ExitFailure)
	}
}

// TestFileArgumentsRefused has what no file is meant by.
func TestFileArgumentsRefused(t *testing.T) {
	home := alone(t)
	t.Chdir(home)
	if _, err := labimage.Write("layout", small); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
		hint string
	}{
		{[]string{"ls", "127.0.0.1:1/a/b:/etc"}, cli.ExitFailure, "127.0.0.1:1/a/b:/etc: 127.0.0.1:1/a/b:latest: unavailable", "imgfs ls 127.0.0.1:1/a/b /etc"},
		{[]string{"cat", "127.0.0.1:1/a/b:v1:/etc/it's"}, cli.ExitFailure, "127.0.0.1:1/a/b:v1: unavailable", `imgfs cat 127.0.0.1:1/a/b:v1 '/etc/it'\''s'`},
		{[]string{"cat", "Fedora:/etc/passwd"}, cli.ExitFailure, `Fedora:/etc/passwd: invalid reference: "Fedora"`, "fedora\n"},
		{[]string{"ls", "a:/etc", "usr"}, cli.ExitUsage, "ls: usr is neither IMAGE:/PATH nor a path that begins with a slash", "usr:/ if it is an image, /usr if it is a path"},
		{[]string{"cat", "a:/etc", "b:41"}, cli.ExitUsage, "cat: b:41 is neither", "b:41:/ if it is an image"},
		{[]string{"ls", ":/etc"}, cli.ExitFailure, `":/etc" is not an image's name`, ""},
		{[]string{"ls", "https://127.0.0.1:1/a"}, cli.ExitFailure, `leave out "https://"`, ""},
		{[]string{"ls", "dir:/srv/x:/etc"}, cli.ExitFailure, "imgfs does not read dir:", ""},
		{[]string{"cat", "a"}, cli.ExitUsage, "at least one path", "imgfs help cat"},
		{[]string{"inspect", "a/b:v1:/etc"}, cli.ExitUsage, "inspect: a/b:v1:/etc: it takes a whole image, and no path such as /etc", "imgfs inspect a/b:v1\n"},
		{[]string{"index", "oci:dir:/etc"}, cli.ExitUsage, "index: oci:dir:/etc: it takes a whole image", "imgfs index oci:dir\n"},
		{[]string{"ls", "oci:layout/etc"}, cli.ExitFailure, "oci:layout/etc: ", "imgfs ls oci:layout:/etc, if"},
		{[]string{"ls", "./layout/etc/x"}, cli.ExitFailure, "./layout/etc/x: ", "imgfs ls ./layout:/etc/x, if"},
		{[]string{"ls", "oci:layout:latest/etc/x"}, cli.ExitFailure, `no image "latest/etc/x"`, "imgfs ls oci:layout:latest:/etc/x, if"},
		{[]string{"cat", "oci:layout/etc"}, cli.ExitUsage, "no path", "imgfs cat oci:layout:/etc, if"},
		{[]string{"cat", "localhost:1/a:v1/etc/passwd", "/x"}, cli.ExitFailure, "not an image's name", "imgfs cat localhost:1/a:v1:/etc/passwd, if"},
		{[]string{"ls", "oci:layout:"}, cli.ExitFailure, "nothing follows the last colon", "imgfs ls oci:layout:/, if"},
		{[]string{"cat", "oci:layout:etc/os-release", "x"}, cli.ExitFailure, `no image "etc/os-release"`, "imgfs cat oci:layout:/etc/os-release, if"},
		{[]string{"ls", "oci:layout:usr"}, cli.ExitFailure, `no image "usr"`, "imgfs ls oci:layout:/usr, if"},
		{[]string{"ls", "127.0.0.1:1/a:etc"}, cli.ExitFailure, "127.0.0.1:1/a:etc: unavailable", "imgfs ls 127.0.0.1:1/a:/etc, if"},
		{[]string{"ls", "-q", "oci:layout:/etc/*.conf"}, cli.ExitFailure, "oci:layout:/etc/*.conf: no such file", "imgfs ls oci:layout /etc lists"},
		{[]string{"cat", "-q", "oci:layout", "etc/[ab]"}, cli.ExitFailure, "oci:layout: etc/[ab]: no such file", "imgfs ls oci:layout /etc lists"},
		{[]string{"ls", "oci:layout:41/etc"}, cli.ExitFailure, `no image "41/etc"`, "imgfs ls oci:layout:41:/etc, if"},
		{[]string{"ls", "[::1]:1/a/etc"}, cli.ExitFailure, "[::1]:1/a/etc:latest: unavailable", ""},
		{[]string{"ls", "oci:nothing/etc"}, cli.ExitFailure, "not an OCI image layout", ""},
		{[]string{"ls", "127.0.0.1:1/a/b"}, cli.ExitFailure, "127.0.0.1:1/a/b:latest: unavailable", ""},
		{[]string{"ls", "127.0.0.1:1/a", "fedora:41"}, cli.ExitFailure, "127.0.0.1:1/a:latest: unavailable", ""},
		{[]string{"ls", "-q", "oci:layout", "fedora:41"}, cli.ExitFailure, "oci:layout: fedora:41: no such file", "files of several images are oci:layout:/PATH and fedora:41:/PATH"},
		{[]string{"cat", "-q", "oci:layout", ""}, cli.ExitFailure, `oci:layout: "": no such file`, ""},
		{[]string{"ls", "-q", "oci:layout", ""}, cli.ExitFailure, `oci:layout: "": no such file`, ""},
		{[]string{"cat", "/etc/os-release", "fedora:41"}, cli.ExitFailure, "/etc/os-release: not an image", "the image comes first: imgfs cat fedora:41 /etc/os-release"},
		{[]string{"ls", "/etc", "fedora"}, cli.ExitFailure, "/etc: not an image", "the image comes first: imgfs ls fedora /etc"},
		{[]string{"ls", "/nothing/there", "quay.io/a/b"}, cli.ExitFailure, "/nothing/there: no such file", "the image comes first: imgfs ls quay.io/a/b /nothing/there"},
		{[]string{"cat", "a", "-"}, cli.ExitUsage, "cat: - is standard input", "./-"},
		{[]string{"cat", "-n", "a", "b"}, cli.ExitUsage, "'n'", "imgfs cat IMAGE PATH | cat -n"},
		{[]string{"cat", "--show-all", "a", "b"}, cli.ExitUsage, "--show-all", "imgfs cat IMAGE PATH | cat -A"},
		{[]string{"ls", "--colour", "a"}, cli.ExitUsage, "--colour", "--color"},
		{[]string{"umount", "a:v1:/etc"}, cli.ExitFailure, "umount: a:v1:/etc: it takes a whole image", "imgfs umount a:v1\n"},
		{[]string{"stats", "oci:layout:/etc"}, cli.ExitUsage, "stats: oci:layout:/etc: it takes a whole image", "imgfs stats oci:layout\n"},
		{[]string{"mount", ".", "a:/etc"}, cli.ExitUsage, "mount: a:/etc: it takes a whole image", "imgfs mount a . && ls ./etc\n"},
		{[]string{"mount", "a:/etc", "mnt/"}, cli.ExitUsage, "mount: a:/etc: it takes a whole image", "imgfs mount a mnt/ && ls mnt/etc\n"},
		{[]string{"mount", "-f", "oci:a b:/etc", "mnt"}, cli.ExitUsage, "mount: oci:a b:/etc: it takes a whole image", "imgfs mount 'oci:a b' mnt && ls mnt/etc\n"},
	} {
		checkRefusal(t, invoke(t, c.args...), c.code, []string{c.says}, c.hint)
	}
	if left, err := os.ReadDir(filepath.Join(home, "mnt")); err == nil {
		t.Errorf("mnt was made, with %d files", len(left))
	}
}

// TestMissingColon has names that can be an image and a path in it, and others.
func TestMissingColon(t *testing.T) {
	for name, want := range map[string]string{
		"fedora:41/etc": "fedora:41:/etc", "fedora:latest/etc/passwd": "fedora:latest:/etc/passwd", "quay.io/a/b:v1/etc": "quay.io/a/b:v1:/etc", "localhost:5000/a:v1/etc": "localhost:5000/a:v1:/etc",
		"docker://fedora:41/etc": "docker://fedora:41:/etc", "fedora:etc": "fedora:/etc", "fedora:usr/bin": "fedora:/usr/bin", "fedora:": "fedora:/", "oci:dir:": "oci:dir:/",
		"docker-archive:a.tar:x/y:v1/etc": "docker-archive:a.tar:x/y:v1:/etc",
		"fedora":                          "", "fedora:41": "", "fedora:dev": "", "localhost:5000/a": "", "localhost:50/a": "", "registry:5000/team/app": "", "harbor:443/a/b": "", "10.0.0.1:81/a": "", "quay.io/a/b": "", "[::1]:81/a": "",
		"": "", ":": "", "oci:": "", "oci:dir:v1": "", "fedora@sha256:0000000000000000000000000000000000000000000000000000000000000000": "",
	} {
		if got := missingColon(t.Context(), name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// TestFoundImageIsNoPath: where the image is there, and cannot be read, nothing is said of
// a path that its name may have been meant to have.
func TestFoundImageIsNoPath(t *testing.T) {
	t.Chdir(alone(t))
	store := sourcetest.NewStore()
	gone := []byte("gone")
	chart := store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: store.Put("application/vnd.cncf.helm.config.v1+json", []byte("{}"))})
	lost := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: gone}}})
	bad := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: []byte(strings.Repeat("no tar\n", 200))}}})
	store.Delete(digest.FromBytes(gone))
	if err := store.WriteLayout("layout", sourcetest.Tagged(chart, "lib/chart:latest"), sourcetest.Tagged(lost, "lib/lost:latest"), sourcetest.Tagged(bad, "lib/bad:latest")); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{"lib/chart": "a Helm chart", "lib/lost": "not found", "lib/bad": "invalid tar"} {
		for _, args := range [][]string{{"ls", "oci:layout:" + name}, {"cat", "oci:layout:" + name + ":/etc"}} {
			r := invoke(t, args...)
			checkRefusal(t, r, cli.ExitFailure, []string{args[1] + ": ", says}, "")
			if strings.Contains(r.stderr, "hint") {
				t.Errorf("%q: got a hint:\n%s", args, r.stderr)
			}
		}
	}
	checkRefusal(t, invoke(t, "ls", "oci:layout:lib/none"), cli.ExitFailure, []string{`no image "lib/none"`}, "imgfs ls oci:layout:/lib/none, if")
}
