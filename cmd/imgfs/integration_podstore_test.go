//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestPodmanRun: podman runs images that were never pulled, as their configs say.
func TestPodmanRun(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			imgfs_podman add -q --write-conf $H/busybox:$TAG $H/named:$TAG >ids
			podman run --rm $H/busybox:$TAG sh -c 'echo $GREETING $ENTRY; pwd; id -u; cat page; echo new >page; cat page'
			podman run --rm $H/named:$TAG id -un
			podman run --rm --user 1000 $H/busybox:$TAG id -u
			podman run --rm $(sed -n 1p ids) echo by ID
			podman images --format '{{.ID}} {{.Repository}}:{{.Tag}} {{.ReadOnly}}' --no-trunc | sort -k2
			echo ids $(cat ids)
			imgfs_podman ls -q
			if podman rmi $H/named:$TAG; then exit 1; fi
			imgfs_podman rm --all
			test -z "$(podman images -q)"
			imgfs_podman ls --json`)
		ids := regexp.MustCompile(`(?m)^ids ([0-9a-f]{64}) ([0-9a-f]{64})$`).FindStringSubmatch(got)
		if ids == nil {
			t.Fatalf("no IDs in\n%s", got)
		}
		want := "hello world yes\n/srv/app\n0\npage\nnew\nworker\n1000\nby ID\n" +
			"sha256:" + ids[1] + " " + l.host + "/busybox:" + labimage.Tag + " true\nsha256:" + ids[2] + " " + l.host + "/named:" + labimage.Tag + " true\n" +
			ids[0] + "\n" + ids[1] + "\n" + ids[2] + "\n"
		text, rest, _ := strings.Cut(got, "{")
		if text != want {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
		if list := l.images("{" + rest); !list.Configured || list.Store != l.store || len(list.Images) != 0 {
			t.Errorf("the list is %+v", list)
		}
		conf := readFile(t, l.conf)
		if !strings.HasPrefix(conf, "# mine\n[storage]\n") || !strings.Contains(conf, "\nadditionalimagestores = [\""+l.store+"\"]\n") {
			t.Errorf("storage.conf is\n%s", conf)
		}
		for _, dir := range []string{"mounts", "overlay/l"} {
			if entries, err := os.ReadDir(filepath.Join(l.store, dir)); err != nil || len(entries) > 0 {
				t.Errorf("left in %s are %v, %v", dir, entries, err)
			}
		}
	})
}

// TestPodmanLayout: an image that is in no registry has the name that it is given. This one has
// no directory in its root.
func TestPodmanLayout(t *testing.T) {
	testenv.Slow(t)
	layout := "oci:" + runnables(t)["static"] + ":" + labimage.Tag
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			imgfs_podman add --write-conf --name app ` + layout + ` 2>said
			grep -o 'no directory in its root' said
			podman run --rm app say ran
			imgfs_podman add --name other/app:2 ` + layout + ` 2>/dev/null
			podman run --rm other/app:2 say again
			imgfs_podman ls --json | grep -A3 '"names"' | tr -d ' \n'; echo
			imgfs_podman rm app
			imgfs_podman ls -q`)
		lines := strings.Split(got, "\n")
		want := []string{"localhost/app:latest is image", "no directory in its root", "ran", "localhost/other/app:2 is image", "again", `"names":["localhost/other/app:2","localhost/app:latest"],`, ""}
		for i, line := range lines {
			if i < len(want) && strings.HasSuffix(want[i], " is image") {
				lines[i] = line[:min(len(line), len(want[i]))]
			}
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %q, want %q", lines, want)
		}
	})
}

// TestPodmanCommit: what is committed and built on an image runs, and the image stays as long as
// that needs it. What cannot be pushed is no other image in silence.
func TestPodmanCommit(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			imgfs_podman add -q --write-conf $H/busybox:$TAG >/dev/null
			podman run --name made $H/busybox:$TAG sh -c 'echo made >/srv/app/made; rm page'
			refused() { if imgfs_podman rm $H/busybox:$TAG 2>said; then exit 1; fi; grep -c "in use by.*$1" said || cat said; }
			refused 'container made'
			podman commit -q made localhost/derived >/dev/null
			podman rm made >/dev/null
			refused 'image localhost/derived:latest'
			podman run --rm localhost/derived sh -c 'cat made; ls page 2>&1; echo $GREETING'
			podman inspect --format '{{len .RootFS.Layers}}' $H/busybox:$TAG localhost/derived
			for name in localhost/derived $H/busybox:$TAG; do
				if podman push $name oci:./pushed 2>said; then exit 1; fi
				grep -o 'Digest did not match' said || cat said
			done
			printf "FROM $H/busybox:$TAG\nRUN echo built >built\n" >Containerfile
			podman build -q --isolation rootless -t localhost/built . >/dev/null
			podman run --rm localhost/built cat built page
			podman rmi localhost/derived localhost/built >/dev/null
			podman image prune -f >/dev/null
			imgfs_podman rm $H/busybox:$TAG
			imgfs_podman ls`)
		want := regexp.MustCompile(`^1\n1\nmade\nls: page: No such file or directory\nhello world\n(\d)\n(\d)\nDigest did not match\nDigest did not match\nbuilt\npage\n$`)
		m := want.FindStringSubmatch(got)
		if m == nil || m[2][0] != m[1][0]+1 {
			t.Errorf("got\n%s\nwant %s", got, want)
		}
	})
}

// TestPodmanInUse: an image that a container uses is not taken away, or it is and the
// container goes on.
func TestPodmanInUse(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			imgfs_podman add -q --write-conf $H/busybox:$TAG >/dev/null
			podman run -d --name web $H/busybox:$TAG sleep 1000 >/dev/null
			if imgfs_podman rm $H/busybox:$TAG 2>said; then exit 1; fi
			grep -o 'in use by container web' said || cat said
			podman exec web cat page
			imgfs_podman rm --force $H/busybox:$TAG
			podman exec web sh -c 'cat /usr/local/bin/probe | wc -c'
			wc -c </proc/self/mountinfo >/dev/null
			imgfs_podman ls
			if podman run --rm $H/busybox:$TAG true 2>/dev/null; then exit 1; fi
			podman rm -f -t 0 web >/dev/null
			echo done`)
		if !regexp.MustCompile(`^in use by container web\npage\n\d{6,}\ndone\n$`).MatchString(got) {
			t.Errorf("got\n%s", got)
		}
	})
}

// noImgfs ends all processes of imgfs: only those of the script's namespace can be seen there.
// One that was about to start another is not the last.
const noImgfs = `
	left=yes
	while test "$left"; do
		left=
		for p in /proc/[0-9]*; do
			case $(readlink $p/exe) in */imgfs) left=yes; kill -9 ${p#/proc/} || true;; esac
		done
		sleep 0.1
	done
`

// TestPodmanNotMounted: of an image that is not mounted, or whose mount is dead, nothing can
// be run, and adding it again brings it back.
func TestPodmanNotMounted(t *testing.T) {
	testenv.Slow(t)
	need(t, "busybox")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			refused() {
				if podman run --rm $H/busybox:$TAG true 2>said; then exit 1; fi
				# What does not come from the image, neither.
				if podman run --rm --entrypoint /bb -v ` + busybox + `:/bb $H/busybox:$TAG ls / 2>said; then exit 1; fi
				if podman start -a old 2>said; then exit 1; fi
			}
			works() {
				podman run --rm $H/busybox:$TAG cat page
				podman start -a old
				# What has ended is unmounted by another process, and could start again until then.
				while $U grep -q /merged /proc/self/mounts; do sleep 0.1; done
			}
			imgfs_podman add -q --write-conf $H/busybox:$TAG >/dev/null
			podman create --name old $H/busybox:$TAG echo old >/dev/null
			works
			$U umount ` + l.store + `/mounts/????????????????????????????????????????????????????????????????
			refused
			imgfs_podman ls --json | grep '"health"'
			imgfs_podman add --all
			works
			` + noImgfs + `
			refused
			imgfs_podman ls --json | grep '"health"'
			imgfs_podman add $H/busybox:$TAG
			works
			podman rm old >/dev/null
			imgfs_podman rm $H/busybox:$TAG`)
		lines := strings.Split(strings.TrimSpace(got), "\n")
		for i, line := range lines {
			lines[i] = strings.Trim(line, " ,")
		}
		want := []string{"page", "old", `"health": "not mounted"`, "page", "old", `"health": "dead"`, l.host + "/busybox:" + labimage.Tag + " is image", "page", "old"}
		if len(lines) == len(want) {
			lines[6] = lines[6][:min(len(lines[6]), len(want[6]))]
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %q, want %q", lines, want)
		}
	})
}

// TestPodmanConcurrent adds and removes images at once, two of which have their base in
// common.
func TestPodmanConcurrent(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			add() { imgfs_podman add -q --write-conf $H/$1:$TAG; }
			imgfs_podman add -q $H/script:$TAG >/dev/null
			pids=
			for name in busybox busybox named debian busybox named; do add $name >/dev/null & pids="$pids $!"; done
			imgfs_podman rm $H/script:$TAG & pids="$pids $!"
			for p in $pids; do wait $p; done
			imgfs_podman ls --json >list
			podman run --rm $H/busybox:$TAG cat /usr/local/bin/probe | sha256sum
			podman run --rm $H/named:$TAG cat /usr/local/bin/probe | sha256sum
			podman run --rm $H/debian:$TAG bash -c 'echo debian'
			ps ax -o args | grep -c '^[^ ]*imgfs mount' || true
			imgfs_podman rm --all
			cat list`)
		text, list, _ := strings.Cut(got, "{")
		lines := strings.Split(text, "\n")
		if len(lines) < 4 || lines[0] != lines[1] || len(lines[0]) < 64 || lines[2] != "debian" || lines[3] != "3" {
			t.Errorf("got\n%s", text)
		}
		images := l.images("{" + list).Images
		if len(images) != 3 {
			t.Errorf("the images are %+v", images)
		}
		for _, img := range images {
			if img.Health != "ok" || len(img.Names) != 1 || !strings.Contains(img.Source, "@sha256:") {
				t.Errorf("got %+v", img)
			}
		}
		if conf := readFile(t, l.conf); strings.Count(conf, l.store) != 1 {
			t.Errorf("storage.conf is\n%s", conf)
		}
	})
}

// TestPodmanKilled has imgfs podman add be killed while it mounts: the next one takes away
// what it has left.
func TestPodmanKilled(t *testing.T) {
	testenv.Slow(t)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		got := l.script(`
			for delay in 0.02 0.05 0.1 0.2 0.3; do
				imgfs_podman add -q $H/debian:$TAG >/dev/null 2>&1 &
				sleep $delay
				` + noImgfs + `
				wait || true
			done
			imgfs_podman add -q --write-conf $H/busybox:$TAG >/dev/null
			imgfs_podman add --all # one may have been added, and its server killed
			imgfs_podman ls --json | grep '"health"' | sort -u
			podman run --rm $H/busybox:$TAG cat page
			imgfs_podman rm --all
			ls -A ` + l.store + `/mounts ` + l.store + `/overlay`)
		got = strings.TrimLeft(got, " ")
		want := "\"health\": \"ok\",\npage\n" + l.store + "/mounts:\n\n" + l.store + "/overlay:\nl\n"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestPodmanErrors: what cannot be is said before anything is done.
func TestPodmanErrors(t *testing.T) {
	needFUSE(t)
	s := newSandbox(t)
	s.env = append(s.env, "CONTAINERS_STORAGE_CONF="+writeFile(t, filepath.Join(s.dir, "storage.conf"), "[storage]\ndriver = \"overlay\"\n"))
	foreign := filepath.Join(s.dir, "foreign")
	writeFile(t, filepath.Join(foreign, "file"), "theirs")
	if os.Geteuid() != 0 {
		s.fails(1, []string{"namespace of its own", "podman unshare imgfs podman add fedora"}, "podman", "add", "fedora")
		return
	}
	s.fails(1, []string{foreign, "not an image store of imgfs", "--store"}, "podman", "add", "--store", foreign, "oci:"+foreign+":x")
	s.fails(1, []string{"not an image store of imgfs"}, "podman", "ls", "--store", foreign)
	s.fails(1, []string{"there is no image store", "imgfs podman add"}, "podman", "rm", "--store", s.dir+"/none", "x")
	s.fails(2, []string{"no image named"}, "podman", "add")
	s.fails(2, []string{"--all"}, "podman", "rm", "--all", "x")
	s.fails(2, []string{"one image"}, "podman", "add", "--name", "x", "a", "b")
	store := s.dir + "/store"
	s.fails(1, []string{"no such file"}, "podman", "add", "--store", store, "oci:"+s.dir+"/none:x")
	s.fails(1, []string{"no such image", "imgfs podman ls"}, "podman", "rm", "--store", store, "x")
	if r := s.ok("podman", "ls", "--store", store); r.stdout != "" {
		t.Errorf("an empty store is %q", r.stdout)
	}
	if entries, err := os.ReadDir(foreign); err != nil || len(entries) != 1 {
		t.Errorf("in the directory that is no store are %v, %v", entries, err)
	}
}
