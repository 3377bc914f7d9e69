package tarscan

import (
	"bytes"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestOddTars compares what is odd in tars, one thing each, with archive/tar,
// GNU tar, bsdtar and umoci. Where these differ among themselves imgfs is with
// archive/tar; testdata/scanner-odd.golden lists each with its reason.
func TestOddTars(t *testing.T) {
	testenv.Slow(t)
	g := openGolden(t, "scanner-odd.golden")
	gnu, bsd, umoci := gnuTar(), bsdTar(), umociProgram(t)
	for _, odd := range oddTars() {
		var w rawTar
		w.entry(rawHeader{name: "a", flag: '0', magic: magicUstar, mode: "0000644", mtime: "00000000007"}, "first")
		odd.tar(&w)
		w.entry(rawHeader{name: "z", flag: '0', magic: magicUstar, mode: "0000644", mtime: "00000000007"}, "last")
		w.end()
		data := bytes.Clone(w.Bytes())
		if kind, diff := compareReaders(data); diff != "" {
			t.Errorf("%s: %s (%s)", odd.name, diff, kind)
		}
		s := scanned(data)
		var diffs []string
		if gnu != "" {
			diffs = append(diffs, s.gnuDifferences(t, gnu)...)
		}
		if bsd {
			diffs = append(diffs, s.bsdDifferences()...)
		}
		if umoci != "" {
			diffs = append(diffs, s.umociDifferences(t, umoci)...)
		}
		g.check(t, odd.name, diffs)
	}
	g.finish(t, gnu == "" || !bsd || umoci == "")
}
