//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// storeLayers are those of an image with all kinds of files, two of which are hidden.
func storeLayers() []labimage.Layer {
	old := labimage.ModTime(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC))
	return []labimage.Layer{
		func(a *labimage.Archive) error {
			errs := []error{a.Dir("etc", old), a.File("etc/conf", "one", old), a.File("etc/gone", "gone", old), a.Dir("opaque", old), a.File("opaque/gone", "gone", old),
				a.File("etc/private", "private", old, labimage.Mode(0o600), labimage.Owner(1, 2)), a.File("etc/suid", "suid", old, labimage.Mode(0o4711)), a.Link("etc/hard", "etc/private", old),
				a.Symlink("link", "etc/conf", old), a.Fifo("fifo", old), a.Device("null", '3', 1, 3, old), a.File("xattr", "x", old, labimage.Xattr("user.a", "b\x00c")),
				a.File("big", strings.Repeat("0123456789abcdef", 1<<16), old), a.File("empty", "", old)}
			errs = append(errs, a.Dir("names", old))
			for _, name := range []string{"a\nb", "a\xffb", " ", "日本", "\x1b[2J"} {
				errs = append(errs, a.File("names/"+name, name, old))
			}
			return errors.Join(errs...)
		},
		func(a *labimage.Archive) error {
			return errors.Join(a.Dir("etc", old), a.File("etc/conf", "two and more", old), a.Whiteout("etc/gone"), a.Dir("opaque", old), a.Opaque("opaque"), a.File("opaque/new", "new", old))
		},
	}
}

// dumpOfImage returns the dump of an image's tree, without what its root is itself.
func dumpOfImage(t *testing.T, name string) dump {
	t.Helper()
	img, err := image.Open(t.Context(), name, &image.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return withoutRoot(dumpOfTree(t, img.Tree()))
}

func withoutRoot(d dump) dump {
	delete(d, `""`)
	delete(d, `"/"`)
	return d
}

// compareInspect compares inspect with skopeo's, which has less.
func compareInspect(t *testing.T, got, want string) {
	t.Helper()
	var g, w map[string]any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatalf("%v\n%s\n%s", err, got, want)
	}
	for key := range w {
		if !reflect.DeepEqual(g[key], w[key]) {
			t.Errorf("inspect: %s is %v, and for skopeo %v", key, g[key], w[key])
		}
	}
}

// TestContainersStorage reads an image where podman has it, and compares the tree with
// the one that podman mounts.
func TestContainersStorage(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	need(t, "podman", "skopeo")
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, storeLayers()...); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			root, run := publicDir(t), publicDir(t)
			t.Cleanup(func() { _ = unix.Unmount(filepath.Join(root, driver), unix.MNT_DETACH) })
			spec := "containers-storage:[" + driver + "@" + root + "]localhost/app:v1"
			copied := strings.Replace(spec, "]", "+"+run+"]", 1)
			if out, err := exec.Command("skopeo", "copy", "-q", "--preserve-digests", "oci:"+layout+":"+labimage.Tag, copied).CombinedOutput(); err != nil {
				t.Skipf("skopeo cannot write a store with the driver %s here: %v\n%s", driver, err, out)
			}
			podman := func(args ...string) string {
				return tool(t, "podman", append([]string{"--root", root, "--runroot", run, "--storage-driver", driver, "--log-level", "error"}, args...)...)
			}
			dir := strings.TrimSpace(podman("image", "mount", "localhost/app:v1"))
			want := withoutRoot(dumpOf(t, account{}, dir))
			compare(t, "imgfs", dumpOfImage(t, spec), "podman", want)
			podman("image", "unmount", "localhost/app:v1")

			// stderr has what skopeo says of the driver.
			out, err := exec.Command("skopeo", "inspect", copied).Output()
			if err != nil {
				t.Fatalf("skopeo inspect: %v", err)
			}
			compareInspect(t, succeed(t, "inspect", spec), string(out))
			for _, name := range []string{"app:v1", "localhost/app:v1@sha256:" + strings.Repeat("0", 64)} {
				r := invoke(t, "cat", strings.Replace(spec, "localhost/app:v1", name, 1)+":/etc/conf")
				if found := name == "app:v1"; found && r.stdout != "two and more" || !found && !strings.Contains(r.stderr, "no image") {
					t.Errorf("%s: got %q and %q", name, r.stdout, r.stderr)
				}
			}
			if blobs := filesBelow(t, filepath.Join(os.Getenv("HOME"), ".cache/imgfs/blobs")); len(blobs) > 0 {
				t.Errorf("of the layers the cache has %q", blobs)
			}

			// A file is another one, and then the image is gone.
			files, err := filepath.Glob(filepath.Join(root, driver, map[string]string{"overlay": "*/diff/big", "vfs": "dir/*/big"}[driver]))
			if err != nil || len(files) == 0 {
				t.Fatalf("podman's file is not found: %v", err)
			}
			for _, file := range files {
				f, err := os.OpenFile(file, os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteAt([]byte("X"), 70_000)
					err = errors.Join(err, f.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			r := invoke(t, "cat", spec+":/big")
			checkRefusal(t, r, cli.ExitFailure, []string{"big"}, "")
			if strings.Contains(r.stdout, "X") {
				t.Error("wrong bytes were printed")
			}
			podman("rmi", "-f", "localhost/app:v1")
			checkRefusal(t, invoke(t, "cat", spec+":/etc/conf"), cli.ExitFailure, []string{"no image"}, "")
		})
	}
}

// startContainerd runs a containerd of its own, and returns its root and what runs ctr.
func startContainerd(t *testing.T) (root string, ctr func(args ...string) string) {
	t.Helper()
	dir := publicDir(t)
	root = filepath.Join(dir, "root")
	socket := filepath.Join(dir, "s")
	conf := writeFile(t, filepath.Join(dir, "config.toml"), "version = 2\nroot = \""+root+"\"\nstate = \""+filepath.Join(dir, "state")+"\"\n"+
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \""+socket+"\"\n")
	cmd := exec.Command("containerd", "-c", conf, "-l", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	})
	ctr = func(args ...string) string { return tool(t, "ctr", append([]string{"-a", socket}, args...)...) }
	for range 100 {
		if exec.Command("ctr", "-a", socket, "version").Run() == nil {
			return root, ctr
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("containerd does not answer")
	return "", nil
}

// TestContainerd reads an image where a running containerd has it, and compares the tree
// with the one that ctr mounts.
func TestContainerd(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	need(t, "containerd", "ctr")
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, storeLayers()...); err != nil {
		t.Fatal(err)
	}
	root, ctr := startContainerd(t)
	archive := filepath.Join(t.TempDir(), "oci.tar")
	tool(t, "tar", "-C", layout, "-cf", archive, ".")
	ctr("-n", "lab", "images", "import", "--snapshotter", "native", "--base-name", "example.com/app", archive)
	name := strings.Fields(ctr("-n", "lab", "images", "ls", "-q"))[0]
	on := publicDir(t)
	ctr("-n", "lab", "images", "mount", "--snapshotter", "native", name, on)
	want := withoutRoot(dumpOf(t, account{}, on))
	if err := unix.Unmount(on, 0); err != nil {
		t.Error(err)
	}
	spec := "containerd:[lab@" + root + "]"
	compare(t, "imgfs", dumpOfImage(t, spec+name), "containerd", want)
	if got := succeed(t, "cat", spec+"app:/etc/conf"); got != "two and more" {
		t.Errorf("of the short name there is %q", got)
	}
	t.Setenv("CONTAINERD_NAMESPACE", "lab")
	compareInspect(t, succeed(t, "inspect", "containerd:["+root+"]"+name), succeed(t, "inspect", "oci:"+layout))

	// A layer was discarded.
	blobs := filepath.Join(root, "io.containerd.content.v1.content/blobs/sha256")
	var in struct{ Layers []string }
	if err := json.Unmarshal([]byte(succeed(t, "inspect", spec+name)), &in); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(blobs, strings.TrimPrefix(in.Layers[0], "sha256:"))); err != nil {
		t.Fatal(err)
	}
	r := invoke(t, "--cache-dir", t.TempDir(), "ls", spec+name)
	checkRefusal(t, r, cli.ExitFailure, []string{"containerd has discarded it"}, "ctr -n lab content fetch "+name)
	checkRefusal(t, invoke(t, "ls", "containerd:[other@"+root+"]x"), cli.ExitFailure, []string{`no namespace "other"; there is "lab"`}, "")
}
