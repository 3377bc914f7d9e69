//go:build linux

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestMountPublishes: a mount publishes the indexes that it had to make, so that the next
// machine makes none; and then there is nothing to publish.
func TestMountPublishes(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg, repo := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small, textFiles)
	name := repo.Host() + "/team/indexes"
	first := newSandbox(t)
	first.env = append(first.env, "IMGFS_INDEX_PUBLISH=1", "IMGFS_INDEX_REPO="+name)
	dir := first.mount(image)
	log := filepath.Join(first.cache, "imgfs.log")
	waitForLog(t, log, "published 2 indexes")
	first.umount(dir)
	repo.Forget()
	dir = first.mount(image, "--profile=off") // else a profile is asked for, too
	time.Sleep(200 * time.Millisecond)
	first.umount(dir)
	if n := repo.Count(); n > 0 {
		t.Errorf("what is known to be published was asked for: %+v", repo.Requests())
	}

	second := newSandbox(t)
	reg.Forget()
	repo.Forget()
	dir = second.mount(image, "--index-repo", name, "--index-publish")
	for _, r := range reg.Requests(registrytest.Blob) {
		if r.Bytes > 4000 {
			t.Errorf("the second machine asked for %s %s: %d bytes", r.Path, r.Range, r.Bytes)
		}
	}
	if content, err := os.ReadFile(filepath.Join(dir, "last")); err != nil || string(content) != "the last one\n" {
		t.Errorf("got %q and error %v", content, err)
	}
	second.umount(dir)
	for _, r := range repo.Requests() {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("the second machine published: %s %s", r.Method, r.Path)
		}
	}
}

// waitForLog waits until a log has some text.
func waitForLog(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(readLog(path), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there is no %q in the log:\n%s", text, readLog(path))
		}
	}
}

func readLog(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// TestMountPublishFails: an index repository that takes nothing is a line in the log, and
// one that hangs does not keep a mount from ending.
func TestMountPublishFails(t *testing.T) {
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	refusing := registrytest.New(t, nil)
	s := newSandbox(t)
	dir := s.mount(image, "--index-repo", refusing.Host()+"/x", "--index-publish")
	log := filepath.Join(s.cache, "imgfs.log")
	waitForLog(t, log, "are not published")
	s.umount(dir)

	hanging := registrytest.New(t, &registrytest.Options{Writable: true})
	hanging.Inject(registrytest.Upload, registrytest.Always(hanging.Stall(-1)))
	s = newSandbox(t)
	dir = s.mount(image, "--index-repo", hanging.Host()+"/x", "--index-publish")
	for deadline := time.Now().Add(10 * time.Second); hanging.Count(registrytest.Upload) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is uploaded")
		}
	}
	began := time.Now()
	s.umount(dir)
	s.waitGone(dir)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the mount ended after %v", took)
	}
	// The next mount publishes what this one had made, and no other does.
	hanging.Inject(registrytest.Upload, nil)
	dir = s.mount(image, "--index-repo", hanging.Host()+"/x", "--index-publish")
	waitForLog(t, filepath.Join(s.cache, "imgfs.log"), "published 1 index")
	s.umount(dir)
	s = newSandbox(t)
	dir = s.mountpoint()
	r := s.run("mount", "--index-publish", image, dir)
	if says := "--index-publish publishes nothing: no index repository is named"; r.code != 0 || !strings.Contains(r.stderr, says) {
		t.Errorf("without a repository: exit code %d, stderr %q, want %q", r.code, r.stderr, says)
	}
	s.umount(dir)
	r = newSandbox(t).run("mount", "--index-publish=maybe", image)
	if r.code != 2 {
		t.Errorf("exit code %d", r.code)
	}
}
