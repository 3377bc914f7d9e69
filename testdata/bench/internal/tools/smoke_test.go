package tools

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
)

// small returns the group without what would have to be compiled.
func small(t *testing.T, r *runner.Runner) runner.Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	runnertest.Needs(t, "umoci", "du", "grep", "cp", "diff", "sha256sum")
	return newGroup(r, settings{crane: func() (string, error) { return "", runner.ErrNotBuilt }})
}

// TestSmoke runs all sections on a small image.
func TestSmoke(t *testing.T) {
	r := runnertest.New(t, t.Context())
	runnertest.Measure(t, r, small(t, r))
	for _, s := range r.Group.Sections {
		if len(s.Figures) == 0 {
			t.Errorf("%s: nothing is measured", s.Name)
		}
		for _, f := range s.Figures {
			// A percent of a small image is less than the least that is fetched.
			if f.Missing != "" || f.Met() == "**no**" && f.Unit != "%" {
				t.Errorf("%s: %+v is not met", s.Name, f)
			}
			if f.Theirs == 0 && f.Peer != "" && !strings.Contains(f.Peer, "crane") && !strings.Contains(f.Peer, "podman") {
				t.Errorf("%s: %+v has no peer", s.Name, f)
			}
		}
	}
}

// TestWrongTree: a tar that is not the unpacked tree's ends the bench.
func TestWrongTree(t *testing.T) {
	r := runnertest.New(t, t.Context())
	r.Only = "tar"
	g := small(t, r)
	b := &bench{Runner: r, settings: settings{crane: func() (string, error) { return "", runner.ErrNotBuilt }}}
	g.Prepare = b.prepare
	g.Sections[0].Run = func() error {
		tree, err := b.tree()
		if err != nil {
			return err
		}
		tree.members["usr/lib/lib3.so"] += "0"
		return b.tar()
	}
	if err := r.Measure(g); !errors.Is(err, errWrong) || !strings.Contains(err.Error(), "lib3.so") {
		t.Errorf("got error %v, want %v of lib3.so", err, errWrong)
	}
	if left := runnertest.Left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestInterrupted: an interrupted bench leaves nothing running or mounted.
func TestInterrupted(t *testing.T) {
	runnertest.Interrupt(t, func(r *runner.Runner) runner.Group {
		r.Only = "search"
		return small(t, r)
	})
}

// TestMembers: what tars call a path, and which of the names of a file is the link, makes no
// difference; content and metadata do.
func TestMembers(t *testing.T) {
	pack := func(all ...tar.Header) members {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range all {
			text := "text"
			if h.Typeflag == tar.TypeReg {
				h.Size = int64(len(text))
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				w.Write([]byte(text))
			}
		}
		w.Close()
		m, err := readMembers(&out)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := pack(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeReg, Name: "./a", Mode: 0o644}, tar.Header{Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a"})
	other := pack(tar.Header{Typeflag: tar.TypeReg, Name: "b", Mode: 0o644}, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"})
	if d := one.differ(other); len(one) != 2 || len(d) > 0 {
		t.Errorf("%v and %v differ in %q", one, other, d)
	}
	third := pack(tar.Header{Typeflag: tar.TypeReg, Name: "b", Mode: 0o600}, tar.Header{Typeflag: tar.TypeDir, Name: "c/"})
	if got, want := one.differ(third), []string{"a", "b", "c"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := readMembers(strings.NewReader("no tar")); err == nil {
		t.Error("no tar is a tar")
	}
}

func TestSortedLines(t *testing.T) {
	sum := strings.Repeat("0", 64)
	got := sortedLines("7\t/t\n/t/b\n/t\nh:/a\n"+sum+"  /t/x  y\n\\"+sum+"  h:/z\\n\n", "\n", []string{"h:", filepath.FromSlash("/t")})
	want := []string{sum + "  x  y", "7\t", "\\" + sum + "  z\\n", "a", "b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
