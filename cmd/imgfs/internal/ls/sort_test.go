package ls

import "testing"

func TestCompareVersions(t *testing.T) {
	// In their order. Those of a line are equal but for their names.
	for i, pairs := range [][2]string{{"a9", "a10"}, {"a1", "a1.0"}, {"a~", "a"}, {"a", "a.b"}, {".a", "a"}, {".", ".."}, {"..", ".a"}, {"1.2", "1.10"}, {"x.tar.gz", "x1.tar.gz"}, {"a.b", "ab"}, {"a01", "a2"}, {"0", "a"}, {"A", "a"}, {"a", "-"}, {"", "."}} {
		if c := compareVersions(pairs[0], pairs[1]); c >= 0 {
			t.Errorf("%d: %q and %q: got %d, want less than 0", i, pairs[0], pairs[1], c)
		}
		if c := compareVersions(pairs[1], pairs[0]); c <= 0 {
			t.Errorf("%d: %q and %q: got %d, want more than 0", i, pairs[1], pairs[0], c)
		}
	}
	if c := compareVersions("a1", "a01"); c != 0 {
		t.Errorf("a1 and a01: got %d, want 0", c)
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("a1.tar.gz", "a10", ".b")
	f.Add("~", "..", "01")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := compareVersions(a, b), compareVersions(b, c), compareVersions(a, c)
		if ab != -compareVersions(b, a) {
			t.Errorf("%q and %q: %d, and turned round %d", a, b, ab, compareVersions(b, a))
		}
		if ab <= 0 && bc <= 0 && ac > 0 {
			t.Errorf("%q, %q, %q: the first is not after the second, nor that after the third, and yet it comes after that", a, b, c)
		}
	})
}
