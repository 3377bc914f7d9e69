package toc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/opencontainers/go-digest"
)

// read reads all entries of a TOC.
func read(src io.Reader) (list []Entry, r *Reader, err error) {
	r = NewReader(src)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return list, r, nil
		}
		if err != nil {
			return nil, r, err
		}
		c := *e
		c.Xattrs = append([]layerindex.Xattr(nil), e.Xattrs...)
		list = append(list, c)
	}
}

const sample = `{
	"tarSplitDigest": "sha256:00", "unknown": {"a": [1.5e-3, false]},
	"entries": [
		{"mode": 33261, "name": "a\/\u00e9\ud83d\udcbe\"\\\b\f\n\r\t", "type": "reg", "size": 12, "offset": 3, "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		 "xattrs": {"user.b": "AQD/", "user.a": ""}, "modtime": "2023-11-14T23:13:20.123456789+01:00", "uid": -2, "gid": 4294967295, "linkName": "none", "userName": "x", "accesstime": null},
		{"type": "chunk", "name": "x", "chunkOffset": 5, "chunkSize": 6, "chunkType": "zeros", "innerOffset": 7, "endOffset": 9, "offset": 8, "size": 99},
		{"type": "reg", "name": "dir/"},
		{"type": "hardlink", "name": "h", "linkName": "日本", "size": 5, "devMajor": 3, "modtime": "0001-01-01T00:00:00Z"},
		{"type": "char", "name": "c", "devMajor": 1, "devMinor": 4294967295, "modtime": ""}
	],
	"version": 1}`

// TestReader reads all that there is in entries, in pieces of any length.
func TestReader(t *testing.T) {
	t.Parallel()
	want := []Entry{
		{Entry: layerindex.Entry{
			Name: "a/é\U0001F4BE\"\\\b\f\n\r\t", Type: layerindex.TypeReg, Mode: 0o755, Size: 12, UID: 1<<32 - 2, GID: 1<<32 - 1, ModSec: 1700000000, ModNsec: 123456789,
			HasDigest: true, Digest: [32]byte([]byte("\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef")),
			Xattrs: []layerindex.Xattr{{Name: "user.a"}, {Name: "user.b", Value: "\x01\x00\xff"}},
		}, Offset: 3},
		{Entry: layerindex.Entry{Name: "x", Type: typeChunk}, Offset: 8, InnerOffset: 7, EndOffset: 9, ChunkOffset: 5, ChunkSize: 6},
		{Entry: layerindex.Entry{Name: "dir/", Type: layerindex.TypeDir}},
		{Entry: layerindex.Entry{Name: "h", Linkname: "日本", Type: layerindex.TypeLink}},
		{Entry: layerindex.Entry{Name: "c", Type: layerindex.TypeChar, Major: 1, Minor: 1<<32 - 1}},
	}
	for name, src := range map[string]io.Reader{
		"whole":     strings.NewReader(sample),
		"one byte":  iotest.OneByteReader(strings.NewReader(sample)),
		"with data": iotest.DataErrReader(strings.NewReader(sample)),
		"half":      iotest.HalfReader(strings.NewReader(sample)),
	} {
		got, r, err := read(src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
		if r.TarSplitDigest() != "sha256:00" || r.Lacks() != 0 {
			t.Errorf("%s: %q, lacks %v", name, r.TarSplitDigest(), r.Lacks())
		}
	}
	for _, text := range []string{`{"version":1,"entries":null}`, `{"entries":[],"version":1}`} {
		if got, r, err := read(strings.NewReader(text)); len(got) > 0 || err != nil || r.Lacks() != allLosses {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

// TestReaderEnds: no text that is cut off is taken for whole.
func TestReaderEnds(t *testing.T) {
	t.Parallel()
	for n := range len(sample) {
		if _, _, err := read(strings.NewReader(sample[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	failing := errors.New("failing")
	if _, _, err := read(io.MultiReader(strings.NewReader(sample[:300]), iotest.ErrReader(failing))); err != failing {
		t.Errorf("%v", err)
	}
}

// TestReaderRefuses: an error says where in the text it is, and wraps ErrIndex.
func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ entry, want string }{
		{`1`, "should be"},
		{`{"type":"reg","type":"reg"}`, `second member "type"`},
		{`{"type":"reg","TYPE":"reg"}`, `member "TYPE" is "type" for some`},
		{`{"type":"reg","chunkdigest":""}`, `member "chunkdigest"`},
		{`{"type":"reg","xattrs":{"a":"","a":""}}`, `second attribute "a"`},
		{`{"type":"reg","xattrs":{"a\u0000":""}}`, "NUL in the name of an attribute"},
		{`{"type":"reg","xattrs":["a"]}`, "should be"},
		{`{"type":"reg","xattrs":{"a":"AB=="}}`, "value of the attribute"},
		{`{"type":"reg",}`, "behind a comma"},
		{`{"type":"reg" "name":"a"}`, "between elements"},
		{`{"type" "reg"}`, "should be"},
		{`{"type":"reg","name":1}`, "should be"},
		{`{"type":"reg","name":"\x"}`, "unknown escape"},
		{`{"type":"reg","name":"\u12g4"}`, "four digits"},
		{"{\"type\":\"reg\",\"name\":\"a\nb\"}", "control character"},
		{`{"type":"reg","size":-1}`, "out of range"},
		{`{"type":"reg","size":01}`, "zero in front"},
		{`{"type":"reg","size":1.5}`, "not a whole number"},
		{`{"type":"reg","size":1e1}`, "not a whole number"},
		{`{"type":"reg","size":-}`, "not a whole number"},
		{`{"type":"reg","size":9223372036854775808}`, "out of range"},
		{`{"type":"reg","size":true}`, "not a whole number"},
		{`{"type":"reg","uid":4294967296}`, "owner"},
		{`{"type":"reg","uid":-2147483649}`, "owner"},
		{`{"type":"char","devMinor":4294967296}`, "device"},
		{`{"type":"reg","modtime":"2024-02-30T00:00:00Z"}`, "no time"},
		{`{"type":"reg","modtime":5}`, "should be"},
		{`{"type":"reg","digest":"sha256:zz"}`, "sha256 digest"},
		{`{"type":"reg","digest":"` + strings.Repeat("0", 71) + `"}`, "sha256 digest"},
		{`{"type":"reg","x":` + strings.Repeat(`{"y":[`, 17) + strings.Repeat("]}", 17) + `}`, "nested deeper"},
		{`{"type":"reg","x":tru}`, "no value"},
		{`{"type":"reg","x":nothing}`, "no value"},
		{`{"type":"reg","x":}`, "no value"},
		{`{"type":"reg","x":[1 2]}`, "between elements"},
		{`{"type":"reg","x":[0,-0.5e+3,12E7,1.0,01]}`, "malformed number"},
		{`{"type":"reg","x":1.}`, "malformed number"},
		{`{"type":"reg","x":1e}`, "malformed number"},
		{`{"type":"reg","x":-}`, "malformed number"},
		{`{"type":"reg","x":1-2}`, "malformed number"},
		{`{"type":"symlink","linkName":"` + strings.Repeat("x", 4096) + `"}`, "link target"},
		{`{"type":"fifo","name":"` + strings.Repeat("x", 2<<20) + `"}`, "more than 2097152 bytes"},
		{`{}`, "without a type"},
	} {
		_, _, err := read(strings.NewReader(`{"version":1,"entries":[` + c.entry + `]}`))
		if !errors.Is(err, layerindex.ErrIndex) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "at byte") {
			t.Errorf("%.80s: %v, want %q", c.entry, err, c.want)
		}
	}
}

// TestLost: names that JSON may have changed are told from others.
func TestLost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`é\u00e9\ud83d\udcbe`: false,
		`\ufffd`:              true,
		`\uFFFD`:              true,
		"\uFFFD":              true,
		"\xe9":                true,
		"a\xed\xa0\x80":       true,
		`\ud83d`:              true,
		`\ud83dx`:             true,
		`\udcbe\ud83d`:        true,
		`\ud83d\u0041`:        true,
	} {
		for _, entry := range []string{`{"type":"fifo","name":"` + text + `"}`, `{"linkName":"` + text + `","type":"symlink"}`, `{"type":"dir","xattrs":{"` + text + `":""}}`} {
			got, _, err := read(strings.NewReader(`{"version":1,"entries":[` + entry + `]}`))
			if err != nil || len(got) != 1 || got[0].Lost != want {
				t.Errorf("%q: %+v, %v, want %v", entry, got, err, want)
			}
		}
	}
}

// TestPlain compares the search by words with one by bytes.
func TestPlain(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'x'}, n)
				b[at] = byte(c)
				want := n
				if c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
					want = at
				}
				if got := plain(b); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
			}
		}
	}
	if got := plain([]byte("abc\x1f\"\\\xff    ")); got != 3 {
		t.Errorf("%d", got)
	}
}

// FuzzTOC compares the entries of a text with those that encoding/json finds in it.
func FuzzTOC(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"version":1,"entries":[{"type":"reg","name":"a\ud800","chunkDigest":""}]}`))
	f.Add([]byte("{\n\t\"version\": 1,\n\t\"entries\": [\n\t\t{\n\t\t\t\"name\": \"d/hard\",\n\t\t\t\"type\": \"hardlink\",\n\t\t\t\"modtime\": \"2024-02-29T12:34:56Z\",\n\t\t\t\"linkName\": \"d/small\",\n\t\t\t\"mode\": 2541,\n\t\t\t\"NumLink\": 0\n\t\t}\n\t]\n}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, r, err := read(bytes.NewReader(text))
		again, _, errAgain := read(iotest.OneByteReader(bytes.NewReader(text)))
		if (err == nil) != (errAgain == nil) || !reflect.DeepEqual(got, again) {
			t.Fatalf("%v, and by single bytes %v", err, errAgain)
		}
		if err != nil || !utf8.Valid(text) { // encoding/json changes what is no UTF-8
			return
		}
		var want struct {
			Version        int
			TarSplitDigest string
			Entries        []struct {
				Name, Type, LinkName                     string
				Size, Mode, UID, GID, DevMajor, DevMinor int64
				Offset, InnerOffset, EndOffset           int64
				ChunkSize, ChunkOffset                   int64
				Digest, ChunkDigest                      string
				ModTime                                  string
				Xattrs                                   map[string][]byte
			}
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if want.Version != 1 || want.TarSplitDigest != r.TarSplitDigest() || len(want.Entries) != len(got) {
			t.Fatalf("%+v, %d entries", want, len(got))
		}
		for i, w := range want.Entries {
			g := got[i]
			if g.Name != w.Name || g.Mode != uint32(w.Mode&0o7777) || g.UID != uint32(w.UID) || g.GID != uint32(w.GID) ||
				g.Offset != w.Offset || g.InnerOffset != w.InnerOffset || g.EndOffset != w.EndOffset ||
				g.ChunkSize != w.ChunkSize || g.ChunkOffset != w.ChunkOffset || len(g.Xattrs) != len(w.Xattrs) {
				t.Fatalf("entry %d: %+v, want %+v", i, g, w)
			}
			for _, x := range g.Xattrs {
				if v, ok := w.Xattrs[x.Name]; !ok || string(v) != x.Value {
					t.Fatalf("entry %d: attribute %q: %q, want %q", i, x.Name, x.Value, v)
				}
			}
			if g.HasChunkDigest && digest.NewDigestFromBytes(digest.SHA256, g.ChunkDigest[:]).String() != w.ChunkDigest {
				t.Fatalf("entry %d: %x, want %s", i, g.ChunkDigest, w.ChunkDigest)
			}
			if w.ModTime != "" {
				when, err := time.Parse(time.RFC3339, w.ModTime)
				if err != nil || !when.IsZero() && (when.Unix() != g.ModSec || when.Nanosecond() != int(g.ModNsec)) {
					t.Fatalf("entry %d: %d.%09d, want %s: %v", i, g.ModSec, g.ModNsec, w.ModTime, err)
				}
			}
		}
	})
}
