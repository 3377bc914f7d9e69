//go:build linux

package main

import (
	"archive/tar"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestPathOfAnImage: what lies at a path is read, and what it was taken for is said.
func TestPathOfAnImage(t *testing.T) {
	home := alone(t)
	layout := filepath.Join(home, "layout")
	if _, err := labimage.Write(layout, small); err != nil {
		t.Fatal(err)
	}
	t.Chdir(home)
	tool(t, "tar", "-C", layout, "-cf", "image.tar", ".")
	for _, name := range []string{"./layout", "layout/", layout, "./layout:" + labimage.Tag, "~/layout", "image.tar", "./image.tar:" + labimage.Tag} {
		for _, command := range []string{"ls", "index", "inspect"} {
			r := invoke(t, command, name)
			says := "imgfs: reading oci:" + layout
			if strings.Contains(name, ".tar") {
				says = "imgfs: reading oci-archive:" + home + "/image.tar"
			}
			if r.code != 0 || strings.Count(r.stderr, "reading") != 1 || !strings.HasPrefix(r.stderr, says) {
				t.Errorf("imgfs %s %s: got exit code %d and\n%swant 0 and %q once", command, name, r.code, r.stderr, says)
			}
		}
		if r := invoke(t, "-q", "cat", name, "etc/os-release"); r.stdout != "NAME=small\n" || r.stderr != "" {
			t.Errorf("imgfs -q cat %s: got %q and on stderr %q", name, r.stdout, r.stderr)
		}
	}
	writeFile(t, filepath.Join(home, "root/etc/passwd"), "")
	if err := os.Mkdir(filepath.Join(home, "root/usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(home, "export.tar"), string(tarOf(t, tar.Header{Name: "etc/passwd"}, tar.Header{Name: "usr/bin/x"})))
	for _, c := range []struct{ name, says, hint string }{
		{"./root", "./root: it is a directory tree that is no image", ""},
		{"export.tar", "export.tar: it is a tar of a root file system, as docker export writes it, which is no image", "skopeo copy tarball:export.tar"},
		{"./none\x1b[2J", `./none\x1b[2J: no such file or directory`, ""},
		{"oci:layout:lastest", `no image "lastest"; there is "latest"`, "hint: oci:layout:latest\n"},
		{"./layout:LATEST", `no image "LATEST"; there is "latest"`, "hint: oci:" + layout + ":latest\n"},
		{"image.tar:v1", `no image "v1"; there is "latest"`, ""},
		{"oci:~/layout", "oci:~/layout: ", `oci:"$HOME"/layout`},
		{"oci://quay.io/a/b:v1", "oci://quay.io/a/b:v1: ", "docker://quay.io/a/b:v1"},
	} {
		checkRefusal(t, invoke(t, "-q", "ls", c.name), cli.ExitFailure, []string{c.says}, c.hint)
	}
}

// TestReferenceBeforePath: a name that is a reference is that, whatever lies beside
// it. When there is no such image the hint names what lies there.
func TestReferenceBeforePath(t *testing.T) {
	home := alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	t.Chdir(home)
	name := reg.Host() + "/app"
	if err := os.Mkdir(reg.Host(), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := labimage.Write(name, func(a *labimage.Archive) error { return a.File("local", "") }); err != nil {
		t.Fatal(err)
	}
	if got := succeed(t, "ls", image, "/etc"); got != "os-release\n" {
		t.Errorf("of the registry's image there is listed %q", got)
	}
	reg.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(404)))
	cache := t.TempDir()
	r := invoke(t, "--cache-dir", cache, "ls", name)
	checkRefusal(t, r, cli.ExitFailure, []string{name + ":latest: not found"}, "")
	if err := os.Rename(reg.Host(), "registry.invalid"); err != nil {
		t.Fatal(err)
	}
	r = invoke(t, "--cache-dir", cache, "--offline", "ls", "registry.invalid/app")
	checkRefusal(t, r, cli.ExitFailure, []string{"registry.invalid/app:latest"}, "if what lies here is meant: oci:registry.invalid/app")
}

// TestMistypedName has names that are none, and what they were meant to be.
func TestMistypedName(t *testing.T) {
	alone(t)
	for typed, hint := range map[string]string{
		"Fedora:41": "hint: fedora:41", "docker pull fedora": "hint: fedora", "https://hub.docker.com/_/fedora": "hint: fedora", "fedora\n": "hint: fedora",
		"fedora@sha256:12": "hint: a digest is whole", "file:///x/y": "hint: /x/y", "ocidir:./x": "hint: oci:./x", "oci-layout:./x": "hint: oci:./x",
		"docker-daemon:fedora": "hint: docker save -o image.tar fedora && ",
		"dir:/x":               "hint: skopeo copy dir:/x oci:DIR", "quay.io/a/b/": "hint: quay.io/a/b",
	} {
		checkRefusal(t, invoke(t, "--offline", "ls", typed), cli.ExitFailure, nil, hint)
	}
}

// TestMistypedTag: if there is no such tag, those like it are named, for one request.
func TestMistypedTag(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	name := strings.TrimSuffix(image, ":latest")
	reg.Inject(registrytest.Tags, registrytest.Always(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		fmt.Fprintf(w, `{"name":"app","tags":["latest","v1.0","v1.1","3","4","5","6","7","8","%s"]}`, strings.Repeat("x", 200))
	}))
	for _, c := range []struct{ tag, hint string }{
		{"lastest", name + ":latest\n"},
		{"Latest", name + ":latest\n"},
		{"v1.2", name + ":v1.0 or " + name + ":v1.1\n"},
		{"frobnicated", "there are the tags latest, v1.0, v1.1, 3, 4, 5, 6, 7, ...\n"},
	} {
		for _, command := range [][]string{{"ls"}, {"inspect"}, {"inspect", "--raw"}, {"inspect", "--config"}} {
			reg.Forget()
			checkRefusal(t, invoke(t, append(command, name+":"+c.tag)...), cli.ExitFailure, []string{name + ":" + c.tag + ": not found"}, c.hint)
			if n := reg.Count(registrytest.Tags); n != 1 {
				t.Errorf("%d requests for tags, want one", n)
			}
		}
	}
	// A digest has no tags beside it, and a tag that is listed is not what is missing.
	reg.Forget()
	invoke(t, "ls", name+"@sha256:"+strings.Repeat("0", 64))
	if n := reg.Count(registrytest.Tags); n != 0 {
		t.Errorf("for a digest %d requests for tags", n)
	}
	reg.Inject(registrytest.Manifest, registrytest.Always(registrytest.Status(404)))
	if r := invoke(t, "ls", name+":3"); strings.Contains(r.stderr, "hint") {
		t.Errorf("a hint for a tag that is there:\n%s", r.stderr)
	}
	reg.Inject(registrytest.Manifest, nil)
	reg.Inject(registrytest.Tags, registrytest.Always(func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		fmt.Fprint(w, `{"name":"app","tags":["\u001b[2Jx"]}`)
	}))
	checkRefusal(t, invoke(t, "ls", name+":v1"), cli.ExitFailure, nil, `there are the tags $'\033[2Jx'`)
}
