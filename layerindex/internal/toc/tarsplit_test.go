package toc

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
)

// split makes the tar-split of a tar as vbatts/tar-split does: a segment for what is
// before each content.
func split(t testing.TB, tarBytes []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	at, n := 0, 0
	segment := func(end int) {
		fmt.Fprintf(&b, `{"type":2,"payload":"%s","position":%d}`+"\n", base64.StdEncoding.EncodeToString(tarBytes[at:end]), n)
		n++
		at = end
	}
	src := bytes.NewReader(tarBytes)
	r := tar.NewReader(src)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		segment(len(tarBytes) - src.Len())
		if h.Size == 0 || h.Typeflag != tar.TypeReg {
			fmt.Fprintf(&b, `{"type":1,"name_raw":"%s","payload":null,"position":%d}`+"\n", base64.StdEncoding.EncodeToString([]byte(h.Name)), n)
		} else {
			fmt.Fprintf(&b, `{"type":1,"name_raw":"%s","size":%d,"payload":"AAAAAAAAAAA=","position":%d}`+"\n", base64.StdEncoding.EncodeToString([]byte(h.Name)), h.Size, n)
			at += int(h.Size)
		}
		n++
	}
	segment(len(tarBytes))
	return b.Bytes()
}

// tarOf returns a tar of files.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func odd(t testing.TB) []byte {
	return tarOf(t,
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "d/\xe9\xff", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1000},
		tar.Header{Name: "d/\xe9\xff", Typeflag: tar.TypeReg, Mode: 0o600, Size: 1024},
		tar.Header{Name: "d/empty", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.\xff": "v"}},
		tar.Header{Name: "d/" + strings.Repeat("long/", 60), Typeflag: tar.TypeLink, Linkname: "d/\xe9\xff"},
		tar.Header{Name: "last", Typeflag: tar.TypeReg, Size: 3},
	)
}

func entriesOf(read func(emit func(*layerindex.Entry) error) error) (list []layerindex.Entry, err error) {
	err = read(func(e *layerindex.Entry) error {
		c := *e
		c.Xattrs = append([]layerindex.Xattr(nil), e.Xattrs...)
		list = append(list, c)
		return nil
	})
	return list, err
}

// TestTarSplit: a tar without its contents is the same tar.
func TestTarSplit(t *testing.T) {
	t.Parallel()
	whole := odd(t)
	want, err := entriesOf(func(emit func(*layerindex.Entry) error) error {
		s := tarscan.New(emit, &tarscan.Options{NoDigests: true})
		if _, err := s.Write(whole); err != nil {
			return err
		}
		return s.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []io.Reader{bytes.NewReader(split(t, whole)), iotest.OneByteReader(bytes.NewReader(split(t, whole)))} {
		got, err := entriesOf(func(emit func(*layerindex.Entry) error) error { return ReadTarSplit(t.Context(), src, nil, emit) })
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	}
}

// TestTarSplitRefuses: what is no tar-split.
func TestTarSplitRefuses(t *testing.T) {
	t.Parallel()
	s := string(split(t, odd(t)))
	lines := strings.SplitAfter(s, "\n")
	for name, text := range map[string]string{
		"cut in a line":          s[:len(s)/2],
		"other size":             strings.Replace(s, `"size":1000`, `"size":1001`, 1),
		"size below zero":        strings.Replace(s, `"size":1000`, `"size":-1`, 1),
		"no size":                strings.Replace(s, `"size":1000,`, ``, 1),
		"size of a directory":    strings.Replace(s, `"payload":null`, `"size":5`, 1),
		"two sizes":              strings.Replace(s, `"size":1000`, `"size":1000,"size":1000`, 1),
		"size by case":           strings.Replace(s, `"size":1000`, `"size":1000,"Size":0`, 1),
		"another type":           strings.Replace(s, `"type":1`, `"type":3`, 1),
		"no type":                strings.Replace(s, `"type":1,`, ``, 1),
		"not in base64":          strings.Replace(s, `"payload":"`, `"payload":"*`, 1),
		"content missing":        strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), ""),
		"segment missing":        strings.Join(append(append([]string{}, lines[:4]...), lines[5:]...), ""),
		"ends before a content":  strings.Join(lines[:3], ""),
		"headers that are wrong": strings.Replace(s, "ZC8A", "ZS8A", 1),
		"not an object":          "[]",
	} {
		if text == s {
			t.Errorf("%s: nothing is changed", name)
		}
		_, err := entriesOf(func(emit func(*layerindex.Entry) error) error {
			return ReadTarSplit(t.Context(), strings.NewReader(text), nil, emit)
		})
		if !errors.Is(err, layerindex.ErrIndex) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	failing := errors.New("failing")
	if err := ReadTarSplit(t.Context(), strings.NewReader(s), nil, func(*layerindex.Entry) error { return failing }); err != failing {
		t.Errorf("error of the caller: %v", err)
	}
}

// TestTarSplitSparse: what the tar has a map of is no plain file.
func TestTarSplitSparse(t *testing.T) {
	t.Parallel()
	// The records of GNU's formats 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
	for name, records := range map[string]map[string]string{
		"0.1": {"GNU.sparse.size": "5000", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "100,7"},
		"1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": "5000"},
	} {
		whole := tarWithRecords(t, records)
		at := bytes.LastIndex(whole, []byte("ustar")) - 257 + 512
		text := fmt.Sprintf(`{"type":2,"payload":"%s"}{"type":1,"size":7}{"type":2,"payload":"%s"}`,
			base64.StdEncoding.EncodeToString(whole[:at]), base64.StdEncoding.EncodeToString(whole[at+7:]))
		err := ReadTarSplit(t.Context(), strings.NewReader(text), nil, func(*layerindex.Entry) error { return nil })
		if !errors.Is(err, layerindex.ErrLossy) && !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tarWithRecords returns a tar of one file of 7 bytes with records that archive/tar does
// not write: it is made with others of the same length.
func tarWithRecords(t testing.TB, records map[string]string) []byte {
	t.Helper()
	made := map[string]string{}
	for k, v := range records {
		made["XXX"+strings.TrimPrefix(k, "GNU")] = v
	}
	b := tarOf(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 7, PAXRecords: made})
	return bytes.ReplaceAll(b, []byte(" XXX.sparse"), []byte(" GNU.sparse"))
}

// FuzzTarSplit reads any text. One that is read gives entries that follow each other as
// in a tar.
func FuzzTarSplit(f *testing.F) {
	whole := odd(f)
	f.Add(split(f, whole))
	f.Add([]byte(`{"type":2,"payload":""}` + "\n" + `{"type":1,"name":"d/","payload":null,"position":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var end int64
		err := ReadTarSplit(t.Context(), bytes.NewReader(text), layerindex.NewBudget(1<<20, nil), func(e *layerindex.Entry) error {
			if e.Type == layerindex.TypeReg {
				if e.Off < end || e.Off%512 != 0 || e.Sparse != nil {
					t.Fatalf("%+v, behind %d", e, end)
				}
				end = e.Off + e.Size
			}
			return nil
		})
		again := ReadTarSplit(t.Context(), iotest.OneByteReader(bytes.NewReader(text)), layerindex.NewBudget(1<<20, nil), func(*layerindex.Entry) error { return nil })
		if (err == nil) != (again == nil) {
			t.Fatalf("%v, and by single bytes %v", err, again)
		}
	})
}
