//go:build linux

package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
)

// TestNameOf: no name that a client gives leads anywhere but to a registry.
func TestNameOf(t *testing.T) {
	manifest := digest.FromString("m")
	for ref, want := range map[string]string{
		"docker.io/library/node:22":                                 "docker://docker.io/library/node:22",
		"docker.io/library/node@" + digest.FromString("i").String(): "docker://docker.io/library/node",
		"oci:/etc": "docker://oci:/etc", "-": "docker://-", "--help": "docker://--help",
	} {
		if got := NameOf(snapshotter.Image{Ref: ref, Digest: manifest}); got != want+"@"+manifest.String() {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

// program writes a shell script that stands for imgfs.
func program(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "imgfs")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestRun: commands get the flags of this process and what the image is, and their errors come
// without hints and warnings.
func TestRun(t *testing.T) {
	words := filepath.Join(t.TempDir(), "words")
	t.Setenv("NOTIFY_SOCKET", "/run/none")
	trees := &Trees{Flags: []string{"--cache-dir=/c"}, Program: program(t, `printf '%s\n' "$@" "$NOTIFY_SOCKET" >"`+words+`"
echo "imgfs: a warning" >&2; echo "imgfs: docker.io/x: no such image" >&2; echo "imgfs: hint: imgfs help images" >&2; exit 1`)}
	img := snapshotter.Image{Ref: "docker.io/x:1", Digest: digest.FromString("m")}
	if err := trees.Index(t.Context(), img); err == nil || err.Error() != "docker.io/x: no such image" {
		t.Errorf("error %v", err)
	}
	text, err := os.ReadFile(words)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"index", "--quiet", "--cache-dir=/c", "--index-trust=repos", "--json", "--merged", "--", NameOf(img), "", ""}
	if got := strings.Split(string(text), "\n"); !slices.Equal(got, want) {
		t.Errorf("words %q, want %q", got, want)
	}
	trees.Program = program(t, "exit 3")
	if err := trees.Index(t.Context(), img); err == nil || !strings.Contains(err.Error(), "imgfs index: exit status 3") {
		t.Errorf("without a message: %v", err)
	}
}

// TestPassed: what passes have fetched is added up, as far as they say it.
func TestPassed(t *testing.T) {
	trees := &Trees{}
	for _, tt := range []struct {
		prints string
		want   int64
	}{
		{`[{"fetched": 5, "other": []}, {"fetched": 7}]`, 12}, {`[]`, 12}, {`[{"fetched": -5}]`, 12}, {`[{"fetched": "x"}]`, 12}, {`nothing`, 12}, {`[{"fetched": 1}]`, 13},
	} {
		trees.Program = program(t, "echo '"+tt.prints+"'")
		if err := trees.Index(t.Context(), snapshotter.Image{}); err != nil || trees.Passed() != tt.want {
			t.Errorf("%s: error %v, %d bytes, want %d", tt.prints, err, trees.Passed(), tt.want)
		}
	}
}

// TestCommandsAskForCredentials: commands that read an image are told where they can ask, and
// what is pulled counts from when containerd wants its snapshots.
func TestCommandsAskForCredentials(t *testing.T) {
	words := filepath.Join(t.TempDir(), "words")
	var kept Credentials
	trees := &Trees{Program: program(t, `printf '%s\n' "$@" >>"`+words+`"`), Credentials: &kept, CredentialSocket: "/run/c.sock",
		Layers: func(context.Context, string) ([]digest.Digest, error) { return nil, nil }}
	kept.Pulling("reg.example/app:1", user("old"))(true)
	img := snapshotter.Image{Ref: "reg.example/app:1", Digest: digest.FromString("m")}
	for _, call := range []func() error{
		func() error { _, err := trees.DiffIDs(t.Context(), img); return err },
		func() error { return trees.Index(t.Context(), img) },
	} {
		name := rand.Text()
		done := kept.Pulling("reg.example/app:1", user(name))
		if got := has(&kept, "reg.example", "app"); got == name {
			t.Errorf("that of %q counts before its pull has got anything", got)
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}
		if got := has(&kept, "reg.example", "app"); got != name {
			t.Errorf("that of %q counts, want %q", got, name)
		}
		done(true)
	}
	if err := trees.Mount(t.Context(), img, 2, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(words)
	if err != nil || strings.Count(string(text), "--"+CredentialsFlag+"=/run/c.sock\n") != 2 {
		t.Errorf("words %q, %v", text, err)
	}
}

// TestRunEnds: a command ends with what it is for, and is given the time to clean up.
func TestRunEnds(t *testing.T) {
	ended := filepath.Join(t.TempDir(), "ended")
	trees := &Trees{Program: program(t, `trap 'echo >"`+ended+`"; exit 1' TERM
while :; do sleep 0.01; done`)}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := trees.Index(ctx, snapshotter.Image{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(ended); err != nil {
		t.Errorf("it was not told to end: %v", err)
	}
}

// TestState: on a plain directory nothing is mounted.
func TestState(t *testing.T) {
	trees := &Trees{Release: func(context.Context, string) error { t.Error("something was unmounted"); return nil }}
	if state, err := trees.State(t.Context(), t.TempDir()); state != snapshotter.Absent || err != nil {
		t.Errorf("%v, %v", state, err)
	}
	if err := trees.Unmount(t.Context(), t.TempDir()); err != nil {
		t.Error(err)
	}
}

// TestListen: a socket that nobody listens on is replaced; one that is in use, and what is no
// socket, is not. Nobody else may use it.
func TestListen(t *testing.T) {
	address := filepath.Join(t.TempDir(), "below", "s")
	l, err := Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(address)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := Listen(t.Context(), address); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false) // as of a process that is killed
	l.Close()
	again, err := Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := os.Stat(address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), file); err == nil {
		t.Error("a file is replaced")
	}
	if _, err := Listen(t.Context(), "/"+strings.Repeat("a", 108)); err == nil {
		t.Error("a long path is taken")
	}
}
