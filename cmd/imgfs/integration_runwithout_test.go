//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"golang.org/x/sys/unix"
)

// TestRunWithout runs containers on machines that lack something: what it is, and what to
// type, is said in two lines, and nothing is left.
func TestRunWithout(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	needRoot(t)
	need(t, "unshare", "setpriv")
	image := "oci:" + runnables(t)["busybox"]
	const hideDevice = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"
	// The directories for temporary files are small or cannot be written to. The cache, and
	// what the tests have, stay where they are.
	tiny := func(options string) string {
		return `d=${IMGFS_CACHE_DIR%/*}; mount --bind $d $d; mount --rbind /tmp /tmp; mount -o remount,bind,ro /tmp
			for d in $T /var/tmp; do mount -t tmpfs -o mode=1777,` + options + ` none $d; done; export TMPDIR=$T`
	}
	for _, c := range []struct {
		name    string
		prepare string // as root, in a mount namespace
		user    bool   // not root
		flags   []string
		command string
		code    int
		stdout  string
		says    []string
	}{
		{"no runtime", "PATH=/nowhere", false, nil, "echo no", 125, "", []string{"neither crun nor runc, nor bwrap", "imgfs: hint: install one of the packages"}},
		{"no such runtime", "true", false, []string{"--runtime", "/nowhere/crun"}, "echo no", 125, "", []string{"--runtime /nowhere/crun: ", "no such file", "hint: install it"}},
		{"no device", hideDevice, false, nil, "echo no", 125, "", []string{"/dev/fuse is missing", "modprobe fuse"}},
		{"no device", hideDevice, true, nil, "echo no", 125, "", []string{"/dev/fuse is missing", "hint: "}},
		{"no user namespaces", "echo 0 >/proc/sys/user/max_user_namespaces", true, nil, "echo no", 125, "", []string{"no more namespaces", "sysctl user.max_user_namespaces"}},
		{"no mount namespaces", "echo 0 >/proc/sys/user/max_mnt_namespaces", true, nil, "echo no", 125, "", []string{"namespaces", "hint: sudo sysctl user.max_"}},
		{"no process namespaces", "echo 0 >/proc/sys/user/max_pid_namespaces", false, nil, "echo no", 125, "", []string{"namespaces", "hint: sudo sysctl user.max_"}},
		{"small disk", tiny("size=200k"), false, nil, "dd if=/dev/zero of=/big bs=1k count=1000 2>/dev/null; echo $?", 0, "1\n", nil},
		{"small disk", tiny("size=200k"), true, nil, "dd if=/dev/zero of=/big bs=1k count=1000 2>/dev/null; echo $?", 0, "1\n", nil},
		{"full disk", tiny("size=4k") + "; head -c 4096 /dev/zero >$T/full; cp $T/full /var/tmp", false, nil, "echo no", 125, "", []string{"no space left", "read-only", "hint: TMPDIR=DIR"}},
		{"disk without inodes", tiny("nr_inodes=1"), true, nil, "echo no", 125, "", []string{"no space left", "hint: TMPDIR=DIR"}},
		{"disk without attributes", "mount -t ramfs -o mode=1777 none $T; export TMPDIR=$T", false, nil, "echo a >/x && cat /x", 0, "a\n", []string{"is kept in memory", "extended attributes"}},
		{"read-only disk", tiny("ro"), true, nil, "echo no", 125, "", []string{"read-only", "hint: TMPDIR=DIR"}},
	} {
		name := c.name + map[bool]string{false: ", root", true: ", user"}[c.user]
		t.Run(name, func(t *testing.T) {
			who, become := thisUser(), ""
			if c.user {
				who = rangedUser(t)
				become = fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups ", who.uid, who.gid)
			}
			s := runSandbox(t, who)
			s.ok("index", image)
			before := machineOf(t, s)
			temp := s.mountpoint()
			// /tmp may be where the tests are.
			script := "set -e; PATH=/usr/sbin:$PATH; T=" + temp + "; become=" + `"$1"; shift; ` + strings.TrimSuffix(c.prepare, ";") + "; exec $become \"$@\""
			args := slices.Concat([]string{"-c", script, "sh", become, imgfsBinary(t), "run"}, c.flags, []string{"--entrypoint=", image, "sh", "-c", c.command})
			if c.prepare == "PATH=/nowhere" {
				args[1] = strings.Replace(script, "PATH=/usr/sbin:$PATH; ", "", 1)
			}
			cmd := s.program("sh", args...)
			// The limits of namespaces are those of a user namespace, in which all are who they are.
			all := []syscall.SysProcIDMap{{Size: 1<<32 - 2}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			if strings.Contains(c.prepare, "/proc/sys/user") {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true}
			} else {
				args[1] = "mount --make-rprivate /; " + script
				cmd.Args = append(cmd.Args[:1], args...)
			}
			r := s.finish(cmd)
			if r.code != c.code || r.stdout != c.stdout {
				t.Errorf("exit code %d, want %d; stdout %q, want %q\n%s", r.code, c.code, r.stdout, c.stdout, r.stderr)
			}
			if len(c.says) > 0 {
				inLines(t, r, c.code, c.says...)
			} else if r.stderr != "" {
				t.Errorf("stderr is %q", r.stderr)
			}
			if err := os.Remove(temp); err != nil {
				t.Error(err)
			}
			before.asBefore(t, s)
		})
	}
}

// TestRunRegistryFails: wherever a registry fails or does not answer, imgfs run ends, with
// one line, and a container goes on that reads what has not come.
func TestRunRegistryFails(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	p := programs(t)
	layout := filepath.Join(publicDir(t), "layout")
	img, err := labimage.Runnables(p)
	if err != nil {
		t.Fatal(err)
	}
	made := img[slices.IndexFunc(img, func(r labimage.Runnable) bool { return r.Name == "busybox" })]
	made.Config.Entrypoint = nil
	made.Layers = append(made.Layers, manyFiles(1))
	if _, err := made.Write(layout); err != nil {
		t.Fatal(err)
	}
	stall := registrytest.Fault(func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { <-r.Context().Done() })
	gone := registrytest.Refuse(404, "BLOB_UNKNOWN", "\x1b[31mgone\nimgfs: all is well")
	for i, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			s := runSandbox(t, who)
			before := machineOf(t, s)
			for _, stage := range []struct {
				name string
				kind registrytest.Kind
				from int // behind so many
			}{{"manifest", registrytest.Manifest, 0}, {"config", registrytest.Blob, 0}, {"layer", registrytest.Blob, 1}} {
				for how, fault := range map[string]registrytest.Fault{"gone": gone, "stalls": stall} {
					reg := registrytest.New(t, nil)
					if err := reg.PushLayout(layout, "app"); err != nil {
						t.Fatal(err)
					}
					reg.Inject(stage.kind, func(n int) registrytest.Fault {
						if n <= stage.from {
							return nil
						}
						return fault
					})
					r := startRun(t, s.in(t).command("run", "--runtime", runtimes[i], reg.Host()+"/app:"+labimage.Tag, "echo", "no"))
					want, says := 125, "gone"
					if how == "stalls" {
						if !eventually(20*time.Second, func() bool { return reg.Count(stage.kind) > stage.from }) {
							t.Fatalf("%s: it is not asked for", stage.name)
						}
						r.signal(unix.SIGTERM)
						want, says = 143, "interrupted"
					}
					got := r.result()
					inLines(t, got, want, says)
					if got.stdout != "" || got.took > 10*time.Second {
						t.Errorf("%s %s: after %v stdout is %q", stage.name, how, got.took, got.stdout)
					}
					reg.Close()
				}
			}
			before.asBefore(t, s)
			// The container has read its programs, and now reads a file of which nothing is there.
			reg := registrytest.New(t, nil)
			if err := reg.PushLayout(layout, "app"); err != nil {
				t.Fatal(err)
			}
			image := reg.Host() + "/app:" + labimage.Tag
			s.ok("index", image)
			s.dropBlobs()
			before = machineOf(t, s)
			cmd := s.command("run", "-i", "--runtime", runtimes[i], image, "sh", "-c", "cat /etc/passwd >/dev/null; echo ready; read x; cat /f0 >/x; echo $?; cat /f0 >/x; echo $?; read x; cat /f0 | wc -c")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			r := startRun(t, cmd)
			r.says("ready")
			reg.Inject(registrytest.Blob, registrytest.Always(gone))
			fmt.Fprintln(in)
			r.says("1")
			r.says("1")
			reg.Inject(registrytest.Blob, nil)
			fmt.Fprintln(in)
			r.says("300000")
			got := r.result()
			if n := strings.Count("\n"+got.stderr, "\nimgfs: "); got.code != 0 || n != 1 || strings.Count(got.stderr, "cat: read error: Input/output error\n") != 2 || strings.Contains(got.stderr, "\x1b") {
				t.Errorf("exit code %d, stderr:\n%s", got.code, got.stderr)
			}
			before.asBefore(t, s)
		})
	}
}
