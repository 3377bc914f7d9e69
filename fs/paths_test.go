package fs_test

import (
	"context"
	"maps"
	"slices"
	"testing"
)

// TestAll has every path once, the root first and each after its directory.
func TestAll(t *testing.T) {
	tree := merge(t, layer(file("b", ""), file("a/z/x", ""), link("a/y", "b"), dir("c/"), file("a/b", "")))
	var got []string
	for path, n := range tree.All() {
		got = append(got, path)
		if looked, err := tree.Lookup(path, false); err != nil || looked != n {
			t.Errorf("%s: %v, %v", path, looked, err)
		}
	}
	if want := []string{"/", "/a", "/b", "/c", "/a/b", "/a/y", "/a/z", "/a/z/x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for path := range tree.All() {
		if path == "/a/b" {
			return
		}
	}
	t.Error("/a/b does not come")
}

func TestFindPaths(t *testing.T) {
	tree := merge(t, layer(file("b", ""), file("a/z/x", ""), link("c", "b")))
	want := map[uint64]string{}
	for path, n := range tree.All() {
		if path != "/c" {
			want[n.Ino()] = path
		}
	}
	got := map[uint64]string{}
	for ino := range want {
		got[ino] = ""
	}
	if tree.FindPaths(t.Context(), got); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	missing := map[uint64]string{99: ""}
	if tree.FindPaths(context.Background(), missing); missing[99] != "" {
		t.Errorf("an inode that is not there has the path %q", missing[99])
	}
}
