package serve

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// TestStatsFit encodes stats of trees that have too much to tell.
func TestStatsFit(t *testing.T) {
	testenv.Slow(t)
	file := func(n int, name string) FileCost {
		return FileCost{Path: "/" + strings.Repeat(name, n) + "/end", Asked: 1, Fetched: 1}
	}
	for _, c := range []struct {
		name                   string
		layers, busy           int
		files                  []FileCost
		wantLayers, wantFiles  int // -1: some of them
		wantPath, wantPathTail string
	}{
		{"small", 3, 1, []FileCost{file(1, "a"), file(2, "a")}, 3, 2, "/a/end", "/end"},
		{"long paths", 10, 10, repeat(file(4090, "a"), 20), 10, -1, "", "/end"},
		{"long paths that JSON makes longer", 10, 10, repeat(file(4090, "\x01"), 20), 10, 5, "", "/end"},
		{"many idle layers", 4000, 7, repeat(file(1, "a"), 20), 7, 5, "/a/end", "/end"},
		{"many busy layers", 4000, 4000, repeat(file(1, "a"), 20), -1, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Stats{Files: c.files}
			for i := range c.layers {
				l := LayerStats{Digest: digest.FromString(fmt.Sprint(i))}
				if i < c.busy {
					l.Asked = 1
				}
				s.Layers = append(s.Layers, l)
			}
			text := s.encode(MaxStats)
			if len(text) > MaxStats {
				t.Fatalf("%d bytes, want at most %d", len(text), MaxStats)
			}
			var got Stats
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if n := len(got.Layers); n != c.wantLayers && (c.wantLayers >= 0 || n == 0) || n+got.OmittedLayers != c.layers {
				t.Errorf("%d layers, and %d omitted; want %d of %d", n, got.OmittedLayers, c.wantLayers, c.layers)
			}
			if n := len(got.Files); n != c.wantFiles && (c.wantFiles >= 0 || n == 0) || n+got.OmittedFiles != len(c.files) {
				t.Errorf("%d files, and %d omitted; want %d of %d", n, got.OmittedFiles, c.wantFiles, len(c.files))
			}
			for _, f := range got.Files[:min(1, len(got.Files))] {
				if c.wantPath != "" && f.Path != c.wantPath || !strings.HasSuffix(f.Path, c.wantPathTail) {
					t.Errorf("the first path is %q, want %q or an end of %q", f.Path, c.wantPath, c.wantPathTail)
				}
			}
		})
	}
}

func repeat(f FileCost, n int) []FileCost {
	files := make([]FileCost, n)
	for i := range files {
		files[i] = f
	}
	return files
}

// TestStatsCount has an image with one layer twice.
func TestStatsCount(t *testing.T) {
	blob := blobs.Stats{Requests: 2, Fetched: 300, Wasted: 40, Asked: 1000, Hits: 600, Bad: 1, Errors: 5, Present: 900}
	twice := image.LayerStats{Digest: digest.FromString("a"), Size: 900, Reads: 6, Asked: 50, Waits: 1, WaitP50: time.Second, WaitP99: 2 * time.Second, Verified: meta.VerifiedWhole, Blob: blob}
	other := image.LayerStats{Digest: digest.FromString("b"), Size: 10, Blob: blobs.Stats{Requests: 1, Fetched: 10}}
	var s Stats
	s.count(image.Stats{Reads: 7, Asked: 70, Errors: 3, Waits: 2, WaitP50: 20 * time.Millisecond, WaitP99: 1500 * time.Millisecond, Layers: []image.LayerStats{twice, other, twice}})
	want := TotalStats{traffic: traffic{Asked: 70, Fetched: 310, Wasted: 40, Requests: 3, Hits: 600, Bad: 1, Errors: 3},
		reads: reads{Reads: 7, Waits: 2, WaitP50: 0.02, WaitP99: 1.5}}
	if s.Total != want {
		t.Errorf("in all: got %+v, want %+v", s.Total, want)
	}
	first := LayerStats{Digest: twice.Digest, Size: 900, Cached: 900, Verified: "whole",
		traffic: traffic{Asked: 50, Fetched: 300, Wasted: 40, Requests: 2, Hits: 600, Bad: 1, Errors: 5},
		reads:   reads{Reads: 6, Waits: 1, WaitP50: 1, WaitP99: 2}}
	if len(s.Layers) != 3 || s.Layers[0] != first || s.Layers[2] != first || s.Layers[1].Verified != "not" {
		t.Errorf("layers: got %+v", s.Layers)
	}
	if s.Files == nil {
		t.Error("no files are null in JSON")
	}
}

// TestStatsCut has a path that is cut to fit: UTF-8 stays that.
func TestStatsCut(t *testing.T) {
	for _, path := range []string{strings.Repeat("é", 2000), "x" + strings.Repeat("é", 2000), strings.Repeat("日", 1000), strings.Repeat("\xff", 3000), strings.Repeat("\xbf", 3000)} {
		s := Stats{Files: []FileCost{{Path: path}, {Path: path}}}
		var got Stats
		if err := show.Unmarshal(s.encode(4000), &got); err != nil || len(got.Files) == 0 {
			t.Fatalf("%.10q: %d files, error %v", path, len(got.Files), err)
		}
		tail, ok := strings.CutPrefix(got.Files[0].Path, "...")
		if !ok || !strings.HasSuffix(path, tail) || len(tail) < 150 {
			t.Errorf("%.10q: got %q", path, got.Files[0].Path)
		}
	}
}
