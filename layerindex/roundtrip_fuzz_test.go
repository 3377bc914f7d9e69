package layerindex

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A chooser makes decisions of a fuzzer's bytes; when they are used up, the
// first of what can be chosen.
type chooser struct{ data []byte }

func (c *chooser) intN(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

// number is any number of up to 64 bits, small ones more often.
func (c *chooser) number() (n uint64) {
	for range c.intN(9) {
		n = n<<8 | uint64(c.intN(256))
	}
	return n
}

// text is up to n bytes, with a NUL in none.
func (c *chooser) text(n int) string {
	b := make([]byte, c.intN(n+1))
	for i := range b {
		b[i] = byte(1 + c.intN(255))
	}
	return string(b)
}

func pickOf[E any](c *chooser, list ...E) E { return list[c.intN(len(list))] }

// name is a path of few components, long ones among them.
func (c *chooser) name() string {
	var parts []string
	for range 1 + c.intN(4) {
		parts = append(parts, pickOf(c, "a", "b", "usr", ".wh.b", "..", "", "\xff\xfe", "ü", strings.Repeat("n", 1+c.intN(255)), c.text(12)))
	}
	return strings.Join(parts, "/")
}

func seedBytes(f *testing.F) {
	f.Helper()
	f.Add([]byte{})
	for seed := range 8 {
		b := make([]byte, 500)
		for i := range b {
			b[i] = byte(i*i*(2*seed+1) + i*7 + seed*31 + i>>3)
		}
		f.Add(b)
	}
}

// FuzzScannerValid has archive/tar write a tar. Whatever that writes, Scanner
// reads as it was meant: all attributes, and the content where Off says.
func FuzzScannerValid(f *testing.F) {
	seedBytes(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{data}
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		var want []*tar.Header
		var contents []string
		for range 1 + c.intN(6) {
			h, content := c.header()
			if err := w.WriteHeader(h); err != nil {
				continue // no tar has this
			}
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag != tar.TypeXGlobalHeader {
				want, contents = append(want, h), append(contents, content)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		compareWritten(t, buf.Bytes(), want, contents)
	})
}

// header makes a header as archive/tar takes it, and the content of its entry.
func (c *chooser) header() (*tar.Header, string) {
	h := &tar.Header{
		Typeflag: pickOf(c, byte(tar.TypeReg), tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeCont),
		Name:     c.name(), Mode: int64(c.number() & 07777),
		Uid: int(c.number() % (maxOwner + 1)), Gid: int(c.number() % (maxOwner + 1)),
		Uname: c.text(5), Gname: pickOf(c, "", "root", c.text(40)),
		ModTime: time.Unix(int64(c.number())>>10*pickOf[int64](c, 1, -1), int64(c.number()%1e9)),
		Format:  pickOf(c, tar.FormatUnknown, tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU),
	}
	if c.intN(6) == 0 {
		h = &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": c.name(), "comment": c.text(20)}}
		return h, ""
	}
	if h.Format == tar.FormatUnknown || h.Format == tar.FormatUSTAR {
		h.ModTime = h.ModTime.Truncate(time.Second) // it would be rounded
	}
	content := ""
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		content = strings.Repeat(c.text(40), 1+c.intN(40))
		h.Size = int64(len(content))
	case tar.TypeLink, tar.TypeSymlink:
		h.Linkname = pickOf(c, "a", c.name(), strings.Repeat("../", c.intN(200))+"t")
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(c.number()%4096), int64(c.number()%(1<<20))
	}
	if n := c.intN(4); n > 0 && (h.Format == tar.FormatPAX || h.Format == tar.FormatUnknown) {
		h.PAXRecords = map[string]string{}
		for range n {
			h.PAXRecords[xattrPrefix+"user."+strings.ReplaceAll(c.text(9), "=", "-")] = "v" + string(byte(c.intN(256))) + c.text(300)
		}
	}
	return h, content
}

func compareWritten(t *testing.T, data []byte, want []*tar.Header, contents []string) {
	t.Helper()
	entries, err := scanTar(data, 0, nil)
	i := 0
	for ; i < len(want) && i < len(entries); i++ {
		g, e := convertGo(want[i]), &entries[i]
		if g.odd != "" {
			return // Scanner says that it reads this in another way
		}
		if want[i].Format == tar.FormatGNU {
			g.ModNsec = 0 // it has none
		}
		if diff, _ := compareGo(data, e, g, strings.NewReader(contents[i])); diff != "" {
			t.Errorf("entry %d: %s", i+1, diff)
		}
		if e.Type == TypeReg && string(data[e.Off:e.Off+e.Size]) != contents[i] {
			t.Errorf("entry %d: other content at %d", i+1, e.Off)
		}
	}
	if i < len(want) && convertGo(want[i]).odd != "" {
		return
	}
	if err != nil || len(entries) != len(want) {
		t.Errorf("%d entries, error %v, want %d", len(entries), err, len(want))
	}
}

// FuzzIndexRoundTrip: the entries of an index file are those that it was made
// of; and a file that is cut, or in which anything is changed, gives an error
// or all of them, and never another entry.
func FuzzIndexRoundTrip(f *testing.F) {
	seedBytes(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{data}
		var entries []Entry
		end := int64(0)
		for range c.intN(12) {
			e := c.entry(end)
			if e.Type == TypeReg {
				end = e.Off + e.storedSize()
			}
			entries = append(entries, e)
		}
		digests := c.intN(2) == 0
		file := encoded(t, draftOf(t, entries, digests))
		got, err := decodedEntries(file)
		if err != nil {
			t.Fatalf("%v\nfor %+v", err, entries)
		}
		if !digests {
			for i := range entries {
				entries[i].Digest, entries[i].HasDigest = [32]byte{}, false
			}
		}
		compareEntries(t, got, entries)
		if len(got) != len(entries) {
			t.Errorf("%d entries, want %d", len(got), len(entries))
		}
		rng := rand.New(rand.NewChaCha8(sha256.Sum256(data)))
		for range 8 {
			bad := damaged(rng, file)
			if bytes.Equal(bad, file) {
				continue
			}
			some, err := decodedEntries(bad)
			// What holds no entries may be damaged without harm to them;
			// TestIndexDamage has that it is noticed.
			if err != nil && !errors.Is(err, ErrIndex) || err == nil && len(some) != len(entries) {
				t.Errorf("a damaged index: %d entries of %d, error %v, want %v", len(some), len(entries), err, ErrIndex)
			}
			compareEntries(t, some, entries)
		}
	})
}

// entry makes an entry whose content lies behind end.
func (c *chooser) entry(end int64) Entry {
	e := Entry{
		Name: c.name(), Type: pickOf(c, TypeReg, TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo),
		Mode: uint32(c.number() & 07777), UID: uint32(c.number()), GID: uint32(c.number()),
		ModSec: int64(c.number()), ModNsec: uint32(c.number() % 1e9),
	}
	for range c.intN(3) {
		e.Xattrs = append(e.Xattrs, Xattr{c.text(9), string([]byte{0, byte(c.intN(256))}[c.intN(3)%2:]) + c.text(9)})
	}
	switch e.Type {
	case TypeLink, TypeSymlink:
		e.Linkname = c.name()
	case TypeChar, TypeBlock:
		e.Major, e.Minor = uint32(c.number()), uint32(c.number())
	case TypeReg:
		e.Off = roundUp(end) + int64(c.intN(4))*tarBlock
		e.Size = int64(c.number() % 100_000)
		if c.intN(3) == 0 {
			e.Sparse = c.extents(&e.Size)
		} else if c.intN(4) > 0 {
			e.HasDigest = true
			copy(e.Digest[:], c.text(32))
		}
	}
	return e
}

// extents makes a sparse map, and the file as long as that needs.
func (c *chooser) extents(size *int64) []Extent {
	list, at := []Extent{}, int64(0)
	for range c.intN(4) {
		x := Extent{Off: at + int64(c.number()%(1<<40)) + 1, Size: 1 + int64(c.number()%5000)}
		list, at = append(list, x), x.Off+x.Size
	}
	*size = max(*size, at)
	return list
}

// damaged cuts a file or changes some of its bytes.
func damaged(rng *rand.Rand, file []byte) []byte {
	at := rng.IntN(len(file))
	if rng.IntN(4) == 0 {
		return file[:at]
	}
	bad := bytes.Clone(file)
	for range 1 + rng.IntN(3) {
		bad[at%len(bad)] ^= byte(1 + rng.IntN(255))
		at += 1 + rng.IntN(64)
	}
	return bad
}

// decodedEntries are the entries of an index file, as far as they go.
func decodedEntries(file []byte) ([]Entry, error) {
	x, err := ReadIndex(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	seq, err := x.EntriesWithDigests()
	if err != nil {
		return nil, err
	}
	var list []Entry
	for e := range seq {
		own := *e
		own.Xattrs, own.Sparse = slices.Clone(e.Xattrs), slices.Clone(e.Sparse)
		list = append(list, own)
	}
	return list, nil
}

// compareEntries compares the entries that both lists have.
func compareEntries(t *testing.T, got, want []Entry) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("entry %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}
