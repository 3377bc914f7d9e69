//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// liarEnv holds the directory on which a child process of the test binary is to
// mount a file system that calls itself imgfs; what it says for stats is its
// standard input.
const liarEnv = "IMGFS_TEST_LIAR"

// A liar answers for user.imgfs.stats what it was told to.
type liar struct {
	fuse.RawFileSystem
	says []byte
}

func (l *liar) GetAttr(_ <-chan struct{}, _ *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = 1, unix.S_IFDIR|0o755, 2
	return fuse.OK
}

func (l *liar) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	switch {
	case name != serve.StatsAttr:
		return 0, fuse.ENODATA
	case len(dest) < len(l.says):
		return uint32(len(l.says)), fuse.ERANGE
	}
	return uint32(copy(dest, l.says)), fuse.OK
}

// lie serves a liar's file system until it is unmounted.
func lie(dir string, says []byte) error {
	fs := &liar{fuse.NewDefaultRawFileSystem(), says}
	s, err := fuse.NewServer(fs, dir, &fuse.MountOptions{Name: "imgfs", FsName: "evil" + strange("image"), DirectMountStrict: true})
	if err != nil {
		return err
	}
	s.Serve()
	return nil
}

// startLiar mounts a liar's file system until the end of the test.
func (s *sandbox) startLiar(dir, says string) {
	s.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stdin, cmd.Stderr = append(os.Environ(), liarEnv+"="+dir), strings.NewReader(says), os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("the liar: %v", err)
		}
	})
	if !eventuallyMounted(dir) {
		s.t.Fatalf("nothing is mounted on %s", dir)
	}
}

// TestLiar asks file systems for stats that are not ours, though they look like
// it: what they say is what a stranger writes.
func TestLiar(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	needRoot(t)
	s := newSandbox(t)
	honest := filled[serve.Stats](strange)
	honest.CacheDir, honest.Opening, honest.Offline = s.cache, false, false
	text, err := json.Marshal(honest)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		says string
		good bool
	}{
		"every member":       {string(text), true},
		"bytes beside":       {`{"image":"a\ufffd","imageBytes":"Yf8=","dir":"x","dirBytes":"G1szMW0="}`, true},
		"members of its own": {`{"image":"a","` + jsonText(t, strange("m")) + `":"` + jsonText(t, strange("v")) + `","layers":[{"digest":"` + jsonText(t, strange("short")) + `"}]}`, true},
		"text for numbers":   {`{"pid":"` + jsonText(t, strange("pid")) + `"}`, false},
		"text for a list":    {`{"layers":"` + jsonText(t, strange("layers")) + `"}`, false},
		"a time":             {`{"since":"` + jsonText(t, strange("since")) + `"}`, false},
		"a huge number":      {`{"pid":1e400}`, false},
		"huge sizes":         {`{"line":{"bytesPerSecond":1e308,"tripSeconds":1e308},"total":{"asked":9223372036854775807,"waitP50Seconds":-1e308},"layers":[{"size":-9223372036854775808}]}`, true},
		"controls":           {"{\"image\":\"\x1b[31m\"}", false},
		"no JSON":            {"\x1b]0;x\x07\u009b31m", false},
		"deep":               {strings.Repeat(`{"a":`, 11000), false},
		"no UTF-8":           {"{\"image\":\"\xff\xfe\",\"fastPaths\":[{\"name\":\"\u009b\x7f\u202e\",\"active\":true}]}", true},
		"many rows":          {`{"fastPaths":[` + strings.Repeat(`{},`, 15000) + `{}]}`, true},
		"nothing":            {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.in(t)
			dir := s.mountpoint()
			s.startLiar(dir, c.says)
			said := s.both(t, "stats", "--layers", "--files", "--paths", dir) + s.both(t, "stats", "--json", dir)
			s.both(t, "cache", "ls")
			s.both(t, "cache", "ls", "--json")
			s.both(t, "ps")
			s.both(t, "ps", "--json")
			if r := s.run("stats", dir); (r.code == cli.ExitOK) != c.good {
				t.Errorf("exit code %d, and it says %.300q", r.code, r.stdout+r.stderr)
			}
			if name == "every member" {
				checkAllSaid(t, said)
			}
		})
	}
	if left := mountsBelow(filepath.Dir(s.dir)); len(left) > 0 {
		t.Logf("still mounted: %q", left)
	}
}

// checkAllSaid checks that each text of stats was printed, escaped, so that
// TestLiar is about all of them.
func checkAllSaid(t *testing.T, said string) {
	t.Helper()
	for _, place := range places[serve.Stats]() {
		if !strings.Contains(said, fmt.Sprintf(`"%s\u001b]0;title`, place)) && place != "CacheDir" {
			t.Errorf("stats --json does not have %s", place)
		}
	}
	for _, place := range []string{"Image", "Dir", "Manifest", "Platform", "PrefetchState", "Servers0Host", "FastPaths0Name", "Layers0Verified", "Files0Path"} {
		if !strings.Contains(said, place+`\033]0;title`) {
			t.Errorf("stats does not have %s", place)
		}
	}
	if !strings.Contains(said, `Servers0Reason\x1b]0;title`) {
		t.Error("stats does not say why a registry is down")
	}
}

// jsonText is a text as it stands between the quotes of JSON.
func jsonText(t *testing.T, s string) string {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[1 : len(text)-1])
}
