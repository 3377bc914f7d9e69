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

// FuzzPlaceOf holds clean against path.Clean, and placeOf against the rules
// written down once more.
func FuzzPlaceOf(f *testing.F) {
	for _, s := range []string{
		"", ".", "..", "a/../../b", "./a//b/", "a/.wh.b", ".wh..wh..opq", "x/.wh..wh.y/z", ".wh...", "\xff/\n",
		".wh.a/b", "a/.wh..wh..opq/", ".wh..wh..opq/.wh.x", "/.wh./..", ".wh.wh.x", "a/.wh..wh.", ".wh..wh..opqx", "..wh.x", ".WH.x", ".wh.", "a/.wh../", ".wh..wh.x/.wh..wh..opq",
	} {
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
		p, err := placeOf(name)
		if want, wantErr := placeByRules(name, got, escapes); p != want || err != wantErr {
			t.Errorf("placeOf(%q): got %+v, %v, want %+v, %v", name, p, err, want, wantErr)
		}
		again, _ := clean(got)
		q, errAgain := placeOf("./" + got + "/")
		if again != got || !escapes && name != "" && (p != q || err != errAgain) {
			t.Errorf("placeOf(%q): %+v, %v, of the cleaned %q: %+v, %v", name, p, err, got, q, errAgain)
		}
	})
}

// placeByRules is what docs/semantics.md says of a name, component by component.
func placeByRules(name, cleaned string, escapes bool) (place, error) {
	switch {
	case name == "":
		return place{kind: kindNone}, nil
	case escapes:
		return place{}, ErrEscape
	case cleaned == "":
		return place{kind: kindRoot}, nil
	}
	parts := strings.Split(cleaned, "/")
	dir, base := strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
	switch base {
	case ".wh.", ".wh..", ".wh...":
		return place{}, ErrWhiteoutName
	}
	for _, c := range parts[:len(parts)-1] {
		if strings.HasPrefix(c, ".wh..wh.") {
			return place{kind: kindReserved, dir: cleaned}, nil
		}
	}
	switch {
	case base == ".wh..wh..opq":
		return place{kind: kindOpaque, dir: dir}, nil
	case strings.HasPrefix(base, ".wh..wh."):
		return place{kind: kindReserved, dir: cleaned}, nil
	case strings.HasPrefix(base, ".wh."):
		return place{kindWhiteout, dir, base[len(".wh."):]}, nil
	}
	return place{kindEntry, dir, base}, nil
}
