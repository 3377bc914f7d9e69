//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A podLab is a user's podman with storage and configuration of its own, and images in a
// registry.
type podLab struct {
	*sandbox
	dir   string // short: podman takes no long path
	conf  string // storage.conf
	store string // of imgfs
	host  string // of the registry
}

// forEachPodman runs a test for root and for a plain user with ranges of ids.
func forEachPodman(t *testing.T, test func(t *testing.T, l *podLab)) {
	t.Helper()
	needFUSE(t)
	need(t, "podman", "crun", "setpriv", "unshare")
	needRoot(t)
	images := runnables(t)
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			reg := registrytest.New(t, nil)
			for name, layout := range images {
				if err := reg.PushLayout(layout, name); err != nil {
					t.Fatal(err)
				}
			}
			test(t, newPodLab(t, who, reg.Host()))
		})
	}
}

func newPodLab(t *testing.T, who account, host string) *podLab {
	t.Helper()
	runtime, err := exec.LookPath("crun")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/tmp", "imgfs-test-ps")
	if err != nil {
		t.Fatal(err)
	}
	l := &podLab{sandbox: &sandbox{account: who, t: t, dir: dir, cache: filepath.Join(dir, "cache")}, dir: dir, conf: filepath.Join(dir, "storage.conf"), host: host}
	l.store = filepath.Join(dir, "data/imgfs/podman")
	for name, text := range map[string]string{
		"storage.conf": fmt.Sprintf("# mine\n[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", dir+"/r", dir+"/x/c"),
		// Without CAP_SYS_RESOURCE no limit can be raised, and podman tries.
		"containers.conf": "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\nlog_driver = \"none\"\nnetns = \"none\"\ncgroups = \"disabled\"\n" +
			"seccomp_profile = \"unconfined\"\n" + // one that is built here can set none
			"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"crun\"\n[engine.runtimes]\ncrun = [\"" + dir + "/bin/crun\", \"" + runtime + "\"]\n",
	} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	buildPodman(t, filepath.Join(dir, "bin"), runtime)
	l.env = []string{"PATH=" + filepath.Dir(imgfsBinary(t)) + ":" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "XDG_RUNTIME_DIR=" + dir + "/x", "XDG_DATA_HOME=" + dir + "/data",
		"XDG_CONFIG_HOME=" + dir + "/config", "IMGFS_CACHE_DIR=" + l.cache, "CONTAINERS_CONF=" + dir + "/containers.conf", "CONTAINERS_STORAGE_CONF=" + l.conf,
		"PODMAN_IGNORE_CGROUPSV1_WARNING=1", "U=", "H=" + host, "TAG=" + labimage.Tag, "COLUMNS=0"}
	if who.uid != 0 {
		l.env = append(l.env, "U=podman unshare")
	}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, who.uid, who.gid))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

// anyVersion is crun for a podman that writes a newer version of the format of containers
// than crun knows.
const anyVersion = `#!/bin/sh
for word; do
	if [ "$before" = --bundle ]; then sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$word/config.json"; fi
	before=$word
done
exec %s "$@"
`

// buildPodman puts a newer podman than the installed one into a directory, with
// IMGFS_ENGINES=build, and what it needs to run crun. A plain user cannot enter the directory
// that it is built in.
func buildPodman(t *testing.T, dir, crun string) {
	t.Helper()
	if os.Getenv("IMGFS_ENGINES") != "build" {
		return
	}
	from := needBuilt(t, "podman")
	if err := os.Chmod(writeFile(t, filepath.Join(dir, "crun"), fmt.Sprintf(anyVersion, crun)), 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "cp", filepath.Join(from, "podman"), dir)
}

// sh runs a script in namespaces of its own: neither mounts nor processes are left. In it
// podman is the user's, $U is what a plain user has to type before imgfs, and $H is the
// registry.
func (l *podLab) sh(script string) result {
	l.t.Helper()
	become := ""
	if l.uid != 0 {
		become = fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups", l.uid, l.gid)
	}
	// crun does not take version 2 of cgroups beside version 1.
	setup := `mount --make-rprivate / && mount -t proc proc /proc || exit 120
		mount -t tmpfs -o mode=1777 none /dev/shm || exit 120
		if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
		rm -rf "$XDG_RUNTIME_DIR"/*
		` + become + ` sh -ec "$0"; exit $?`
	cmd := exec.CommandContext(l.t.Context(), "sh", "-c", setup, script)
	cmd.Env, cmd.Dir = l.env, l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	return l.finish(cmd)
}

// script is sh for what must succeed. It returns what the script prints.
func (l *podLab) script(text string) string {
	l.t.Helper()
	r := l.sh("imgfs_podman() { c=$1; shift; $U imgfs podman $c --store " + l.store + " \"$@\"; }\n" + text)
	if r.code != 0 {
		l.t.Fatalf("exit code %d of\n%s\nstdout:\n%sstderr:\n%s", r.code, text, r.stdout, r.stderr)
	}
	if r.stderr != "" {
		l.t.Logf("%s", r.stderr)
	}
	return r.stdout
}

// images reads what imgfs podman ls --json prints.
func (l *podLab) images(text string) podmanList {
	l.t.Helper()
	var list podmanList
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&list); err != nil {
		l.t.Fatalf("%v: %s", err, text)
	}
	return list
}
