package hostile

import (
	"fmt"
	"strings"
)

// metadataAttacks want memory for what is not content, or time to put it in
// its place.
func metadataAttacks() []Attack {
	return []Attack{
		{Name: "xattr sets", Kind: "files with 1 MiB of attributes each", Make: xattrSets, Full: 2500, Small: 40, Refused: metadataRefused},
		{Name: "xattrs by hard link", Kind: "hard links that add 900 kB of attributes to one inode", Make: xattrLinks, Full: 1200, Small: 40, Refused: metadataRefused},
		{Name: "same xattrs", Kind: "files that share 60 kB of attributes", Make: sameXattrs, Full: 300_000, Small: 3000, List: "d", Names: func(n int) int { return n }},
		{Name: "long names", Kind: "names of 3,800 bytes with nothing in common", Make: longNames, Full: 300_000, Small: 6000, Refused: metadataRefused},
		{Name: "long targets", Kind: "symlinks to 4,000 bytes", Make: longTargets, Full: 300_000, Small: 6000, Refused: metadataRefused},
		{Name: "extents", Kind: "sparse files with 60,000 extents", Make: extents, Full: 1000, Small: 20, Refused: metadataRefused},
		{Name: "entries", Kind: "empty files", Make: entries, Full: 10_000_000, Small: 100_000, List: "d0", Names: func(n int) int { return min(n, 1000) }},
		{Name: "one directory", Kind: "empty files in one directory", Make: bigDirectory, Full: 1_000_000, Small: 20_000, Names: andSmall},
		{Name: "deep names", Kind: "directories that only names 1,000 deep imply", Make: deepNames, Full: 30_000, Small: 400, Refused: metadataRefused},
		{Name: "layer repeated", Kind: "one layer, again and again", Make: sameLayer, Full: 4000, Small: 400, List: "d0", Names: func(int) int { return 1000 }},
		{Name: "layers by turns", Kind: "two layers of 10,000 entries by turns", Make: turns, Full: 4000, Small: 6, Refused: "entries", SmallOpens: true, List: "d0", Names: func(int) int { return 1000 }},
		{Name: "layers", Kind: "small layers", Make: manyLayers, Full: 5000, Small: 4097, Refused: "layers"},
		{Name: "walks", Kind: "hard links through 39 symlinks of 4,000 bytes", Make: walks, Full: 20_000, Small: 200, Refused: "steps"},
		{Name: "whiteouts", Kind: "files, and a whiteout for each", Make: whiteouts, Full: 1_000_000, Small: 10_000, Names: one},
		{Name: "opaque directories", Kind: "opaque markers in each of 500 directories, one in the other", Make: opaques, Full: 200, Small: 10, Names: one},
		{Name: "hard links", Kind: "hard links, each to the one before", Make: linkChain, Full: 1_000_000, Small: 10_000, Names: func(n int) int { return n + 2 }},
		{Name: "extended header", Kind: "an extended header of MiB", Make: hugePax, Full: 1024, Small: 2, Refused: "extended header"},
	}
}

// filler returns n bytes that i makes unlike all others.
func filler(i, n int) string {
	one := fmt.Sprintf("%08x", i)
	return strings.Repeat(one, n/8)
}

// attributes returns as many records with values of size bytes each.
func attributes(i, count, size int) (records []string) {
	for k := range count {
		records = append(records, fmt.Sprintf("SCHILY.xattr.user.%d.%d", i, k), filler(i*count+k, size))
	}
	return records
}

func xattrSets(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.Pax(attributes(i, 16, 65000)...)
			t.File(fmt.Sprint("f", i), "")
		}
	})
}

func xattrLinks(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		t.File("f", "")
		for i := range n {
			t.Pax(attributes(i, 14, 64000)...)
			t.Entry('1', fmt.Sprint("l", i), "f", "")
		}
	})
}

func sameXattrs(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.Pax("SCHILY.xattr.user.same", filler(0, 60000))
			t.File(fmt.Sprint("d/", i), "")
		}
	})
}

func longNames(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			part := filler(i, 240)
			t.File(strings.Repeat(part+"/", 15)+part, "")
		}
	})
}

func longTargets(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.Entry('2', fmt.Sprint("s", i), filler(i, 4000), "")
		}
	})
}

// extents writes PAX sparse files, version 1.0, of one byte in two.
func extents(m *Image, n int) {
	const count = 60_000
	var table strings.Builder
	fmt.Fprintln(&table, count)
	for i := range count {
		fmt.Fprintf(&table, "%d\n1\n", 2*i)
	}
	table.Write(zeros[:-table.Len()&(block-1)])
	table.Write(zeros[:count])
	m.Zstd(func(t *Tar) {
		for i := range n {
			name := fmt.Sprint("sparse", i)
			t.Pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", name, "GNU.sparse.realsize", fmt.Sprint(2*count))
			t.File(name, table.String())
		}
	})
}

func entries(m *Image, n int) { m.Zstd(func(t *Tar) { t.empty(n) }) }

// empty writes n empty files, 1,000 in a directory.
func (t *Tar) empty(n int) {
	for i := range n {
		t.File(fmt.Sprintf("d%d/%d", i/1000, i), "")
	}
}

func bigDirectory(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.File(fmt.Sprint(i), "")
		}
	})
}

func deepNames(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.File(fmt.Sprintf("%d/%sf", i, strings.Repeat("a/", 1000)), "")
		}
	})
}

func sameLayer(m *Image, n int) {
	m.Zstd(func(t *Tar) { t.empty(100_000) })
	for range n - 1 {
		m.Again(0)
	}
}

func turns(m *Image, n int) {
	for i := range 2 {
		m.Zstd(func(t *Tar) {
			t.empty(10_000)
			t.File(fmt.Sprint("of", i), "")
		})
	}
	for i := range n - 2 {
		m.Again(i % 2)
	}
}

func manyLayers(m *Image, n int) {
	for i := range n {
		m.Gzip(func(t *Tar) { t.File(fmt.Sprint(i), "") })
	}
}

func walks(m *Image, n int) {
	m.Gzip(func(t *Tar) {
		t.Entry('5', "d/", "", "")
		t.Entry('2', "d/s0", strings.Repeat("./", 2000)+".", "")
		for i := range 38 {
			t.Entry('2', fmt.Sprint("d/s", i+1), strings.Repeat("./", 1996)+fmt.Sprint("s", i), "")
		}
		t.File("d/f", "")
		for i := range n {
			t.Entry('1', fmt.Sprint("l", i), "d/s38/f", "")
		}
	})
}

func whiteouts(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.File(fmt.Sprint(i), "")
		}
	})
	m.Zstd(func(t *Tar) {
		for i := range n {
			t.File(fmt.Sprint(".wh.", i), "")
		}
	})
}

func opaques(m *Image, n int) {
	for range 2 {
		m.Gzip(func(t *Tar) {
			for depth := range 500 {
				for range n {
					t.File(strings.Repeat("d/", depth+1)+".wh..wh..opq", "")
				}
			}
		})
	}
}

func linkChain(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		t.File("0", "")
		for i := range n {
			t.Entry('1', fmt.Sprint(i+1), fmt.Sprint(i), "")
		}
	})
}

func hugePax(m *Image, n int) {
	m.Zstd(func(t *Tar) {
		size := int64(n) << 20
		t.Header(Header{Type: 'x', Name: "pax", Size: size})
		t.w.WriteString(fmt.Sprintf("%d comment=", size))
		t.Zeros(size - int64(len(fmt.Sprint(size))) - 9)
		t.File("f", "")
	})
}
