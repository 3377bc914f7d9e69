//go:build linux

package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// systemctl is what stands for systemd: it starts what its units would.
const systemctl = `#!/bin/sh
listens() { for i in $(seq 200); do [ -S "$1" ] && return; sleep 0.1; done; cat $H/log >&2; exit 1; }
case "$*" in
"enable --now imgfs-snapshotter.socket") imgfs snapshotter >>$H/log 2>&1 & listens /run/imgfs/snapshotter.sock;;
"restart containerd") containerd >>$H/log 2>&1 & listens /run/containerd/containerd.sock;;
*) echo "systemctl $*: what is that?" >&2; exit 1;;
esac
`

// TestEnginesDocContainerd runs what docs/engines.md shows of containerd, on a machine of its
// own as far as that goes: in namespaces with other directories for configuration, files and
// sockets. A registry of ours stands for Docker Hub.
func TestEnginesDocContainerd(t *testing.T) {
	testenv.Slow(t)
	e := builtEngine(t)
	_, section, _ := strings.Cut(readDoc(t, "docs/engines.md"), "\n### From nothing to a container, on containerd\n")
	section, _, _ = strings.Cut(section, "\n##")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks, want one", len(blocks))
	}
	layout := runnableWith(t, "busybox", func(a *labimage.Archive) error {
		return a.File("usr/local/bin/node", "#!/bin/sh\ntest \"$1\" = -e && echo \"run: $2\"\n", labimage.Mode(0o755))
	})
	image := pushedLayout(t, registrytest.New(t, nil), layout, "library/node")
	const inDocs = "docker.io/library/node:22"
	if n := strings.Count(blocks[0][1], inDocs); n != 2 {
		t.Fatalf("%s is named %d times, want 2", inDocs, n)
	}
	writeFile(t, filepath.Join(e.dir, "docs.sh"), "set -e\n"+strings.ReplaceAll(blocks[0][1], inDocs, image)+"echo blobs: $(ctr content ls -q | wc -l)\n")
	writeFile(t, filepath.Join(e.dir, "bin", "systemctl"), systemctl)
	tool(t, "chmod", "755", filepath.Join(e.dir, "bin", "systemctl"))
	// What is written is below $H, and goes with it.
	const setup = `mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run || exit 120
		mkdir -p $H/etc $H/lib && cp -a /etc/. $H/etc && mount --bind $H/etc /etc && mount --bind $H/lib /var/lib || exit 120
		mkdir -p /etc/containerd && rm -f /etc/containerd/config.toml && mkdir -p /run/imgfs
		sh "$H/docs.sh"; code=$?; [ $code = 0 ] || cat $H/log >&2; exit $code`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", setup)
	cmd.Env = append(e.env, "H="+e.dir, "PATH="+filepath.Join(e.dir, "bin")+":"+filepath.Dir(imgfsBinary(t))+":"+e.path)
	cmd.Dir = e.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	r := e.finish(cmd)
	if want := "run: console.log(\"hello\")\nblobs: 2\n"; r.code != 0 || !strings.HasSuffix(r.stdout, want) {
		t.Errorf("exit code %d of\n%s\nstdout:\n%sstderr:\n%s\nwant %q", r.code, blocks[0][1], r.stdout, r.stderr, want)
	}
	if strings.Contains(r.stderr, "imgfs: ") && !strings.Contains(r.stderr, "nobody serves") {
		t.Errorf("it is said\n%s", r.stderr)
	}
}
