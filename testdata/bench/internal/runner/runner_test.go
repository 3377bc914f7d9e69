package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParsing(t *testing.T) {
	got, err := parseMemory("Name:\timgfs\nVmPeak:\t 9 kB\nVmHWM:\t 99999 kB\nVmRSS:\t   12345 kB\nRssAnon:\t     678 kB\n")
	if want := (Memory{99999 << 10, 12345 << 10, 678 << 10}); err != nil || got != want {
		t.Errorf("memory: got %v and error %v, want %v", got, err, want)
	}
	if _, err := parseMemory("Name:\timgfs\nVmHWM:\t 9 kB\nRssAnon:\t     678 kB\n"); err == nil {
		t.Error("a status without VmRSS has one")
	}
	table := "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /tmp/b rw - fuse x rw\n3 1 0:3 / /tmp/b/c rw - fuse x rw\n4 1 0:4 / /tmp/bb rw - fuse x rw\n"
	if got, want := MountsBelow(table, "/tmp/b"), []string{"/tmp/b/c", "/tmp/b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("mounts: got %q, want %q", got, want)
	}
	s, err := parseStats(`{"total":{"asked":5,"fetched":304,"requests":3},"layers":[{"fetched":304}],"fastPaths":[{"name":"a","active":true},{"name":"b","why":"w"}]}`)
	if err != nil || s.Total.Requests != 3 || s.Total.Fetched != 304 || s.String() != "active: a; not: b (w)" {
		t.Errorf("stats: got %v and error %v", s, err)
	}
	if _, err := parseStats(`{"layers":[]}`); err == nil {
		t.Error("stats without a total have one")
	}
}

// TestInTurns: all tasks run as often as asked for, and not always in the same
// order; an error of one, and the end of the context, end it.
func TestInTurns(t *testing.T) {
	r := New(t.Context(), Settings{})
	var order string
	task := func(name string, err error) Task {
		return Task{Name: name, Run: func() error { order += name; return err }}
	}
	medians, err := r.InTurns(3, []Task{task("a", nil), task("b", nil)})
	if err != nil || len(medians) != 2 || medians[0].Wall <= 0 || order != "abbaab" {
		t.Errorf("got %v in the order %s, error %v", medians, order, err)
	}
	broken := errors.New("broken")
	if _, err := r.InTurns(3, []Task{task("c", broken)}); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
}

// TestRegistry: it answers until the group ends, and is not started when it is
// too late; that it ended by itself is an error.
func TestRegistry(t *testing.T) {
	if _, missing := LookRegistry(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := New(ctx, Settings{})
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	host, err := r.Registry()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Registry(); err != nil || again != host {
		t.Errorf("asked again: %s, %v", again, err)
	}
	d, err := r.start(func() bool { return true }, (*Daemon).kill, nil, "true")
	if err != nil {
		t.Fatal(err)
	}
	<-d.done
	if err := r.cleanUp(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("a daemon ended by itself: %v", err)
	}
	if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
		resp.Body.Close()
		t.Error("the registry still answers")
	}
	os.RemoveAll(r.Dir)
	cancel()
	r = New(ctx, Settings{})
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Registry(); !errors.Is(err, context.Canceled) {
		t.Errorf("started when it is too late: %v", err)
	}
	if err := r.cleanUp(); err != nil {
		t.Error(err)
	}
}

// TestOnce: a finished file is there for the next run, a half-made one is not.
func TestOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "file")
	broken := errors.New("broken")
	err := Once(path, func(part string) error { return errors.Join(os.WriteFile(part, []byte("half"), 0o666), broken) })
	if !errors.Is(err, broken) {
		t.Fatalf("got error %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("half a file is there")
	}
	made := 0
	for range 2 {
		err := Once(path, func(part string) error {
			made++
			return os.Mkdir(part, 0o777)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}

// write makes files and returns their names.
func write(t *testing.T, dir string, contents ...string) []string {
	t.Helper()
	var names []string
	for i, c := range contents {
		name := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(name, []byte(c), 0o666); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// TestReadFiles: any number of threads reads all, and each byte counts.
func TestReadFiles(t *testing.T) {
	names := write(t, t.TempDir(), "one", "two", strings.Repeat("x", 3<<20), "")
	one, err := readFiles(names, 1, true)
	if err != nil || one.Bytes != 6+3<<20 || one.Sum == 0 {
		t.Fatalf("got %v and error %v", one, err)
	}
	four, err := readFiles(names, 4, true)
	if err != nil || four.Bytes != one.Bytes || four.Sum != one.Sum {
		t.Errorf("four threads: got %v and error %v, one thread got %v", four, err, one)
	}
	if quick, err := readFiles(names, 2, false); err != nil || quick.Bytes != one.Bytes || quick.Sum != 0 {
		t.Errorf("without checksums: got %v and error %v", quick, err)
	}
	if err := os.WriteFile(names[1], []byte("twO"), 0o666); err != nil {
		t.Fatal(err)
	}
	if other, err := readFiles(names, 1, true); err != nil || other.Sum == one.Sum {
		t.Errorf("another byte: got %v and error %v", other, err)
	}
	if err := errors.Join(os.WriteFile(names[0], []byte("two"), 0o666), os.WriteFile(names[1], []byte("one"), 0o666)); err != nil {
		t.Fatal(err)
	}
	if other, err := readFiles(names, 1, true); err != nil || other.Sum == one.Sum {
		t.Errorf("two files in each other's place: got %v and error %v", other, err)
	}
	if _, err := readFiles(append(names, "/nowhere/at/all"), 4, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: got error %v", err)
	}
}

func TestReadPages(t *testing.T) {
	big := strings.Repeat("x", 10*pageSize+7)
	names := write(t, t.TempDir(), big, "small")
	for _, random := range []bool{true, false} {
		got, err := readPages(names[:1], 25, random)
		if err != nil || got.Bytes != 25*pageSize || got.Sum != 25*'x' {
			t.Errorf("random %t: got %v and error %v", random, got, err)
		}
	}
	if _, err := readPages(names, 1, true); err == nil {
		t.Error("a page of a file of 5 bytes")
	}
}

func TestRunRead(t *testing.T) {
	names := strings.Join(write(t, t.TempDir(), "one", "two"), "\x00")
	for _, c := range []struct {
		args []string
		each int
	}{{[]string{"check", "2"}, 0}, {[]string{"each", "1us"}, 2}} {
		var stdout, stderr bytes.Buffer
		if code := RunRead(c.args, strings.NewReader(names), &stdout, &stderr); code != 0 {
			t.Fatalf("exit code %d: %s", code, &stderr)
		}
		var r Reading
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || r.Bytes != 6 || r.Took <= 0 || len(r.Each) != c.each {
			t.Errorf("%q: got %v and error %v", c.args, r, err)
		}
	}
	for _, args := range [][]string{nil, {"open"}, {"open", "many"}, {"each", "1"}, {"otherwise", "1"}} {
		if code := RunRead(args, strings.NewReader(names), io.Discard, io.Discard); code != 1 {
			t.Errorf("%q: exit code %d, want 1", args, code)
		}
	}
}

// TestParseShare reads what Linux 6.18 says.
func TestParseShare(t *testing.T) {
	text := "00400000-7ffd rollup\nRss: 11000 kB\nPss: 3000 kB\nPrivate_Clean: 1000 kB\nPrivate_Dirty: 500 kB\nAnonymous: 400 kB\n"
	got, err := parseShare(text)
	if want := (Share{Proportional: 3000 << 10, Private: 1500 << 10, Anonymous: 400 << 10}); err != nil || got != want {
		t.Errorf("got %+v and error %v, want %+v", got, err, want)
	}
	if _, err := parseShare("Rss: 1 kB"); err == nil {
		t.Error("something without PSS is a share")
	}
}
