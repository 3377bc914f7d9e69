package tarscan

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// TestCases has the cases of docs/semantics.md that are about how a tar is
// read. The others are package fs's.
func TestCases(t *testing.T) {
	plain := rawHeader{name: "f", flag: '0', magic: magicUstar, mode: "644"}
	flagged := func(flag byte) func(*rawTar) {
		return func(w *rawTar) {
			h := plain
			h.flag = flag
			w.entry(h, "content")
			w.end()
		}
	}
	const f = `0 "f" 0644 0:0 0.000000000`
	for _, c := range []struct {
		id, what string
		tar      func(*rawTar)
		want     string
		refused  bool
		err      error // that the refusal wraps as well
	}{
		{id: "F12", what: "typeflag 0 and a name that ends in a slash, with a child", tar: func(w *rawTar) {
			w.header(rawHeader{name: "x/", flag: '0', mode: "755"})
			w.header(rawHeader{name: "x/f", flag: '0', mode: "644"})
			w.end()
		}, want: `5 "x/" 0755 0:0 0.000000000, 0 "x/f" 0644 0:0 0.000000000`},
		{id: "F15", what: "global pax header", tar: func(w *rawTar) {
			w.paxFlag('g', "comment", "a commit", "path", "other", "mtime", "5")
			w.header(plain)
			w.end()
		}, want: f},
		{id: "G06", what: "typeflag 7", tar: flagged('7'), want: f + ` "c"*1 "o"*1 "n"*1 "t"*1 "e"*1 "n"*1 "t"*1`},
		{id: "G07", what: "typeflag Z", tar: flagged('Z'), refused: true},
		{id: "G10", what: "LIBARCHIVE.xattr only", tar: func(w *rawTar) {
			w.pax("LIBARCHIVE.xattr.user.a", "MQ")
			w.header(plain)
			w.end()
		}, want: f},
		{id: "G13", what: "typeflag V", tar: flagged('V'), refused: true},
		{id: "H02", what: "layer of no bytes", tar: func(*rawTar) {}},
		{id: "H04", what: "no blocks at the end", tar: func(w *rawTar) { w.header(plain) }, want: f},
		{id: "H05", what: "garbage after the end", tar: func(w *rawTar) {
			w.header(plain)
			w.end()
			w.WriteString("garbage")
		}, want: f},
		{id: "H06", what: "second tar after the end", tar: func(w *rawTar) {
			w.header(plain)
			w.end()
			w.header(rawHeader{name: "g", flag: '0', magic: magicUstar})
			w.end()
		}, want: f},
		{id: "H07", what: "entry after a single zero block", tar: func(w *rawTar) {
			w.Write(make([]byte, blockSize))
			w.header(plain)
			w.end()
		}, refused: true},
		{id: "H08", what: "content that is cut", tar: func(w *rawTar) {
			w.entry(plain, "content")
			w.Truncate(blockSize + 3)
		}, refused: true, err: io.ErrUnexpectedEOF},
	} {
		t.Run(c.id, func(t *testing.T) {
			var w rawTar
			c.tar(&w)
			entries, err := scanTar(w.Bytes(), 0, nil)
			if c.refused {
				if !errors.Is(err, layerindex.ErrTar) || c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("%s: got %+v, error %v, want it refused, %v", c.what, entries, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			var got []string
			for i := range entries {
				got = append(got, lineOf(t, w.Bytes(), &entries[i]))
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.what, s, c.want)
			}
		})
	}
}
