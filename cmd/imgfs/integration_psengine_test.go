//go:build linux

package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestPsContainerd: a mount of the snapshotter is listed with its chain, images and
// containers, also when the snapshotter is stopped, or is not there at all.
func TestPsContainerd(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	image := pushed(t, registrytest.New(t, nil), "debian")
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	e.does("container", "create", "--snapshotter", "imgfs", image, "idle", "true")
	tree := mountsBelow(e.root())
	if len(tree) != 1 {
		t.Fatalf("mounts %q, want one", tree)
	}
	_, chain, _ := snapshotter.Locate(tree[0])
	check := func(when string, limit time.Duration, containers ...string) {
		t.Helper()
		begun := time.Now()
		rows := e.ps()
		if took := time.Since(begun); took > limit {
			t.Errorf("%s: it took %v", when, took)
		}
		if len(rows) != 1 {
			t.Fatalf("%s: %d rows, want one", when, len(rows))
		}
		want := []serve.EngineContainer{}
		for _, key := range containers {
			want = append(want, serve.EngineContainer{Namespace: e.space(), Key: key})
		}
		if got := rows[0].Engine; got.Kind != serve.EngineContainerd || got.Chain != chain || !slices.Equal(got.Images, []string{image}) || !slices.Equal(got.Containers, want) || got.Containers == nil || got.Why != "" {
			t.Errorf("%s: got %+v, want the containers %v", when, got, want)
		}
	}
	const soon = 10 * time.Second // on a slow machine
	check("two containers", soon, "idle", "stays")
	text := e.ok("ps").stdout
	if want := "chain " + show.ShortDigest(chain) + ": " + e.space() + "/idle, " + e.space() + "/stays"; !strings.Contains(text, want) || !strings.Contains(text, "\n"+image+" ") {
		t.Errorf("there is no %q, or no line of %s, in\n%s", want, image, text)
	}
	narrow := e.command("ps")
	narrow.Env = append(narrow.Env, "COLUMNS=80")
	text = e.finish(narrow).stdout
	checkFits(t, narrow.Args, text, 80)
	if !strings.Contains(text, " chain ") {
		t.Errorf("there is no chain in\n%s", text)
	}
	other := sandboxOf(t, otherUser(t))
	var rows []serve.Running
	if err := json.Unmarshal([]byte(other.ok("ps", "--all", "--json").stdout), &rows); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(rows, func(r serve.Running) bool { return r.Dir == tree[0] }); i < 0 || rows[i].Engine.Chain != chain || rows[i].Engine.Containers != nil || rows[i].Engine.Why != "" {
		t.Errorf("another user gets %+v", rows)
	}

	testenv.Stop(t, e.snapshotter.Process.Pid)
	check("the snapshotter is stopped", soon, "idle", "stays")
	if err := e.snapshotter.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	e.kill(&e.snapshotter)
	check("it is killed", soon, "idle", "stays")
	kill9(filepath.Join(e.root(), "chains"))
	check("the mount is dead", soon, "idle", "stays")
	e.startSnapshotter()
	e.end("stays")
	e.does("container", "rm", "idle")
	e.does("content", "prune", "references") // snapshots go when garbage is collected
	check("no container is left", soon)
	if text := e.ok("ps").stdout; !strings.Contains(text, ": no container") {
		t.Errorf("got\n%s", text)
	}
	e.does("image", "rm", "--sync", image)
	e.leavesNoTree()
}

// TestPsPodman: a mount of an image store is listed with the names that podman has for it, and
// one whose path looks so is like any other.
func TestPsPodman(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			imgfs_podman add -q --name quay.io/some/thing:1 $H/busybox:$TAG >id
			mkdir -p other/mounts/x
			$U imgfs mount -q $H/busybox:$TAG other/mounts/x
			$U imgfs ps
			$U imgfs ps --json
			$U imgfs umount other/mounts/x
			imgfs_podman rm --all`)
		table, document, _ := strings.Cut(got, "[\n")
		if !strings.Contains(table, "\nquay.io/some/thing:1 ") || !strings.Contains(table, " podman ") || !strings.Contains(table, "\n"+l.host+"/busybox:"+labimage.Tag+" ") {
			t.Errorf("got\n%s", table)
		}
		var rows []serve.Running
		if err := json.NewDecoder(strings.NewReader("[" + document)).Decode(&rows); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		for _, r := range rows {
			switch want := []string{"quay.io/some/thing:1"}; {
			case !strings.HasPrefix(r.Dir, l.dir+"/"): // of other tests
			case strings.HasPrefix(r.Dir, l.store):
				if r.Engine.Kind != serve.EnginePodman || !slices.Equal(r.Engine.Images, want) {
					t.Errorf("got %+v", r.Engine)
				}
			case r.Engine.Kind != "":
				t.Errorf("%s: got %+v", r.Dir, r.Engine)
			}
		}
	})
}
