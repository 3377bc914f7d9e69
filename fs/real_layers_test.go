package fs_test

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/imgfs/imgfs/fs"
)

// TestRealLayers has what tools leave in the layers of real images, as tars that
// archive/tar writes.
func TestRealLayers(t *testing.T) {
	type header = tar.Header
	const security = "AQAUgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAA"
	windows := func(h header, attr string) header {
		h.Format = tar.FormatPAX
		h.PAXRecords = map[string]string{"MSWINDOWS.fileattr": attr, "MSWINDOWS.rawsd": security, "LIBARCHIVE.creationtime": "1690000000.5"}
		return h
	}
	for _, c := range []struct {
		what   string
		layers [][]header
		want   string
	}{
		{"eStargz: its table and its landmarks are files", [][]header{{
			{Name: "bin/", Typeflag: tar.TypeDir}, {Name: "bin/sh", Linkname: "1"}, {Name: ".prefetch.landmark", Linkname: "\x0f"},
			{Name: "etc/", Typeflag: tar.TypeDir}, {Name: "stargz.index.json", Linkname: "{}"},
		}}, ".prefetch.landmark=\x0f bin/ bin/sh=1 etc/ stargz.index.json={}"},
		{"eStargz twice: those of the upper layer", [][]header{
			{{Name: ".no.prefetch.landmark", Linkname: "\x0f"}, {Name: "a", Linkname: "1"}, {Name: "stargz.index.json", Linkname: "{1}"}},
			{{Name: ".no.prefetch.landmark", Linkname: "\x0f"}, {Name: ".wh.a"}, {Name: "stargz.index.json", Linkname: "{2}"}},
		}, ".no.prefetch.landmark=\x0f stargz.index.json={2}"},
		{"Windows: files and directories, without what the records say", [][]header{
			{
				windows(header{Name: "Files", Typeflag: tar.TypeDir}, "16"), windows(header{Name: "Files/License.txt", Linkname: "MIT"}, "32"),
				windows(header{Name: "Hives", Typeflag: tar.TypeDir}, "16"), windows(header{Name: "Hives/Software_Delta", Linkname: "regf"}, "32"),
			},
			{windows(header{Name: "Files/.wh.License.txt"}, "32"), windows(header{Name: `Files/a\b`, Linkname: "1"}, "32")},
		}, `Files/ Files/a\b=1 Hives/ Hives/Software_Delta=regf`},
		{"AUFS: its links and orphans are not shown", [][]header{{
			{Name: ".wh..wh.aufs"}, {Name: ".wh..wh.orph/", Typeflag: tar.TypeDir}, {Name: ".wh..wh.plnk/", Typeflag: tar.TypeDir},
			{Name: ".wh..wh.plnk/12.34", Linkname: "1"}, {Name: "a", Typeflag: tar.TypeLink, Linkname: ".wh..wh.plnk/12.34"},
		}}, "a=1"},
		{"tar of a directory: names with ./", [][]header{
			{{Name: "./", Typeflag: tar.TypeDir}, {Name: "./etc/", Typeflag: tar.TypeDir}, {Name: "./etc/a", Linkname: "1"}},
			{{Name: "./", Typeflag: tar.TypeDir}, {Name: "./etc/.wh.a"}, {Name: "./etc/b", Typeflag: tar.TypeSymlink, Linkname: "./a"}},
		}, "etc/ etc/b->./a"},
		{"bazel: absolute names, directories again", [][]header{
			{{Name: "/app/", Typeflag: tar.TypeDir}, {Name: "/app/a", Linkname: "1"}},
			{{Name: "/app/", Typeflag: tar.TypeDir, Mode: 0o700}, {Name: "/app/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "/app/b", Typeflag: tar.TypeLink, Linkname: "/app/a"}},
		}, "app/ app/a=1 app/b=1"},
		{"a layer of nothing but a root", [][]header{{{Name: "a", Linkname: "1"}}, {{Name: "./", Typeflag: tar.TypeDir}}}, "a=1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			var layers []fs.Layer
			for _, headers := range c.layers {
				layers = append(layers, layerOfTar(t, goTar(t, headers)))
			}
			tree, err := fs.Merge(t.Context(), layers)
			if err != nil {
				t.Fatal(err)
			}
			checkTree(t, tree)
			if got := list(t, tree); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// goTar writes a tar of headers. The content of files is what their Linkname
// says.
func goTar(t *testing.T, headers []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag, content, h.Linkname = tar.TypeReg, h.Linkname, ""
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
