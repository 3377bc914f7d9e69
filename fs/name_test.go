package fs

import (
	"path"
	"strings"
	"testing"
)

func TestPlaceOf(t *testing.T) {
	for _, c := range []struct {
		name string
		want place
		err  error
	}{
		{"", place{kind: kindNone}, nil},
		{"/", place{kind: kindRoot}, nil},
		{"././/.", place{kind: kindRoot}, nil},
		{"a/..", place{kind: kindRoot}, nil},
		{"..", place{}, ErrEscape},
		{"/..", place{}, ErrEscape},
		{"a/../../a", place{}, ErrEscape},
		{"a", place{kindEntry, "", "a"}, nil},
		{"a/b/", place{kindEntry, "a", "b"}, nil},
		{"./a/b", place{kindEntry, "a", "b"}, nil},
		{"//a//b/./c/../d", place{kindEntry, "a/b", "d"}, nil},
		{"...", place{kindEntry, "", "..."}, nil},
		{"a.wh.b", place{kindEntry, "", "a.wh.b"}, nil},
		{".wh", place{kindEntry, "", ".wh"}, nil},
		{".wh.a/b", place{kindEntry, ".wh.a", "b"}, nil},
		{"a/.wh.b", place{kindWhiteout, "a", "b"}, nil},
		{"a/.wh.b/", place{kindWhiteout, "a", "b"}, nil},
		{"a/.wh.b/.", place{kindWhiteout, "a", "b"}, nil},
		{".wh.b/..", place{kind: kindRoot}, nil},
		{".wh.wh.", place{kindWhiteout, "", "wh."}, nil},
		{".wh....", place{kindWhiteout, "", "..."}, nil},
		{".wh.", place{}, ErrWhiteoutName},
		{"a/.wh..", place{}, ErrWhiteoutName},
		{"a/.wh.../", place{}, ErrWhiteoutName},
		{".wh..wh..opq", place{kindOpaque, "", ""}, nil},
		{"a/.wh..wh..opq/", place{kindOpaque, "a", ""}, nil},
		{".wh..wh..opq/a", place{kind: kindReserved, dir: ".wh..wh..opq/a"}, nil},
		{".wh..wh..opqx", place{kind: kindReserved, dir: ".wh..wh..opqx"}, nil},
		{"a/.wh..wh.", place{kind: kindReserved, dir: "a/.wh..wh."}, nil},
		{"a/.wh..wh.x/.wh.b", place{kind: kindReserved, dir: "a/.wh..wh.x/.wh.b"}, nil},
		{".wh..wh.x/.wh..wh..opq", place{kind: kindReserved, dir: ".wh..wh.x/.wh..wh..opq"}, nil},
	} {
		if got, err := placeOf(c.name); got != c.want || err != c.err {
			t.Errorf("placeOf(%q): got %+v, %v, want %+v, %v", c.name, got, err, c.want, c.err)
		}
	}
}

// FuzzPlaceOf holds clean against path.Clean, and placeOf against clean.
func FuzzPlaceOf(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/../../b", "./a//b/", "a/.wh.b", ".wh..wh..opq", "x/.wh..wh.y/z", ".wh...", "\xff/\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, escapes := clean(name)
		if want := path.Clean("/" + name)[1:]; got != want {
			t.Errorf("clean(%q): got %q, want %q", name, got, want)
		}
		rel := path.Clean(strings.TrimLeft(name, "/"))
		if want := rel == ".." || strings.HasPrefix(rel, "../"); escapes != want {
			t.Errorf("clean(%q): escapes %v, want %v", name, escapes, want)
		}
		again, _ := clean(got)
		p, err := placeOf(name)
		q, errAgain := placeOf("./" + got + "/")
		if again != got || !escapes && name != "" && (p != q || err != errAgain) {
			t.Errorf("placeOf(%q): %+v, %v, of the cleaned %q: %+v, %v", name, p, err, got, q, errAgain)
		}
		if p.kind == kindEntry && (strings.HasPrefix(p.base, whiteoutPrefix) || isReserved(p.dir) || p.base == "") {
			t.Errorf("placeOf(%q): an entry %+v", name, p)
		}
		if p.kind == kindWhiteout && (p.base == "" || p.base == "." || p.base == "..") {
			t.Errorf("placeOf(%q): a whiteout of %q", name, p.base)
		}
	})
}
