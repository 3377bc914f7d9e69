package fuse

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) { os.Exit(runnertest.Main(m.Run)) }

func TestParseVariant(t *testing.T) {
	got, err := ParseVariant(" slow : --one=1 A=b --two")
	if want := (Variant{label: "slow", flags: []string{"--one=1", "--two"}, environment: []string{"A=b"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
	if got, err := ParseVariant("ring: --io-uring=on"); err != nil || !got.uring {
		t.Errorf("got %v and error %v, want one for which the kernel offers io_uring", got, err)
	}
	for _, text := range []string{"", "label", ": --flag", "label: word"} {
		if v, err := ParseVariant(text); err == nil {
			t.Errorf("%q is a variant: %v", text, v)
		}
	}
}

func TestEndless(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a": "abc", "b": "de"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(io.LimitReader(&endless{dir: dir, names: []string{"a", "b"}}, 12))
	if want := "abcdeabcdeab"; err != nil || string(got) != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
}

// testBench returns a bench that has measured nothing yet.
func testBench(systems ...*system) *bench {
	b := &bench{Runner: &runner.Runner{Settings: runner.Settings{Logf: func(string, ...any) {}}}, lacks: map[string]string{}, systems: systems}
	b.Group, b.Now = &figures.Group{}, &figures.Section{}
	return b
}

// TestJudge: the figures follow from the times.
func TestJudge(t *testing.T) {
	b := testBench(&system{name: nameImgfs, mine: true, past: true}, &system{name: "imgfs other", mine: true, variant: Variant{label: "other"}}, &system{name: nameSquash}, &system{name: nameOverlay})
	for system, times := range map[string][]time.Duration{
		nameImgfs: {2 * time.Second, time.Second, 9 * time.Second}, "imgfs other": {time.Second}, nameSquash: {time.Second}, nameOverlay: {4 * time.Second},
	} {
		for _, d := range times {
			b.Now.Took(sequential, system, d)
		}
	}
	b.judge("big")
	got := b.Now.Figures
	want := []figures.Figure{
		{Name: "imgfs: " + sequential, Unit: "s", Ours: 2, Peer: nameOverlay, Theirs: 4, AtLeast: 1 / 1.15},
		{Name: "imgfs other: " + sequential, Unit: "s", Ours: 1, Peer: nameSquash, Theirs: 1, AtLeast: 1},
		{Name: "imgfs: " + randomMap, Unit: "s", Missing: "not measured", Peer: nameOverlay, PeerMissing: "not measured", AtLeast: 1 / 1.3},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i, want := range []string{"yes", "yes", "unknown"} {
		if met := got[i].Met(); met != want {
			t.Errorf("%s: met %q, want %q", got[i].Name, met, want)
		}
	}
	b.Now = &figures.Section{}
	b.judge("start")
	if n := len(b.Now.Figures); n != 2 {
		t.Errorf("%d figures about starts, want two, of the default", n)
	}
	b.systems, b.Now = b.systems[1:], &figures.Section{}
	b.leaveOut(b.systems[1], errors.New("not installed"))
	b.judge("big")
	for _, f := range b.Now.Figures {
		if f.Met() != "unknown" || f.PeerMissing == "not measured" {
			t.Errorf("got %+v, want something unknown for a reason", f)
		}
	}
}

// TestNothing: where nothing can be measured, each wish says why.
func TestNothing(t *testing.T) {
	r := runner.New(t.Context(), runner.Settings{Only: "packed", Logf: t.Logf})
	g := newGroup(r, settings{})
	g.Unable = func() string { return "it needs root" }
	if err := r.Measure(g); err != nil {
		t.Fatal(err)
	}
	if len(r.Group.Sections) != 1 || len(r.Group.Sections[0].Figures) != 2 {
		t.Fatalf("got %+v", r.Group)
	}
	for _, f := range r.Group.Sections[0].Figures {
		if f.Met() != "unknown" || f.Missing != "it needs root" {
			t.Errorf("got %+v", f)
		}
	}
}
