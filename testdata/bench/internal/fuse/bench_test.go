package fuse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "fuse" && os.Args[2] == readCommand {
		// os.Exit waits for a second in a test with -race.
		syscall.Exit(runRead(os.Args[3:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestParsing(t *testing.T) {
	if got, err := parseMemory("Name:\timgfs\nVmHWM:\t 99999 kB\nVmRSS:\t   12345 kB\nRssAnon:\t     678 kB\n"); err != nil || got != (memoryUse{12345 << 10, 678 << 10}) {
		t.Errorf("memory: got %v and error %v", got, err)
	}
	if _, err := parseMemory("Name:\timgfs\nRssAnon:\t     678 kB\n"); err == nil {
		t.Error("a status without VmRSS has one")
	}
	table := "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /tmp/b rw - fuse x rw\n3 1 0:3 / /tmp/b/c rw - fuse x rw\n4 1 0:4 / /tmp/bb rw - fuse x rw\n"
	if got, want := mountsBelow(table, "/tmp/b"), []string{"/tmp/b/c", "/tmp/b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("mounts: got %q, want %q", got, want)
	}
	if got, err := parseReading("1500 20 3\n"); err != nil || got != (reading{1500, 20, 3}) {
		t.Errorf("reading: got %v and error %v", got, err)
	}
	if _, err := parseReading("1500 20\n"); err == nil {
		t.Error("a reading of two numbers")
	}
}

func TestParseVariant(t *testing.T) {
	got, err := parseVariant(" slow : --one=1 A=b --two")
	if want := (variant{label: "slow", flags: []string{"--one=1", "--two"}, environment: []string{"A=b"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
	if got, err := parseVariant("ring: --io-uring=on"); err != nil || !got.uring {
		t.Errorf("got %v and error %v, want one for which the kernel offers io_uring", got, err)
	}
	for _, text := range []string{"", "label", ": --flag", "label: word"} {
		if v, err := parseVariant(text); err == nil {
			t.Errorf("%q is a variant: %v", text, v)
		}
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
	if err != nil || one.bytes != 6+3<<20 || one.sum == 0 {
		t.Fatalf("got %v and error %v", one, err)
	}
	four, err := readFiles(names, 4, true)
	if err != nil || four.bytes != one.bytes || four.sum != one.sum {
		t.Errorf("four threads: got %v and error %v, one thread got %v", four, err, one)
	}
	if quick, err := readFiles(names, 2, false); err != nil || quick.bytes != one.bytes || quick.sum != 0 {
		t.Errorf("without checksums: got %v and error %v", quick, err)
	}
	if err := os.WriteFile(names[1], []byte("twO"), 0o666); err != nil {
		t.Fatal(err)
	}
	if other, err := readFiles(names, 1, true); err != nil || other.sum == one.sum {
		t.Errorf("another byte: got %v and error %v", other, err)
	}
	if err := errors.Join(os.WriteFile(names[0], []byte("two"), 0o666), os.WriteFile(names[1], []byte("one"), 0o666)); err != nil {
		t.Fatal(err)
	}
	if other, err := readFiles(names, 1, true); err != nil || other.sum == one.sum {
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
		if err != nil || got.bytes != 25*pageSize || got.sum != 25*'x' {
			t.Errorf("random %t: got %v and error %v", random, got, err)
		}
	}
	if _, err := readPages(names, 1, true); err == nil {
		t.Error("a page of a file of 5 bytes")
	}
}

func TestRunRead(t *testing.T) {
	names := strings.Join(write(t, t.TempDir(), "one", "two"), "\x00")
	var stdout, stderr bytes.Buffer
	if code := runRead([]string{"check", "2"}, strings.NewReader(names), &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if r, err := parseReading(stdout.String()); err != nil || r.bytes != 6 || r.took <= 0 {
		t.Errorf("got %v and error %v", r, err)
	}
	for _, args := range [][]string{nil, {"open"}, {"open", "many"}, {"otherwise", "1"}} {
		if code := runRead(args, strings.NewReader(names), io.Discard, io.Discard); code != 1 {
			t.Errorf("%q: exit code %d, want 1", args, code)
		}
	}
}

func TestEndless(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "abc", "de")
	got, err := io.ReadAll(io.LimitReader(&endless{dir: dir, names: []string{"a", "b"}}, 12))
	if want := "abcdeabcdeab"; err != nil || string(got) != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
}

// TestOnce: what was made is there for the next run, what was half made is
// not.
func TestOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "file")
	broken := errors.New("broken")
	err := once(path, func(part string) error { return errors.Join(os.WriteFile(part, []byte("half"), 0o666), broken) })
	if !errors.Is(err, broken) {
		t.Fatalf("got error %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("half a file is there")
	}
	made := 0
	for range 2 {
		err := once(path, func(part string) error {
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

// TestJudge: the figures follow from the rows.
func TestJudge(t *testing.T) {
	b := &bench{section: "S", report: report{Lacks: map[string]string{}}}
	b.systems = []*system{{name: nameImgfs, mine: true, past: true}, {name: "imgfs other", mine: true, variant: variant{label: "other"}}, {name: nameSquash}, {name: nameOverlay}}
	for system, times := range map[string][]time.Duration{
		nameImgfs: {2 * time.Second, time.Second, 9 * time.Second}, "imgfs other": {time.Second}, nameSquash: {time.Second}, nameOverlay: {4 * time.Second},
	} {
		for _, d := range times {
			b.took(sequential, system, d)
		}
	}
	b.judge("big")
	var got []string
	for _, f := range b.report.Figures {
		value := f.Missing
		if f.Value != nil {
			value = figures.Number(*f.Value, f.Unit)
		}
		got = append(got, f.Name+" | "+value+" | "+f.met())
	}
	want := []string{
		"imgfs: " + sequential + ", of overlayfs | 0.500 × | yes",
		"imgfs other: " + sequential + ", of squashfuse_ll | 1 × | yes",
		"imgfs: " + randomMap + ", of overlayfs | not measured | unknown",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	b.report.Figures = nil
	b.judge("start")
	if n := len(b.report.Figures); n != 2 {
		t.Errorf("%d figures about starts, want two, of the default", n)
	}
	b.systems, b.report.Figures = b.systems[1:], nil
	b.report.Lacks[nameSquash] = "not installed"
	b.judge("big")
	for _, f := range b.report.Figures {
		if f.met() != "unknown" || f.Missing == "" || f.Missing == "not measured" {
			t.Errorf("got %v, want something unknown for a reason", f)
		}
	}
}

func TestReport(t *testing.T) {
	value, most := 1.5, 1.2
	r := report{
		Machine: figures.ThisMachine(), Parts: []part{{"S", "go run it"}}, Notes: [][2]string{{"S", "a note"}, {"T", "of another"}},
		Columns: [][2]string{{"one", "the first"}, {"two", "the second"}, {"three", ""}}, Lacks: map[string]string{"two": "not installed"},
		Rows:    []*row{{"S", "walk", map[string][]float64{"one": {0.5, 0.25, 4}, "three": {2}}}, {"S", "read", map[string][]float64{"three": {0.0123456}}}},
		Figures: []figure{{Section: "S", Name: "f", Unit: "×", Value: &value, Most: &most, Note: "n"}, {Section: "S", Name: "g", Missing: "gone", Most: &most}},
	}
	var s strings.Builder
	if err := r.writeMarkdown(&s); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"- one: the first", "- two: left out: not installed", "### S", "To repeat: `go run it`", "- a note",
		"| seconds | one | three |", "| walk | 0.500 | 2 |", "| read |  | 0.0123 |",
		"| f | 1.50 × | ≤ 1.20 × | **no** | n |", "| g | gone | ≤ 1.20 | unknown |  |", "1 figures missed, 1 unknown.",
	} {
		if !strings.Contains(s.String(), "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, &s)
		}
	}
	if strings.Contains(s.String(), "of another") {
		t.Error("a note of another section")
	}
}

// TestNothing: where nothing can be measured, each wish says why.
func TestNothing(t *testing.T) {
	b := &bench{settings: settings{only: "packed"}}
	if err := b.nothing("it needs root"); err != nil {
		t.Fatal(err)
	}
	if len(b.report.Parts) != 1 || len(b.report.Figures) != 2 {
		t.Errorf("got %v", b.report)
	}
	for _, f := range b.report.Figures {
		if f.met() != "unknown" || f.Missing != "it needs root" {
			t.Errorf("got %v", f)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-only", "other", "x"}, {"-runs", "0", "x"}, {"-also", "x", "x"}, {"x", "y"}} {
		var out bytes.Buffer
		if code := Run(context.Background(), args, nil, &out, &out); code != 2 {
			t.Errorf("%q: exit code %d, want 2\n%s", args, code, &out)
		}
	}
}
