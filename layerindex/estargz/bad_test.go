package estargz_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// other is a digest that nothing has.
const other = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestLies: a TOC whose digest is right, that says what cannot be.
func TestLies(t *testing.T) {
	t.Parallel()
	const chunks = "d/chunks"
	far := int64(1) << 40
	for _, c := range []struct {
		name   string
		change func(*toc)
		want   error
	}{
		{"offset at the TOC", func(x *toc) { x.entry("d/xattrs")["offset"] = 1 << 20 }, layerindex.ErrIndex},
		{"offset far away", func(x *toc) { x.entry("d/one")["offset"] = far }, layerindex.ErrIndex},
		{"offset below zero", func(x *toc) { x.entry("d/one")["offset"] = -1 }, layerindex.ErrIndex},
		{"offset before the one before", func(x *toc) { x.entry(chunks)["offset"] = 1 }, layerindex.ErrIndex},
		{"offset of another file", func(x *toc) { x.entry("d/setuid")["offset"] = x.entry("d/one")["offset"] }, layerindex.ErrIndex},
		{"chunk before its file", func(x *toc) { x.chunk(chunks, 0)["offset"] = 1 }, layerindex.ErrIndex},
		{"chunk at its file", func(x *toc) { x.chunk(chunks, 0)["offset"] = x.entry(chunks)["offset"] }, layerindex.ErrIndex},
		{"chunk too long", func(x *toc) { x.chunk(chunks, 0)["chunkSize"] = 1 << 20 }, layerindex.ErrIndex},
		{"first chunk too short", func(x *toc) { x.entry(chunks)["chunkSize"] = 4999 }, layerindex.ErrIndex},
		{"chunks overlap", func(x *toc) { x.chunk(chunks, 0)["chunkOffset"] = 4999 }, layerindex.ErrIndex},
		{"gap between chunks", func(x *toc) { x.chunk(chunks, 0)["chunkOffset"] = 5001 }, layerindex.ErrIndex},
		{"file begins behind its beginning", func(x *toc) { x.entry("d/one")["chunkOffset"] = 1 }, layerindex.ErrIndex},
		{"last chunk missing", func(x *toc) { drop(x, x.chunk(chunks, 1)) }, layerindex.ErrIndex},
		{"middle chunk missing", func(x *toc) { drop(x, x.chunk(chunks, 0)) }, layerindex.ErrIndex},
		{"chunk too many", func(x *toc) { x.chunk(chunks, 1)["chunkSize"] = 0; x.Entries = append(x.Entries, x.chunk(chunks, 1)) }, layerindex.ErrIndex},
		{"chunk of another file", func(x *toc) { x.chunk(chunks, 0)["name"] = "d/one" }, layerindex.ErrIndex},
		{"chunk first", func(x *toc) { x.Entries = append([]map[string]any{x.chunk(chunks, 0)}, x.Entries...) }, layerindex.ErrIndex},
		{"chunk without a digest", func(x *toc) { delete(x.chunk(chunks, 1), "chunkDigest") }, estargz.ErrNone},
		{"file without a digest", func(x *toc) { e := x.entry("d/one"); delete(e, "digest"); delete(e, "chunkDigest") }, estargz.ErrNone},
		{"one chunk of another digest", func(x *toc) { x.entry("d/one")["digest"] = other }, layerindex.ErrIndex},
		{"digest of another algorithm", func(x *toc) { x.entry("d/one")["digest"] = "sha512:" + strings.Repeat("0", 128) }, layerindex.ErrIndex},
		{"digest in upper case", func(x *toc) { x.entry("d/one")["digest"] = strings.ToUpper(other) }, layerindex.ErrIndex},
		{"size too big", func(x *toc) { x.entry("d/one")["size"] = int64(1)<<60 + 1 }, layerindex.ErrIndex},
		{"sizes too big together", func(x *toc) {
			for _, name := range []string{"d/one", "d/setuid"} {
				x.entry(name)["size"] = int64(1) << 60
			}
		}, layerindex.ErrTooBig},
		{"proof of 4 GiB", func(x *toc) { x.entry("d/one")["size"] = int64(1) << 32 }, layerindex.ErrIndex},
		{"inner offset out of line", func(x *toc) { x.entry("d/one")["innerOffset"] = 100 }, layerindex.ErrIndex},
		{"inner offset of a chunk", func(x *toc) { x.chunk(chunks, 0)["innerOffset"] = 512 }, layerindex.ErrIndex},
		{"inner offset far away", func(x *toc) { x.entry("d/one")["innerOffset"] = int64(1) << 60 }, layerindex.ErrTooBig},
		{"end before the beginning", func(x *toc) { x.entry("d/one")["endOffset"] = 1 }, layerindex.ErrIndex},
		{"end far away", func(x *toc) { x.entry("d/one")["endOffset"] = far }, layerindex.ErrIndex},
		{"end behind the next file", func(x *toc) { x.entry("d/one")["endOffset"] = x.entry(chunks)["offset"] }, layerindex.ErrIndex},
		{"unknown type", func(x *toc) { x.entry("d/fifo")["type"] = "socket" }, layerindex.ErrIndex},
		{"no type", func(x *toc) { delete(x.entry("d/fifo"), "type") }, layerindex.ErrIndex},
		{"version 2", func(x *toc) { x.Version = 2 }, layerindex.ErrIndex},
		{"no version", func(x *toc) { x.Version = 0 }, layerindex.ErrIndex},
		{"owner out of range", func(x *toc) { x.entry("d/owner")["uid"] = int64(1) << 32 }, layerindex.ErrIndex},
		{"device out of range", func(x *toc) { x.entry("d/char")["devMajor"] = -1 }, layerindex.ErrIndex},
		{"time that is none", func(x *toc) { x.entry("d/one")["modtime"] = "yesterday" }, layerindex.ErrIndex},
		{"name too long", func(x *toc) { x.entry("d/fifo")["name"] = strings.Repeat("x", 256) }, layerindex.ErrIndex},
		{"NUL in a name", func(x *toc) { x.entry("d/fifo")["name"] = "a\x00b" }, layerindex.ErrIndex},
		{"lost bytes of a name", func(x *toc) { x.entry("d/fifo")["name"] = "a\uFFFDb" }, layerindex.ErrLossy},
		{"lost bytes of a target", func(x *toc) { x.entry("d/symlink")["linkName"] = "a\uFFFDb" }, layerindex.ErrLossy},
		{"lost bytes of an attribute", func(x *toc) { x.entry("d/xattrs")["xattrs"] = map[string]string{"user.\uFFFD": ""} }, layerindex.ErrLossy},
		{"attribute not in base64", func(x *toc) { x.entry("d/xattrs")["xattrs"] = map[string]string{"user.a": "a"} }, layerindex.ErrIndex},
		{"attributes without end", func(x *toc) {
			x.entry("d/xattrs")["xattrs"] = map[string][]byte{"user.a": make([]byte, 1<<20)}
		}, layerindex.ErrIndex},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := apart(t, toctest.Fixture(t, "build").Read(t).B).changed(t, c.change)
			for _, d := range []digest.Digest{"", p.digest()} {
				if x, err := index(p.blob(t), &estargz.Options{TOCDigest: d}); !errors.Is(err, c.want) || x != nil {
					t.Errorf("%q: %v, want %v", d, err, c.want)
				} else {
					t.Log(err)
				}
			}
		})
	}
}

func drop(x *toc, e map[string]any) {
	for i := range x.Entries {
		if fmt.Sprint(x.Entries[i]) == fmt.Sprint(e) {
			x.Entries = append(x.Entries[:i], x.Entries[i+1:]...)
			return
		}
	}
}

// TestOtherFacts: what a TOC with the right digest says of attributes and digests is
// taken as it is. That the tar says otherwise is only known when the blob was read.
func TestOtherFacts(t *testing.T) {
	t.Parallel()
	p := apart(t, toctest.Fixture(t, "build").Read(t).B).changed(t, func(x *toc) {
		x.entry("d/setuid")["mode"] = 0o10_0600
		x.entry("d/one")["digest"], x.entry("d/one")["chunkDigest"] = other, other
		x.entry("d/empty")["linkName"] = "as buildah writes it"
	})
	x, err := index(p.blob(t), &estargz.Options{TOCDigest: p.digest()})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		switch e.Name {
		case "d/setuid":
			if e.Mode != 0o600 {
				t.Errorf("mode %o", e.Mode)
			}
		case "d/one":
			if !e.HasDigest || e.Digest[0] != 1 || e.Digest[31] != 0xef {
				t.Errorf("digest %x", e.Digest)
			}
		case "d/empty":
			if e.Linkname != "" {
				t.Errorf("link %q", e.Linkname)
			}
		}
	}
}

// TestText: JSON texts that readers take for different things, or that are cut.
func TestText(t *testing.T) {
	t.Parallel()
	p := apart(t, toctest.Fixture(t, "build").Read(t).B)
	s := string(p.json)
	for name, text := range map[string]string{
		"cut":              s[:len(s)/2],
		"empty":            "",
		"not JSON":         "x",
		"a list":           "[]",
		"more behind":      s + "{}",
		"second member":    strings.Replace(s, `"size"`, `"size": 1, "size"`, 1),
		"member by case":   strings.Replace(s, `"size"`, `"Size": 1, "size"`, 1),
		"second entries":   s[:len(s)-1] + `,"entries":[]}`,
		"entries by case":  s[:len(s)-1] + `,"Entries":[]}`,
		"no entries":       `{"version":1}`,
		"number in quotes": strings.Replace(s, `"version": 1`, `"version": "1"`, 1),
		"fraction":         strings.Replace(s, `"size": 1,`, `"size": 1.0,`, 1),
		"exponent":         strings.Replace(s, `"size": 1,`, `"size": 1e0,`, 1),
		"out of range":     strings.Replace(s, `"size": 1,`, `"size": 99999999999999999999,`, 1),
		"deep":             s[:len(s)-1] + `,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}",
		"long":             s[:len(s)-1] + `,"x":"` + strings.Repeat("x", 3<<20) + `"}`,
	} {
		if text == s {
			t.Errorf("%s: nothing is changed", name)
		}
		q := parts{p.contents, []byte(text)}
		for _, d := range []digest.Digest{"", q.digest()} {
			if _, err := index(q.blob(t), &estargz.Options{TOCDigest: d}); !errors.Is(err, layerindex.ErrIndex) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// What is not known is skipped, and white space is none.
	q := parts{p.contents, []byte(" \n" + strings.Replace(s, `"size"`, `"new": [{"size": 1e5}, null, true, "\ud800"], "size"`, 1) + "\t \r\n")}
	x, err := index(q.blob(t), &estargz.Options{TOCDigest: q.digest()})
	if err != nil {
		t.Fatal(err)
	}
	y, err := index(p.blob(t), &estargz.Options{TOCDigest: p.digest()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := toctest.Dump(t, x), toctest.Dump(t, y); got != want {
		t.Errorf("with more in the text:\n%s\n%s", got, want)
	}
}

// TestFlippedBits: with a bit flipped in the TOC or the footer there is an error, or the
// same index.
func TestFlippedBits(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, name := range []string{"build", "latin1"} {
		l := toctest.Fixture(t, name)
		blob := l.Read(t)
		opts := &estargz.Options{TOCDigest: tocDigest(l)}
		want := ""
		if x, err := index(blob, opts); err == nil {
			want = toctest.Dump(t, x)
		}
		same := 0
		at := len(apart(t, blob.B).contents)
		for i := at; i < len(blob.B); i += 1 + (len(blob.B)-i)/100 { // all of the footer
			flipped := bytes.Clone(blob.B)
			flipped[i] ^= 1 << (i % 8)
			x, err := index(toctest.NewBlob(flipped), opts)
			if err != nil {
				if !errors.Is(err, layerindex.ErrIndex) && !errors.Is(err, layerindex.ErrLossy) && !errors.Is(err, estargz.ErrNone) {
					t.Fatalf("%s: byte %d: %v", name, i, err)
				}
				continue
			}
			if same++; toctest.Dump(t, x) != want {
				t.Fatalf("%s: byte %d gives another index", name, i)
			}
		}
		t.Logf("%s: %d of %d change nothing", name, same, len(blob.B)-at)
	}
}

// TestFlippedContent: a bit flipped in a content changes nothing of the index, and a
// proof fails, or the member does not decode.
func TestFlippedContent(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "build")
	blob := l.Read(t)
	x, err := index(blob, &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	for i := range spans.Len() - 1 {
		_, in := spans.Start(i)
		flipped := bytes.Clone(blob.B)
		flipped[in+11] ^= 4 // behind the member's header
		y, err := index(toctest.NewBlob(flipped), &estargz.Options{TOCDigest: tocDigest(l)})
		if err != nil || toctest.Dump(t, x) != toctest.Dump(t, y) {
			t.Fatalf("member %d: %v", i, err)
		}
		if toctest.Proven(y, flipped) {
			t.Errorf("member %d is taken for right", i)
		}
	}
}

// TestFooters: footers that point to nowhere.
func TestFooters(t *testing.T) {
	t.Parallel()
	p := apart(t, toctest.Fixture(t, "build").Read(t).B)
	whole := len(p.blob(t).B)
	for _, at := range []int{0, 1, len(p.contents) - 1, len(p.contents) + 1, whole - 51, whole, 1 << 50} {
		blob := p.named(t, estargz.TOCName, footer(t, at))
		if _, err := index(blob, &estargz.Options{TOCDigest: p.digest()}); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("TOC at %d: %v", at, err)
		}
		if _, err := index(blob, nil); err == nil {
			t.Errorf("TOC at %d, unbound: no error", at)
		}
	}
	// A TOC that takes most of a large blob is not even read.
	far := toctest.NewBlob(append(make([]byte, 70<<20), footer(t, 1)...))
	if _, err := index(far, nil); !errors.Is(err, layerindex.ErrIndex) || len(far.Requests) != 1 {
		t.Errorf("TOC of 70 MiB: %v, requests %v", err, far.Requests)
	}
	if _, err := index(p.named(t, "other.json", footer(t, len(p.contents))), nil); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("TOC of another name: %v", err)
	}
	if _, err := index(p.blob(t), &estargz.Options{TOCDigest: other}); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := index(p.blob(t), &estargz.Options{TOCDigest: "md5:x"}); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("no digest: %v", err)
	}
}

// many returns a layer of n entries.
func many(t testing.TB, n int) parts {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString(`{"version":1,"entries":[`)
	for i := range n {
		sum := sha256.Sum256(fmt.Append(nil, random.Uint64()))
		fmt.Fprintf(&b, `%s{"name":"dir/%d/%x","type":"reg","size":0,"mode":420,"modtime":"2024-02-29T12:34:56Z","digest":"sha256:%x","chunkDigest":"sha256:%x"}`,
			strings.Repeat(",", min(i, 1)), i/100, sum[:4], sum, sum)
	}
	b.WriteString("]}")
	return parts{tarOf(t, "file", nil), b.Bytes()}
}

// TestLargeTOC: a TOC of 25 MB, which is more than the end of the blob that is read
// first.
func TestLargeTOC(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	p := many(t, 100_000)
	blob := p.blob(t)
	if len(p.json) < 25e6 {
		t.Fatalf("a TOC of %d bytes", len(p.json))
	}
	budget := layerindex.NewBudget(0, nil)
	x, err := index(blob, &estargz.Options{TOCDigest: p.digest(), Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	if x.NumEntries() != 100_000 || len(blob.Requests) != 2 {
		t.Errorf("%d entries, requests %v", x.NumEntries(), blob.Requests)
	}
	if used := budget.Used(); used < 100_000*90 || used > 100_000*120 {
		t.Errorf("%d bytes are counted", used)
	}
	small := layerindex.NewBudget(5e6, nil)
	if _, err := index(blob, &estargz.Options{TOCDigest: p.digest(), Budget: small}); !errors.Is(err, layerindex.ErrMetadata) {
		t.Errorf("with little memory: %v", err)
	}
	if _, err := index(blob, &estargz.Options{TOCDigest: p.digest(), MaxTOC: int64(len(p.json)) - 1}); !errors.Is(err, layerindex.ErrIndex) {
		t.Errorf("a TOC of a byte too many: %v", err)
	}
	if _, err := index(blob, &estargz.Options{TOCDigest: p.digest(), MaxTOC: int64(len(p.json))}); err != nil {
		t.Errorf("a TOC of as many bytes as it may have: %v", err)
	}
}

// TestBomb: a TOC that says that it has 151 MiB is refused before it is decoded, and one
// that decodes to more than it says is read as far as it says.
func TestBomb(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	begun := time.Now()
	p := parts{json: bytes.Repeat([]byte(" "), 151<<20)}
	blob := p.blob(t)
	made := time.Since(begun)
	begun = time.Now()
	_, err := index(blob, &estargz.Options{TOCDigest: p.digest()})
	if !errors.Is(err, layerindex.ErrIndex) || !strings.Contains(err.Error(), "158334976 bytes") {
		t.Errorf("151 MiB: %v", err)
	}
	if d := time.Since(begun); d > 5*made { // beside other tests
		t.Errorf("refused after %v, made in %v, want at most five times as long", d, made)
	}
}

// TestStops: a context that has ended stops everything.
func TestStops(t *testing.T) {
	t.Parallel()
	p := many(t, 1000)
	blob := p.blob(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := estargz.Index(ctx, toctest.Of(blob.B), blob, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	stop := stopping{blob, cancel}
	if _, err := estargz.Index(ctx, toctest.Of(blob.B), stop, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, l := range []layerindex.Layer{{}, {Digest: other, DiffID: "md5:x", Size: blob.Size()}, {Digest: other, DiffID: other, Size: 7}} {
		if _, err := estargz.Index(t.Context(), l, blob, nil); err == nil {
			t.Errorf("%v: no error", l)
		}
	}
	failing := errors.New("the line is cut")
	if _, err := estargz.Index(t.Context(), toctest.Of(blob.B), broken{blob, failing}, nil); !errors.Is(err, failing) || errors.Is(err, layerindex.ErrIndex) {
		t.Error(err)
	}
}

// stopping ends the context once it has read.
type stopping struct {
	*toctest.Blob
	cancel context.CancelFunc
}

func (s stopping) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	defer s.cancel()
	return s.Blob.ReadAt(ctx, p, off)
}

// broken fails.
type broken struct {
	*toctest.Blob
	err error
}

func (b broken) ReadAt(context.Context, []byte, int64) (int, error) { return 0, b.err }

// TestMaxSize bounds what the files have together.
func TestMaxSize(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "build")
	blob := l.Read(t)
	x, err := index(blob, &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := index(blob, &estargz.Options{TOCDigest: tocDigest(l), MaxSize: x.Size()}); err != nil {
		t.Error(err)
	}
	if _, err := index(blob, &estargz.Options{TOCDigest: tocDigest(l), MaxSize: x.Size() - 512}); !errors.Is(err, layerindex.ErrTooBig) {
		t.Error(err)
	}
}

// FuzzEStargz makes the index of a layer with any TOC behind real contents. What is
// accepted can be read back, and no place in it is outside of the layer.
func FuzzEStargz(f *testing.F) {
	for _, name := range []string{"build", "min", "lossless", "latin1"} {
		p := apart(f, toctest.Fixture(f, name).Read(f).B)
		var small bytes.Buffer
		if err := json.Compact(&small, p.json); err != nil {
			f.Fatal(err)
		}
		f.Add(p.contents, small.Bytes(), true)
		f.Add(p.contents, p.json[:len(p.json)/2], false)
	}
	f.Fuzz(func(t *testing.T, contents, text []byte, bound bool) {
		p := parts{contents, text}
		opts := &estargz.Options{Budget: layerindex.NewBudget(64<<20, nil)}
		if bound {
			opts.TOCDigest = p.digest()
		}
		x, err := index(p.blob(t), opts)
		if err != nil {
			return
		}
		if err := x.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		toctest.Covered(t, x)
	})
}
