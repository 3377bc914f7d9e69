//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestHelperBreaksUnderMount has a credential helper break in a mount's life, when
// a token is needed again: reads go on as a stranger's, with one line in the log,
// until the registry wants more than a stranger.
func TestHelperBreaksUnderMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	const n = 6
	reg := registrytest.New(t, &registrytest.Options{Login: registrytest.Bearer})
	image, _ := publish(t, reg, manyFiles(n))
	s := newSandbox(t)
	bin := filepath.Join(s.dir, "bin")
	helper := func(script string) {
		t.Helper()
		// Renamed, so that nobody runs it while it is being written.
		path := writeFile(t, filepath.Join(bin, "new"), "#!/bin/sh\n"+script+"\n")
		if err := errors.Join(os.Chmod(bin, 0o755), os.Chmod(path, 0o755), os.Rename(path, filepath.Join(bin, "docker-credential-test"))); err != nil {
			t.Fatal(err)
		}
	}
	helper(`echo '{"Username":"u","Secret":"secret-p"}'`)
	config := writeFile(t, filepath.Join(s.dir, ".docker/config.json"), `{"credsStore": "test"}`)
	s.env = append(s.env, "PATH="+bin+":"+os.Getenv("PATH"))
	s.ok("index", image)
	s.dropBlobs()
	dir := s.mount(image)
	read := func(i int) error {
		reg.RevokeTokens()
		_, err := headOf(filepath.Join(dir, fmt.Sprintf("f%d", i)), 4096)
		return err
	}
	if err := read(0); err != nil {
		t.Fatal(err)
	}
	helper(`echo secret-p; echo 'ERROR: run: cloud login' >&2; exit 1`)
	for i := 1; i < 4; i++ {
		if err := read(i); err != nil {
			t.Error(err)
		}
	}
	log := filepath.Join(s.cache, "imgfs.log")
	want := dir + ": " + config + ": credential helper docker-credential-test: it ends with exit status 1: ERROR: run: cloud login; going on without it\n"
	if text := readFile(t, log); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, want) {
		t.Errorf("imgfs.log is %q, want one line with %q", text, want)
	}
	reg.Inject(registrytest.Token, registrytest.Always(registrytest.Status(401)))
	if err := read(4); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got error %v, want %v", err, os.ErrPermission)
	}
	if text := readFile(t, log); !strings.Contains(text, "ERROR: run: cloud login; without it: the token server "+reg.Host()+" answers 401") || strings.Contains(text, "secret") {
		t.Errorf("imgfs.log is %q, want both what is wrong with the helper and what the registry says", text)
	}
	helper(`echo '{"Username":"u","Secret":"secret-p"}'`)
	reg.Inject(registrytest.Token, nil)
	if err := read(4); err != nil {
		t.Error(err)
	}
}
