//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestOffline has a registry that must not be asked, and then one that cannot
// be asked.
func TestOffline(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, threeLayers()...)
	cache := "--cache-dir=" + t.TempDir()
	for _, command := range []string{"ls", "index", "inspect"} {
		r := invoke(t, command, "--offline", cache, image)
		checkRefusal(t, r, cli.ExitFailure, []string{image + ": ", "not in the cache"}, "imgfs index --fetch "+image)
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("offline the registry was asked %d times", n)
	}

	r := invoke(t, "index", "--fetch", cache, image)
	if r.code != 0 || !strings.Contains(r.stderr, image+": all ") {
		t.Fatalf("index --fetch: got exit code %d and\n%s", r.code, r.stderr)
	}
	manifest := parsed[cacheList](t, "cache", "ls", "--json", cache).Images[0].Manifest
	byDigest, _, _ := strings.Cut(image, "/app:")
	byDigest += "/app@" + manifest.String()
	want := map[string]string{}
	commands := [][]string{{"ls", "-lR"}, {"inspect", "--raw"}, {"inspect", "--config"}, {"cat"}, {"index"}}
	check := func(image string, flags ...string) {
		t.Helper()
		for _, c := range commands {
			args := append(append(append([]string{}, flags...), c...), cache, image)
			if c[0] == "cat" {
				args = append(args, "noise", "last")
			}
			got := succeed(t, args...)
			if key := strings.Join(c, " "); want[key] == "" {
				want[key] = got
			} else if got != want[key] {
				t.Errorf("imgfs %q: the output is another one", args)
			}
		}
	}
	check(image)
	if want["cat"] != noiseText(3<<20)+"last\n" {
		t.Error("the files have other content")
	}
	reg.Forget()
	check(image, "--offline")
	check(byDigest, "--offline")
	succeed(t, "inspect", "--offline", cache, image)
	if n := reg.Count(); n > 0 {
		t.Errorf("offline the registry was asked %d times", n)
	}

	reg.Close()
	check(image, "--offline")
	check(byDigest)
	r = invoke(t, "cat", cache, image, "last")
	if r.code != 0 || r.stdout != "last\n" || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "the tag could not be checked, using the image as last seen") {
		t.Errorf("with a dead registry: got exit code %d, %q and\n%swant one warning", r.code, r.stdout, r.stderr)
	}

	// Of what is on this machine there is nothing to fetch, and all to read.
	r = invoke(t, "index", "--fetch", cache, "oci:"+layout)
	if r.code != 0 || !strings.Contains(r.stderr, "is on this machine: there is nothing to fetch") {
		t.Errorf("index --fetch of a layout: got exit code %d and\n%s", r.code, r.stderr)
	}
	succeed(t, "cat", "--offline", cache, "oci:"+layout, "last")
}

// TestFetchWithoutRoom has a cache that is smaller than the image.
func TestFetchWithoutRoom(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	r := invoke(t, "index", "--fetch", "--cache-size=2M", "--cache-dir="+t.TempDir(), image)
	if r.stdout = ""; r.code == 0 {
		t.Fatalf("got exit code 0, and\n%s", r.stderr)
	}
	checkRefusal(t, r, cli.ExitFailure, []string{image + ": only ", "are in the cache: ", "no room"}, "--cache-size")
}

// TestOfflineOpensNoSocket looks at the system calls. A mount and its holder talk over a
// socket that leads nowhere else; no command has one to the network.
func TestOfflineOpensNoSocket(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t) // for mounting without fusermount3, which talks through a socket
	need(t, "strace")
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, threeLayers()...)
	s := newSandbox(t)
	s.ok("index", "--fetch", image)
	s.ok("mount", image, s.mountpoint())
	trace := filepath.Join(s.dir, "trace")
	sockets := regexp.MustCompile(`(?m)^.*\b(socket|socketpair|connect|sendto|AF_INET|AF_UNIX)\b.*$`)
	network := regexp.MustCompile(`(?m)^.*\bAF_(INET6?|NETLINK|PACKET|VSOCK)\b.*$`)
	traced := func(args ...string) []string {
		t.Helper()
		words := append([]string{"-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", trace, imgfsBinary(t)}, args...)
		if r := s.finish(s.program("strace", words...)); r.code != 0 {
			t.Fatalf("strace %q: exit code %d\n%s", words, r.code, r.stderr)
		}
		return sockets.FindAllString(readFile(t, trace), -1)
	}
	if got := traced("ls", image); len(got) == 0 || !network.MatchString(strings.Join(got, "\n")) {
		t.Error("with a network: strace shows no socket, so that it shows nothing below either")
	}
	for _, args := range [][]string{{"ls", "-lR", image}, {"cat", image, "noise"}, {"inspect", image}, {"index", image}, {"cache", "verify"}, {"cache", "prune", "--to=1G"}} {
		if got := traced(append([]string{"--offline"}, args...)...); len(got) > 0 {
			t.Errorf("imgfs --offline %q: %q", args, got)
		}
	}

	for _, flags := range [][]string{{"-f"}, nil} { // strace stays with the process in the background
		dir := s.mountpoint()
		args := append([]string{"-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", trace, imgfsBinary(t), "mount", "--offline", image, dir}, flags...)
		cmd := s.program("strace", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !eventuallyMounted(dir) {
			t.Fatal("nothing is mounted")
		}
		text, err := os.ReadFile(filepath.Join(dir, "noise"))
		if err != nil || string(text) != noiseText(3<<20) {
			t.Errorf("reading: error %v, or other content", err)
		}
		s.ok("umount", dir)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if got := network.FindAllString(readFile(t, trace), -1); len(got) > 0 {
			t.Errorf("imgfs mount --offline %q: %q", flags, got)
		}
	}
}
