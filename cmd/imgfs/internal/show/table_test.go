package show

import (
	"bytes"
	"strings"
	"testing"
)

// images is a table as imgfs cache ls has it.
func images(width int) *Table {
	t := NewTable(width, Column{Title: "IMAGE", Least: 12}, Column{Title: "LAYERS", Drop: 2}, Column{Title: "SHARE", Drop: 1}, Column{Title: "ON", Wrap: true})
	t.Row("registry.example.org/some/where/app:latest", "3", "100%", "a b c d e f")
	t.Row("日本語のとても長い名前:latest", "12", "3%", "-")
	t.Row("x", "1", "", "")
	return t
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, `
IMAGE                                       LAYERS  SHARE  ON
registry.example.org/some/where/app:latest  3       100%   a b c d e f
日本語のとても長い名前:latest               12      3%     -
x                                           1
`},
		{60, `
IMAGE                             LAYERS  SHARE  ON
registry.example…here/app:latest  3       100%   a b c d e f
日本語のとても長い名前:latest     12      3%     -
x                                 1
`},
	} {
		var b bytes.Buffer
		if err := images(c.width).Print(&b); err != nil || "\n"+b.String() != c.want {
			t.Errorf("width %d, error %v: got\n%s\nwant%s", c.width, err, b.String(), c.want)
		}
	}
}

// No line is wider than a table may be, however narrow that is, and what is left out
// is named.
func TestTableFits(t *testing.T) {
	for width := 1; width < 100; width++ {
		var b bytes.Buffer
		if err := images(width).Print(&b); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("on %d columns a line ends with a blank: %q", width, line)
			}
			if n := textWidth(strings.TrimSuffix(line, "\n")); n > max(width, 4) { // two columns and what is between them
				t.Errorf("on %d columns a line of %d: %q", width, n, line)
			}
		}
		text := strings.Join(strings.Fields(b.String()), " ")
		if width >= 50 && strings.Contains(text, "LAYERS") != strings.Contains(strings.Split(b.String(), "\n")[0], "LAYERS") {
			t.Errorf("on %d columns it is not said that LAYERS is left out, or is said for nothing:\n%s", width, b.String())
		}
	}
	var b bytes.Buffer
	if err := images(32).Print(&b); err != nil || !strings.Contains(b.String(), "no room for SHARE: ") || !strings.Contains(b.String(), "LAYERS") {
		t.Errorf("error %v, on 32 columns:\n%s", err, b.String())
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abc…fg"},
		{"abcdefg", 1, "…"},
		{"abcdefg", 0, ""},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日…語"},
		{"日本語", 4, "日…"},
		{"e\u0301e\u0301e\u0301e\u0301", 4, "e\u0301e\u0301e\u0301e\u0301"},
	} {
		if got := Shorten(c.text, c.width); got != c.want {
			t.Errorf("Shorten(%q, %d): got %q, want %q", c.text, c.width, got, c.want)
		}
	}
	for width := range 20 {
		for _, text := range []string{"日本語のとても長い名前", strings.Repeat("e\u0301", 30), "😀😀😀😀😀😀😀😀😀😀😀", "sha256:0123456789abcdef0123456789abcdef"} {
			if got := Shorten(text, width); textWidth(got) > width {
				t.Errorf("Shorten(%q, %d): %q takes %d columns", text, width, got, textWidth(got))
			}
		}
	}
}

func TestShortenEnd(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abcde…"},
		{"abcdefg", 1, "…"},
		{"abcdefg", 0, ""},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"e\u0301e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	} {
		if got := ShortenEnd(c.text, c.width); got != c.want {
			t.Errorf("ShortenEnd(%q, %d): got %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	const text = "/home/somebody/.cache/imgfs: 1.2 MB on disk, of at most 10.0 GB"
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, text},
		{80, text},
		{40, "/home/somebody/.cache/imgfs: 1.2 MB on\n  disk, of at most 10.0 GB"},
		{16, "/home/so…/imgfs:\n  1.2 MB on\n  disk, of at\n  most 10.0 GB"},
	} {
		if got := Wrap(c.width, text); got != c.want {
			t.Errorf("Wrap(%d): got\n%s\nwant\n%s", c.width, got, c.want)
		}
	}
	for width := 1; width < 70; width++ {
		for line := range strings.SplitSeq(Wrap(width, text), "\n") {
			if textWidth(line) > width {
				t.Errorf("on %d columns a line of %d: %q", width, textWidth(line), line)
			}
		}
	}
}
