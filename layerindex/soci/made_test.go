package soci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// lines returns n bytes that compress to about a sixth.
func lines(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%03x %d the same words again\n", rng.IntN(1<<12), i%10)
	}
	return b.Bytes()[:n]
}

// writeTar makes a tar of every kind of entry that a ztoc has words for, with files of
// the sizes, and the end blocks of GNU tar.
func writeTar(t testing.TB, sizes ...int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		t.Helper()
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(1700000000, 0)
	add(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: at, Uname: "root", Gname: "root"}, nil)
	for i, n := range sizes {
		add(tar.Header{Name: fmt.Sprintf("d/%d", i), Typeflag: tar.TypeReg, Mode: 0o644, Uid: 1000, Gid: 100, ModTime: at.Add(time.Duration(i) * time.Hour), Uname: "root"}, lines(n, uint64(i)))
	}
	add(tar.Header{Name: "d/attr", Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: time.Unix(-1000, 5), Format: tar.FormatPAX, PAXRecords: map[string]string{
		"SCHILY.xattr.user.b": "\x00\xff", "SCHILY.xattr.user.a": "1", "VENDOR.other": "kept",
	}}, []byte("attributes"))
	add(tar.Header{Name: "d/latin1-\xe4", Typeflag: tar.TypeReg, ModTime: at, Format: tar.FormatGNU}, []byte("x"))
	add(tar.Header{Name: strings.Repeat("long/", 60) + "name", Typeflag: tar.TypeReg, ModTime: at}, []byte("y"))
	add(tar.Header{Name: "d/link", Linkname: "d/0", Typeflag: tar.TypeLink, Mode: 0o644, ModTime: at}, nil)
	add(tar.Header{Name: "d/sym", Linkname: "nowhere\xff", Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: at, Format: tar.FormatGNU}, nil)
	add(tar.Header{Name: "d/.wh.gone", Linkname: "d/0", Typeflag: tar.TypeReg, ModTime: at}, nil)
	add(tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: at}, nil)
	add(tar.Header{Name: "d/disk", Typeflag: tar.TypeBlock, Mode: 0o600, Devmajor: 259, Devminor: 70000, Uid: 2097157, ModTime: at}, nil)
	add(tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo, ModTime: time.Unix(13569465600, 0)}, nil)
	add(tar.Header{Name: "d/empty", Typeflag: tar.TypeReg, ModTime: at}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := b.Len() % 10240; n > 0 {
		b.Write(make([]byte, 10240-n)) // as GNU tar, which archive/tar reads no further than two blocks of
	}
	return b.Bytes()
}

// member compresses p as one gzip member, with a new block after every step bytes.
func member(t testing.TB, p []byte, name string, step int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Name = name
	for len(p) > 0 {
		n := min(step, len(p))
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		if p = p[n:]; len(p) > 0 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A made is a layer without a ztoc.
type made struct {
	name      string
	blob, tar []byte
	span      int64
	// differs: SOCI has more checkpoints. It takes one for each block before the first
	// byte of the tar, and may have several in 32 KiB.
	differs bool
}

// madeLayers are layers in the shapes that gzip files have.
func madeLayers(t testing.TB) []made {
	t.Helper()
	small, big := writeTar(t, 0, 1, 511, 512, 9000), writeTar(t, 1<<20, 0, 777, 300_000)
	var members []byte
	for p := big; len(p) > 0; {
		n := min(len(p), 100_000)
		members = append(members, member(t, p[:n], "", 1<<30)...)
		p = p[n:]
	}
	return []made{
		{name: "one", blob: member(t, big, "", 1<<30), tar: big, span: 64 << 10},
		{name: "one span", blob: member(t, big, "", 1<<30), tar: big, span: 4 << 20},
		{name: "name", blob: member(t, big, "layer.tar", 50_000), tar: big, span: 128 << 10},
		{name: "blocks", blob: member(t, small, "", 1000), tar: small, span: 2000, differs: true},
		{name: "members", blob: members, tar: big, span: 200 << 10},
		{name: "empty first", blob: append(member(t, nil, "", 1), member(t, big, "", 40_000)...), tar: big, span: 100 << 10, differs: true},
		{name: "plain", blob: big, tar: big, span: 64 << 10},
		{name: "plain, one span", blob: small, tar: small, span: 4 << 20},
	}
}

func (m *made) sample(ztoc []byte) *sample {
	return &sample{name: m.name, blob: m.blob, tar: m.tar, ztoc: ztoc}
}
