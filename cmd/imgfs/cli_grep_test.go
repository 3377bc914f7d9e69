//go:build linux

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/grep"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// grep runs imgfs grep in a tree's image.
func (r *realTree) grep(t *testing.T, flags, patterns []string, paths ...string) result {
	t.Helper()
	args := append(append([]string{"grep", r.cache}, flags...), "--")
	return invoke(t, append(append(append(args, patterns...), r.image), paths...)...)
}

// TestGrepIsGrep compares imgfs grep with GNU grep -E, byte for byte.
func TestGrepIsGrep(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	need(t, "grep")
	r := newTextTree(t)
	succeed(t, "index", r.cache, r.image)
	context := "text/context"
	for _, c := range []struct{ flags, pattern, paths string }{
		{"", "root", "etc/passwd"}, {"", "root", "etc/passwd text/many"}, {"-r", "root", "etc"}, {"-r", "root", "etc/passwd"}, {"-r", "root", "text"}, {"-r", "root", "."}, {"-r", "root", "etc/ text/"}, {"-rn", "root", "text"}, {"-rb", "root", "text"}, {"-rnb", "root", "text"},
		{"-rH", "root", "etc/passwd"}, {"-rh", "root", "etc"}, {"-H", "root", "etc/passwd"}, {"-h", "root", "etc/passwd text/many"}, {"-hH", "root", "etc/passwd"},
		{"-i", "ROOT", "text/words"}, {"-ri", "rOoT", "."}, {"-ri", "äpfel", "text"}, {"-i", "port", "etc/conf.d/a.conf"}, {"-iF", "(ROOT)", "text/words"}, {"-i", "LINE|task", "text/many"}, {"-y", "ROOT", "text/words"}, {"-i --no-ignore-case", "ROOT", "text/words"},
		{"-v", "root", "text/many"}, {"-vn", "x", "text/newlines text/empty text/no-end"}, {"-rv", "o", "etc text"}, {"-vc", "root", "text/many"}, {"-v", "", "text/many"}, {"-vi", "PORT", "text/many"},
		{"-w", "root", "text/words"}, {"-wo", "root", "text/words"}, {"-wn", "root|port", "text/words"}, {"-wi", "root", "text/words"}, {"-wF", "root", "text/words"}, {"-w", "(root)", "text/words"}, {"-woF", "root", "text/words"}, {"-wF", "(root)", "text/words"}, {"-wv", "root", "text/words"}, {"-rw", "root", "."}, {"-wo", "r[a-z]+", "text/words"}, {"-wob", "^root|root$", "text/words"}, {"-w", "roo", "text/words"},
		{"-x", "root", "text/words"}, {"-xF", "root", "text/words"}, {"-xi", "root|port", "text/many"}, {"-rx", "root", "text"}, {"-x", "", "text/newlines"}, {"-xv", "root", "text/many"},
		{"-c", "root", "text/many"}, {"-rc", "root", "."}, {"-c", "root", "text/many etc/passwd text/empty"}, {"-cv", "root", "text/newlines text/empty"}, {"-rcZ", "root", "etc"},
		{"-rl", "root", "."}, {"-rL", "root", "."}, {"-l", "nowhere", "etc/passwd"}, {"-L", "root", "etc/passwd"}, {"-L", "nothing", "etc/passwd"}, {"-rlZ", "root", "."}, {"-rLZ", "root", "etc"}, {"-lv", "root", "text/many"}, {"-lc", "root", "text/many"},
		{"-o", "r.", "text/words"}, {"-ro", "r[aeiou]*", "text"}, {"-ob", "o", "text/words"}, {"-on", "root|port", "text/many"}, {"-o", "a|ab|abc|x*", "text/words"}, {"-ov", "root", "text/many"}, {"-o", "", "text/many"}, {"-oi", "ROOT", "text/words"}, {"-oF", "oo", "text/words"}, {"-oh", "o", "text/words text/many"}, {"-o", "(root|rootroot)", "text/words"}, {"-c -o", "o", "text/words"},
		{"-n", "root", context}, {"-n -A1", "root", context}, {"-n -B1", "root", context}, {"-n -C1", "root", context}, {"-nC2", "root", context}, {"-C3", "root", context}, {"-A0", "root", context}, {"-nA1 -B2", "root", context}, {"-rnC1", "root", "etc text"}, {"-hC1", "root", "etc/passwd text/many " + context}, {"-C1 --group-separator=##", "root", context}, {"-C1 --no-group-separator", "root", context}, {"-bC1", "root", context}, {"-vC1", "1", context}, {"-C1 -o", "root", context}, {"-cC1", "root", context}, {"-A100 -B100", "15", context}, {"-C 1 -B 0", "root", context},
		{"-m1", "root", context}, {"-m2 -n", "root", context}, {"-m1 -A2", "root", context}, {"-m2 -A5", "root", context}, {"-m1 -A5 -n", "root", "text/many " + context}, {"-m0", "root", context}, {"-m2 -c", "root", context}, {"-rm1", "root", "."}, {"-m1 -v", "root", context}, {"-m1 -o", "o", "text/words"}, {"-m 1 -l", "root", context}, {"-m1 -B1", "root", context},
		{"-q", "root", "etc/passwd"}, {"-q", "nothing", "etc/passwd"}, {"--silent", "root", "nowhere etc/passwd"}, {"-q", "root", "nowhere"}, {"-rq", "root", "."}, {"-qs", "root", "nowhere"},
		{"", "root", "nowhere"}, {"", "root", "etc/passwd nowhere"}, {"-s", "root", "nowhere etc/passwd"}, {"", "root", "etc"}, {"", "root", "etc etc/passwd"}, {"-s", "root", "etc etc/passwd"}, {"-r", "root", "nowhere etc"}, {"", "root", "etc/dangling"}, {"", "root", "etc/loop"}, {"-l", "root", "etc text/one"},
		{"", "root", "link-file"}, {"-r", "root", "link-dir"}, {"-r", "root", "link-dir/"}, {"-R --exclude=fifo", "root", "text/up"}, {"-R --exclude=fifo --exclude=dangling --exclude=loop", "root", "."},
		{"-r --include=*.conf", "root", "etc"}, {"-r --exclude=*.conf", "root", "etc"}, {"-r --include=*.c --include=*.h", "root", "excluded"}, {"-r --exclude-dir=.git", "root", "excluded"}, {"-r --exclude-dir=.git --exclude-dir=keep/", "root", "."}, {"-r --include=*.[ch] --exclude=root.h", "root", "."}, {"-r --exclude=root.h --include=*.[ch]", "root", "."}, {"-r --exclude-dir=etc", "root", "etc text"}, {"-r --exclude=passwd", "root", "etc/passwd etc"}, {"--exclude=passwd", "root", "etc/passwd text/many"}, {"--include=many", "root", "etc/passwd text/many"}, {"-r --exclude=conf.d/*", "root", "etc"}, {"-r --exclude-dir=conf*", "root", "etc"}, {"-r --include=passwd", "root", "etc text/many"},
		{"", "root", "binary/nul"}, {"", "root", "binary/nul-late"}, {"", "root", "binary/latin1"}, {"", "root", "binary/latin1-root"}, {"-v", "root", "binary/latin1"}, {"", "root", "binary/match-first"}, {"-a", "root", "binary/nul"}, {"-ra", "root", "binary"}, {"-rI", "root", "binary"}, {"-r --binary-files=text", "root", "binary"}, {"-r --binary-files=without-match", "root", "binary"}, {"-rc", "root", "binary"}, {"-rcI", "root", "binary"}, {"-rl", "root", "binary"}, {"-rLI", "root", "binary"}, {"-ro", "root", "binary"}, {"-rn", "line", "binary"}, {"-rv", "zzz", "binary"}, {"-o", "r..t", "binary/latin1-root"}, {"-o", ". root", "binary/latin1-root"}, {"-C1", "root", "binary/latin1"}, {"-rcv", "root", "binary"}, {"-rq", "root", "binary"}, {"-rm1", "root", "binary"}, {"-a", "l", "binary/sparse"}, {"-c", "", "binary/nul"},
		{"", "", "text/many text/empty text/newline"}, {"-c", "", "text/empty"}, {"", "^$", "text/newlines"}, {"-n", "^", "text/no-end"}, {"-n", "$", "text/no-end text/newlines"}, {"", "root$", "text/no-end text/crlf"}, {"", "\r$", "text/crlf"}, {"-c", "root", "text/cr text/crlf"}, {"", "^\t", "text/tabs"},
		{"-F", "a.*", "text/many"}, {"-F", "o:x", "etc/passwd"}, {"", "ro{2}t", "etc/passwd"}, {"", "(ro)+t", "etc/passwd"}, {"", "^(root|nobody)", "etc/passwd"}, {"", "[[:digit:]]{5}", "etc/passwd"}, {"", "grün|日本", "text/utf8"}, {"-o", "gr.n", "text/utf8"}, {"-c", "xroot", "text/long"}, {"-o", "xroot.", "text/long"}, {"", ".*root.*", "text/many"}, {"", "a.line", "text/many"}, {"-E", "a?root", "text/words"},
		{"-e root -e port", "", "text/many"}, {"-e root -e ROOT -o", "", "text/words"}, {"-F -e root -e port", "", "text/many"}, {"-F -e roo -e rootroot -o", "", "text/words"}, {"-e r -w -e root", "", "text/words"}, {"-x -F -e root -e port -n", "", "text/many"}, {"-r -e -v", "", "dash"},
		{"-r", "root", "odd"}, {"-rc", "root", "odd"}, {"-rlZ", "root", "odd"}, {"-rn", "root", "dash"},
		{"--color=always", "root", "etc/passwd"}, {"--color=always -rn", "root", "etc"}, {"--color=always -o", "o", "text/words"}, {"--color=always -C1", "root", context}, {"--color=always -v", "root", "text/many"}, {"--color=always -vC1", "root", "text/many"}, {"--color=always -rl", "root", "etc"}, {"--color=always -rc", "root", "etc"}, {"--color=always -rcZ", "root", "etc"}, {"--color=always -w", "root", "text/words"}, {"--color=never", "root", "text/many"}, {"--color=always", "^", "text/many"}, {"--color=always -nb -T", "root", ""},
	} {
		if c.paths == "" {
			continue
		}
		t.Run(strings.Join([]string{c.flags, c.pattern, c.paths}, " "), func(t *testing.T) {
			flags, paths := strings.Fields(c.flags), strings.Fields(c.paths)
			var patterns []string
			if !strings.Contains(c.flags, "-e ") {
				patterns = []string{c.pattern}
			}
			want := inTree(t, r.dir, nil, "grep", append(append(append([]string{"-E"}, flags...), "--"), append(patterns, paths...)...)...)
			if strings.Contains(c.flags, "F") {
				want = inTree(t, r.dir, nil, "grep", append(append(flags, "--"), append(patterns, paths...)...)...)
			}
			got := r.grep(t, flags, patterns, paths...)
			if !sameFiles(got.stdout, want.stdout) || got.code != want.code {
				t.Errorf("got exit code %d\n%.2000q\nwant %d\n%.2000q\nstderr\n%s%s", got.code, got.stdout, want.code, want.stdout, got.stderr, want.stderr)
			}
			if n, m := strings.Count(got.stderr, "\n"), strings.Count(want.stderr, "\n"); n != m {
				t.Errorf("got %d lines on stderr, want %d:\n%s%s", n, m, got.stderr, want.stderr)
			}
		})
	}
}

// TestGrepJSON reads what --json prints, also of text that is no UTF-8.
func TestGrepJSON(t *testing.T) {
	alone(t)
	r := newTextTree(t)
	var rows []grep.Row
	got := r.grep(t, []string{"--json", "-ra"}, []string{"root"}, "binary/latin1-root", "etc/conf.d")
	if err := show.Unmarshal([]byte(got.stdout), &rows); err != nil || got.code != 0 || len(rows) != 4 {
		t.Fatalf("got exit code %d, error %v, %d rows\n%s", got.code, err, len(rows), got.stdout)
	}
	if r := rows[0]; r.Text != "gr\xfcn root" || r.Path != "/binary/latin1-root" || r.Line != 1 || *r.Offset != 0 || !slices.Equal(r.Matches, []grep.Match{{Begin: 5, End: 9}}) {
		t.Errorf("got %+v", r)
	}
	if r := rows[2]; r.Text != "root = /srv" || r.Path != "/etc/conf.d/a.conf" || r.Line != 4 || *r.Offset != 18 {
		t.Errorf("got %+v", r)
	}
}

func TestGrepRefuses(t *testing.T) {
	alone(t)
	r := newTextTree(t)
	for flag, says := range map[string]string{"-P": "patterns are RE2's", "-G": "patterns are RE2's", "-mx": "a number of lines", "--binary-files=x": "one of binary"} {
		checkRefusal(t, r.grep(t, []string{flag}, []string{"x"}, "etc/passwd"), cli.ExitUsage, []string{says}, "imgfs help grep")
	}
	checkRefusal(t, r.grep(t, nil, []string{"a(b"}, "etc/passwd"), cli.ExitUsage, []string{"missing closing )"}, "-F")
	checkRefusal(t, r.grep(t, nil, []string{`\<a`}, "etc/passwd"), cli.ExitUsage, []string{"no beginning of a word"}, `\b`)
	checkRefusal(t, r.grep(t, nil, []string{"x"}), cli.ExitUsage, []string{"-r searches all of it"}, "imgfs help grep")
	checkRefusal(t, r.grep(t, []string{"-f", "/no/where"}, nil, "etc/passwd"), 2, []string{"/no/where: no such file"}, "")
	checkRefusal(t, r.grep(t, nil, []string{"x"}, "nowhere"), 2, []string{"nowhere: no such file"}, "")
}

// TestGrepSparse searches a file of 1 TiB with little in it: its holes are not read, and
// no line of it is kept in memory.
func TestGrepSparse(t *testing.T) {
	alone(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, func(a *labimage.Archive) error {
		return a.Sparse("huge", 1<<40, labimage.Chunk{Off: 1 << 39, Data: "some\nroot\nlines\n"}, labimage.Chunk{Off: 1<<40 - 5, Data: "root\n"})
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flag, pattern, want string
		code                int
	}{{"-c", "root", "2\n", 0}, {"-l", "root", "huge\n", 0}, {"-c", "nothing", "0\n", 1}, {"-l", "n[a-z]", "huge\n", 0}} {
		begun := time.Now()
		got := invoke(t, "grep", "--cache-dir="+t.TempDir(), c.flag, c.pattern, "oci:"+layout, "huge")
		if got.stdout != c.want || got.code != c.code || time.Since(begun) > 20*time.Second {
			t.Errorf("%s %s: got exit code %d, %q after %v\n%s", c.flag, c.pattern, got.code, got.stdout, time.Since(begun), got.stderr)
		}
	}
}

// sameFiles reports whether two outputs have the same lines. GNU grep takes the files of a
// directory as the disk has them.
func sameFiles(a, b string) bool {
	return a == b || strings.Count(a, "\n")+strings.Count(a, "\x00") > 1 && sortedText(a) == sortedText(b)
}

func sortedText(s string) string {
	lines := strings.SplitAfter(strings.ReplaceAll(s, "\x00", "\x00\n"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
