//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/grep"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// longLines writes an image with files of so many bytes, and returns its name and the
// flag of a cache with its index.
func longLines(t *testing.T, many int) (image, cache string) {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		for name, content := range map[string]string{
			"long": strings.Repeat("a", many) + "\nfoo\n", "last": "foo\n" + strings.Repeat("b", many) + "\n",
			"lines": strings.Repeat("line\n", many) + "foo\n",
			// Lines that are text, but those that match are not.
			"latin": strings.Repeat("grun\n", 10) + strings.Repeat("gr\xfcn\n", many/32),
		} {
			if err := a.File(name, content); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cache = "--cache-dir=" + t.TempDir()
	succeed(t, "index", cache, "oci:"+layout)
	return "oci:" + layout, cache
}

// TestGrepTime: the time that a file takes grows as its length, whatever its lines are.
// What would be quadratic is said for each case.
func TestGrepTime(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	const many = 12 << 20
	image, cache := longLines(t, many)
	few, fewCache := longLines(t, many/8)
	for _, c := range []struct {
		args, file string
		want       int // bytes, or none if that is 0
	}{
		{"foo", "long", 4},                                        // looking for the end of the line
		{"-m1 -A1 foo", "last", many + 5},                         // and of one that follows
		{"-oF -e aaaaaaaaaaaaaaaa -e zz", "long", many / 16 * 17}, // looking for zz
		{"-cwF -e a -e zz", "long", 2},
		{"-B100000000 foo", "lines", 0}, // keeping what is before a block
		{"-B100000 r.*n", "latin", 50},  // going back from each line
	} {
		times := [2]time.Duration{time.Hour, time.Hour}
		for range 3 {
			for i, where := range [][2]string{{cache, image}, {fewCache, few}} {
				begun := time.Now()
				r := invoke(t, append(append([]string{"grep", where[0]}, strings.Fields(c.args)...), where[1], c.file)...)
				times[i] = min(times[i], time.Since(begun))
				if i == 0 && c.want > 0 && len(r.stdout) != c.want {
					t.Fatalf("%s %s: got exit code %d and %d bytes, want %d\n%s", c.args, c.file, r.code, len(r.stdout), c.want, r.stderr)
				}
			}
		}
		if times[0] > 24*times[1] { // 8 times the bytes; 64 times is quadratic
			t.Errorf("%s %s: took %v, and an eighth of it %v", c.args, c.file, times[0], times[1])
		}
	}
	if got, want := succeed(t, "grep", cache, "-nB2", "foo", image, "lines"), "12582911-line\n12582912-line\n12582913:foo\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var rows []grep.Row
	text := succeed(t, "grep", cache, "--json", "-F", "-e", strings.Repeat("a", 1<<10), image, "long")
	if err := show.Unmarshal([]byte(text), &rows); err != nil || len(rows) < 8 || len(rows) > 12 || *rows[1].Offset != int64(len(rows[0].Text)) {
		t.Errorf("--json: error %v, %d rows", err, len(rows))
	}
}

// TestGrepNumbers: lines have the same numbers, and the same context, wherever a block of
// the file ends.
func TestGrepNumbers(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	need(t, "grep")
	dir := t.TempDir()
	var b strings.Builder
	for i := range 60_000 {
		b.WriteString(strings.Repeat("x", i%7) + strings.Repeat("root", i%97/96) + "\n")
	}
	path := writeFile(t, filepath.Join(dir, "f"), b.String())
	if _, err := labimage.Write(filepath.Join(dir, "layout"), func(a *labimage.Archive) error { return a.File("f", b.String()) }); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-n", "-nB3", "-nB200", "-nC40", "-nA96", "-bB50", "-nvB1", "-ncB9", "-nm500 -C30", "-nB100000"} {
		want := tool(t, "grep", append(strings.Fields(flags), "root", path)...)
		if got := succeed(t, append(append([]string{"grep", "--cache-dir=" + t.TempDir()}, strings.Fields(flags)...), "root", "oci:"+filepath.Join(dir, "layout"), "f")...); got != want {
			t.Errorf("%s: got %d bytes, want %d", flags, len(got), len(want))
		}
	}
}
