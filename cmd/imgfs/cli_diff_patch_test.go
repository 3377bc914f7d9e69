//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// twoImages writes two layouts with directory d, and returns their names.
func twoImages(t *testing.T, old, new labimage.Layer) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	for i, layer := range []labimage.Layer{old, new} {
		if _, err := labimage.Write(filepath.Join(dir, "ab"[i:i+1]), layer); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + filepath.Join(dir, "a"), "oci:" + filepath.Join(dir, "b")
}

// filesInD is a layer of files in directory d.
func filesInD(contents map[string]string, opts ...labimage.Option) labimage.Layer {
	return func(a *labimage.Archive) error {
		err := a.Dir("d")
		for name, content := range contents {
			err = errors.Join(err, a.File("d/"+name, content, opts...))
		}
		return err
	}
}

// numbered are lines, some of which edit replaces.
func numbered(n int, edit func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if s := edit(i); s == "" {
			fmt.Fprintln(&b, i)
		} else {
			b.WriteString(s)
		}
	}
	return b.String()
}

// patched are old and new contents, by name; "-" is no file.
func patched() map[string][2]string {
	r := rand.New(rand.NewPCG(1, 2))
	all := map[string][2]string{
		"plain": {"a\nb\nc\n", "a\nB\nc\n"}, "with space": {"a\n", "b\n"}, "two  spaces ": {"a\n", "b\n"}, "tab\there": {"a\n", "b\n"}, "new\nline": {"a\n", "b\n"}, `quote"s`: {"a\n", "b\n"},
		`back\slash`: {"a\n", "b\n"}, "gr\xfcn": {"a\n", "b\n"}, "grün": {"a\n", "b\n"}, "esc\x1b[31m": {"a\n", "b\n"}, "--- a": {"a\n", "b\n"}, "x\n+++ b/y": {"a\n", "b\n"},
		"no newline":      {"a\nb", "a\nc"},
		"newline lost":    {"a\nb\n", "a\nb"},
		"newline gained":  {"a\nb", "a\nb\n"},
		"line after none": {"a", "a\nb"},
		"crlf":            {"a\r\nb\r\n", "a\r\nc\r\n"},
		"crlf to lf":      {"a\r\nb\r\n", "a\nb\n"},
		"emptied":         {"a\nb\n", ""},
		"filled":          {"", "a\nb\n"},
		"filled, no end":  {"", "a"},
		"added":           {"-", "a\nb\n"},
		"added, empty":    {"-", ""},
		"removed":         {"a\nb\n", "-"},
		"removed, no end": {"a\nb", "-"},
		"latin":           {"gr\xfcn\n", "gr\xfc\xdfe\n"},
		"like a patch":    {"--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n", "--- b\n+++ a\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n"},
		"controls":        {"a\x1b[2Jb\n\a\n", "a\x1b[2Jc\n\a\n"},
		"near and far": {numbered(60, func(int) string { return "" }), numbered(60, func(i int) string {
			return map[int]string{2: "x\n", 10: "x\ny\n", 14: "z\nz\n", 30: "w\n", 40: "v\nv\nv\n", 46: "u\n", 59: "end"}[i]
		})},
		"every tenth": {numbered(5000, func(int) string { return "" }), numbered(5000, func(i int) string {
			if i%10 == 0 {
				return "x\n"
			}
			return ""
		})},
	}
	for i := range 20 {
		lines := func() string {
			return numbered(r.IntN(60), func(int) string { return strings.Repeat("x", r.IntN(6)) + "\n" })
		}
		all[fmt.Sprintf("random %d", i)] = [2]string{lines(), lines() + strings.Repeat("x", r.IntN(2))}
	}
	return all
}

// TestDiffPatch has patch(1) make the files of the second image of those of the first.
func TestDiffPatch(t *testing.T) {
	testenv.Slow(t)
	need(t, "patch")
	alone(t)
	var sides [2]map[string]string
	dir := t.TempDir()
	for i := range sides {
		sides[i] = make(map[string]string)
		for name, contents := range patched() {
			if contents[i] != "-" {
				sides[i][name] = contents[i]
			}
		}
	}
	for name, content := range sides[0] {
		writeFile(t, filepath.Join(dir, "d", name), content)
	}
	// What an image has of 1970 is a file as any other.
	a, b := twoImages(t, filesInD(sides[0], labimage.ModTime(time.Unix(0, 0))), filesInD(sides[1], labimage.ModTime(time.Unix(0, 0))))
	r := invoke(t, "diff", "-q", "-u", a, b)
	if r.code != exitDifferent || r.stderr != "" {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	patch := writeFile(t, filepath.Join(t.TempDir(), "patch"), r.stdout)
	out := tool(t, "patch", "--binary", "--force", "-p1", "-s", "-d", dir, "-i", patch)
	if out != "" {
		t.Errorf("patch says %s", out)
	}
	sides[1]["added, empty"] = "-" // a patch has no such thing
	for name, want := range sides[1] {
		got, err := os.ReadFile(filepath.Join(dir, "d", name))
		if want == "-" && os.IsNotExist(err) {
			continue
		}
		if err != nil || string(got) != want {
			t.Errorf("%q: patch made %.200q of it, error %v; want %.200q", name, got, err, want)
		}
	}
	for _, name := range filesBelow(t, dir) {
		if _, ok := sides[1][strings.TrimPrefix(name, "d/")]; !ok {
			t.Errorf("%q is left", name)
		}
	}
	if !strings.Contains(r.stdout, "+ /d/added, empty\n") {
		t.Error("an empty file that was added is not told")
	}
	// And back: line numbers of the second side are right, too.
	if out := tool(t, "patch", "--binary", "--force", "-R", "-p1", "-s", "-d", dir, "-i", patch); out != "" {
		t.Errorf("patch -R says %s", out)
	}
	for name, want := range sides[0] {
		if got, err := os.ReadFile(filepath.Join(dir, "d", name)); err != nil || string(got) != want {
			t.Errorf("%q: patch -R made %.200q of it, error %v; want %.200q", name, got, err, want)
		}
	}
}

// TestDiffHunks compares with the hunks that diff -u has where there is but one way.
func TestDiffHunks(t *testing.T) {
	need(t, "diff")
	alone(t)
	for _, name := range []string{"plain", "no newline", "newline lost", "emptied", "filled", "near and far", "every tenth"} {
		contents := patched()[name]
		a, b := twoImages(t, filesInD(map[string]string{"f": contents[0]}), filesInD(map[string]string{"f": contents[1]}))
		got := hunks(succeedWith(t, exitDifferent, "diff", "-q", "-u", a+":/d/f", b+":/d/f"))
		dir := t.TempDir()
		want, _ := exec.CommandContext(t.Context(), "diff", "-u", writeFile(t, dir+"/a", contents[0]), writeFile(t, dir+"/b", contents[1])).Output()
		if w := hunks(string(want)); got != w || w == "" {
			t.Errorf("%s:\n%s", name, differing(got, w))
		}
	}
}

var oneLine = regexp.MustCompile(`(?m)^(@@ .*[-+]\d+) `)

// hunks returns a patch without its head. diff leaves out the number of lines if it is 1.
func hunks(patch string) string {
	_, patch, _ = strings.Cut(patch, "\n")
	_, patch, _ = strings.Cut(patch, "\n")
	for range 2 {
		patch = oneLine.ReplaceAllString(patch, "$1,1 ")
	}
	return strings.ReplaceAll(patch, ",1,1", ",1")
}

// succeedWith is invoke of what ends with an exit code and no message.
func succeedWith(t *testing.T, code int, args ...string) string {
	t.Helper()
	r := invoke(t, args...)
	if r.code != code || r.stderr != "" {
		t.Errorf("imgfs %q: exit code %d, want %d: %s", args, r.code, code, r.stderr)
	}
	return r.stdout
}

// TestDiffOfWhatIsNoText: binary and large files are told in a line, and so are those of
// many lines.
func TestDiffOfWhatIsNoText(t *testing.T) {
	alone(t)
	old := map[string]string{"binary": "\x00a", "large": strings.Repeat("line of a text\n", 600_000), "lines": strings.Repeat("\n", 8<<20), "new\nname": "a\x00"}
	other := map[string]string{"binary": "\x00b", "large": strings.Repeat("line of a test\n", 600_000), "lines": strings.Repeat("\n", 8<<20-1) + "x", "new\nname": "b\x00"}
	a, b := twoImages(t, filesInD(old), filesInD(other))
	begun := time.Now()
	got := succeedWith(t, exitDifferent, "diff", "-q", "-u", a, b)
	want := "Binary files a/d/binary and b/d/binary differ\n" +
		"Files a/d/large and b/d/large differ (9.0 MB: --max-text)\n" +
		"Files a/d/lines and b/d/lines differ (16777215 lines: --max-text)\n" +
		`Binary files "a/d/new\012name" and "b/d/new\012name" differ` + "\n"
	if got != want {
		t.Errorf("got\n%.2000s\nwant\n%s", got, want)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := succeedWith(t, exitDifferent, "diff", "-q", "-u", "--max-text", "1", a+":/d/large", b+":/d/large"); !strings.HasPrefix(got, "Files ") {
		t.Errorf("--max-text 1: got %.200s", got)
	}
}

// TestHugeSizesAddUp: sums of sizes that are too large for a number are the largest one,
// and du has GNU's word for that.
func TestHugeSizesAddUp(t *testing.T) {
	alone(t)
	sparse := func(a *labimage.Archive) error {
		return errors.Join(a.Dir("d"), a.Sparse("d/1", 1<<62), a.Sparse("d/2", 1<<62), a.Sparse("d/3", 1<<63-1))
	}
	for _, removed := range []bool{false, true} {
		a, b := twoImages(t, filesInD(nil), sparse)
		word, sign := "added", "+"
		if removed {
			a, b, word, sign = b, a, "removed", "-"
		}
		got := succeedWith(t, exitDifferent, "diff", "-q", "--stat=1", "--bytes", "--ignore", "time", a, b)
		if want := "3 " + word + " (" + sign + "9223372036854775807)"; !strings.Contains(got, want) || strings.Count(got, sign+"9223372036854775807") != 2 {
			t.Errorf("diff --stat: got\n%s\nwant %q", got, want)
		}
	}
	files := map[string]string{"1": "x", "2": "x", "3": "x"}
	a, b := twoImages(t, filesInD(files), sparse)
	got := succeedWith(t, exitDifferent, "diff", "-q", "--stat", "--bytes", a, b)
	if want := "3 changed (+9223372036854775807)"; !strings.Contains(got, want) {
		t.Errorf("diff --stat: got\n%s\nwant %q", got, want)
	}
	got = succeed(t, "du", "-q", "-b", b, "/d", "/d/1")
	if want := "Infinity\t/d\n"; !strings.HasPrefix(got, want) {
		t.Errorf("du -b: got %q, want %q", got, want)
	}
}
