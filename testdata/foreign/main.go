// Command foreign makes small layers with the libraries that write eStargz and
// zstd:chunked, as fixtures of the packages layerindex/estargz and
// layerindex/zstdchunked. It is a module of its own, because nothing else needs these
// libraries.
//
//	cd testdata/foreign && go run . ../../layerindex
//
// Each layer is a file of the package's folder testdata, with its annotations and its
// diff_id in layers.json there.
//
//	foreign convert estargz|zstdchunked|zstdchunked-latin1 LAYER OUT
//
// makes such a layer of an ordinary one with the settings that ctr-remote and podman have
// by default, the last one with a name more that is not UTF-8, and prints its annotations
// and its diff_id. testdata/bench compiles it for that.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/externaltoc"
	szc "github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// A layer is what layers.json says of one.
type layer struct {
	Annotations map[string]string `json:"annotations,omitempty"`
	DiffID      string            `json:"diff_id"`
}

const (
	// chunkSize is small, for files of several chunks in small layers. It is no
	// multiple of 512, so that chunks begin anywhere in a block.
	chunkSize = 5000
	digestKey = estargz.TOCJSONDigestAnnotation
)

func main() {
	log.SetFlags(0)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1:
		err = run(args[0])
	case len(args) >= 4 && args[0] == "convert":
		err = convertFile(args[1], args[2], args[3], args[4:])
	default:
		log.Fatal("usage: foreign LAYERINDEX | convert estargz|zstdchunked|zstdchunked-latin1 LAYER OUT [FIRST...]")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	plain, latin1 := sink(false), sink(true)
	e := &writer{dir: filepath.Join(dir, "estargz", "testdata"), layers: map[string]layer{}}
	for _, err := range []error{
		e.build("build", plain, estargz.WithChunkSize(chunkSize)),
		e.build("prefetch", plain, estargz.WithChunkSize(chunkSize), estargz.WithPrioritizedFiles([]string{"d/one", "d/chunks"})),
		e.build("min", plain, estargz.WithChunkSize(chunkSize), estargz.WithMinChunkSize(12000)),
		e.build("latin1", latin1, estargz.WithChunkSize(chunkSize)),
		e.lossless("lossless", plain),
		e.external("external", plain),
		e.finish(),
	} {
		if err != nil {
			return err
		}
	}
	z := &writer{dir: filepath.Join(dir, "zstdchunked", "testdata"), layers: map[string]layer{}}
	for _, err := range []error{
		z.podman("podman", plain),
		z.podman("latin1", latin1),
		z.stargz("stargz", plain),
		z.finish(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// sink returns a tar with what an index has to carry; with names that are not UTF-8 if
// latin1 is true.
func sink(latin1 bool) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	day := time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC)
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if h.ModTime.IsZero() {
			h.ModTime = day
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			log.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			log.Fatal(err)
		}
	}
	add(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "d/empty", Typeflag: tar.TypeReg}, "")
	add(tar.Header{Name: "d/one", Typeflag: tar.TypeReg}, "1")
	if latin1 {
		add(tar.Header{Name: "d/\xe9\xff", Typeflag: tar.TypeReg}, "first")
		add(tar.Header{Name: "d/\xe8\xff", Typeflag: tar.TypeReg}, "second")
		add(tar.Header{Name: "d/to", Typeflag: tar.TypeSymlink, Linkname: "\xe9\xff", Mode: 0o777}, "")
		if err := w.Close(); err != nil {
			log.Fatal(err)
		}
		return b.Bytes()
	}
	add(tar.Header{Name: "d/setuid", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8}, strings.Repeat("setuid\n", 10))
	add(tar.Header{Name: "d/chunks", Typeflag: tar.TypeReg}, numbers(2*chunkSize+777))
	add(tar.Header{Name: "d/exact", Typeflag: tar.TypeReg}, numbers(2*chunkSize))
	add(tar.Header{Name: "d/zeros", Typeflag: tar.TypeReg}, "before"+strings.Repeat("\x00", 3000)+"after"+strings.Repeat("\x00", 1500))
	add(tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/setuid", Mode: 0o4755, Uid: 7, Gid: 8}, "")
	add(tar.Header{Name: "d/symlink", Typeflag: tar.TypeSymlink, Linkname: "../etc/passwd", Mode: 0o777}, "")
	add(tar.Header{Name: "d/char", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, "")
	add(tar.Header{Name: "d/block", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 70000, Mode: 0o660}, "")
	add(tar.Header{Name: "d/fifo", Typeflag: tar.TypeFifo}, "")
	add(tar.Header{Name: "d/xattrs", Typeflag: tar.TypeReg, PAXRecords: map[string]string{
		"SCHILY.xattr.user.z": "last", "SCHILY.xattr.user.a": "\x01\x00\xff\xfe", "SCHILY.xattr.user.empty": "",
	}}, "with attributes")
	add(tar.Header{Name: "d/<&>\u2028\"\\\U0001F4BE", Typeflag: tar.TypeReg}, "escapes")
	add(tar.Header{Name: "d/" + strings.Repeat("long/", 60) + "f", Typeflag: tar.TypeReg}, "a long name")
	add(tar.Header{Name: "d/owner", Typeflag: tar.TypeReg, Uid: 4294967294, Gid: 2097157, Format: tar.FormatPAX}, "far")
	add(tar.Header{Name: "d/ns", Typeflag: tar.TypeReg, ModTime: time.Unix(1700000000, 600000000), Format: tar.FormatPAX}, "fractions")
	add(tar.Header{Name: "d/old", Typeflag: tar.TypeReg, ModTime: time.Unix(-1000, 0), Format: tar.FormatPAX}, "before 1970")
	add(tar.Header{Name: "d/.wh.gone", Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}, "")
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	return b.Bytes()
}

// numbers returns n bytes that compress well.
func numbers(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d\n", i%900)
	}
	return b.String()[:n]
}

// A writer writes the layers of one package.
type writer struct {
	dir    string
	layers map[string]layer
}

func (w *writer) put(name string, blob []byte, l layer) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	w.layers[name] = l
	return os.WriteFile(filepath.Join(w.dir, name+".layer"), blob, 0o644)
}

func (w *writer) finish() error {
	b, err := json.MarshalIndent(w.layers, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, "layers.json"), append(b, '\n'), 0o644)
}

// build converts a tar as ctr-remote does.
func (w *writer) build(name string, plain []byte, opts ...estargz.Option) error {
	blob, l, err := convert(plain, opts...)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.put(name, blob, l)
}

func convert(plain []byte, opts ...estargz.Option) ([]byte, layer, error) {
	b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(plain), 0, int64(len(plain))), opts...)
	if err != nil {
		return nil, layer{}, err
	}
	defer b.Close()
	blob, err := io.ReadAll(b)
	return blob, layer{map[string]string{digestKey: b.TOCDigest().String()}, b.DiffID().String()}, err
}

// lossless converts a tar as BuildKit does.
func (w *writer) lossless(name string, plain []byte) error {
	var blob bytes.Buffer
	e := estargz.NewWriterLevel(&blob, gzip.BestCompression)
	e.ChunkSize = chunkSize
	if err := e.AppendTarLossLess(bytes.NewReader(plain)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d, err := e.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.put(name, blob.Bytes(), layer{map[string]string{digestKey: d.String()}, e.DiffID()})
}

// external converts a tar, and writes the TOC to a layer of its own, NAME.toc.
func (w *writer) external(name string, plain []byte) error {
	c := externaltoc.NewGzipCompressor()
	blob, l, err := convert(plain, estargz.WithChunkSize(chunkSize), estargz.WithCompression(struct {
		estargz.Compressor
		estargz.Decompressor
	}{c, externaltoc.NewGzipDecompressor(nil)}))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var b bytes.Buffer
	if _, err := c.WriteTOCTo(&b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := w.put(name, blob, l); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, name+".toc"), b.Bytes(), 0o644)
}

// podman converts a tar as podman, buildah and skopeo do.
func (w *writer) podman(name string, plain []byte) error {
	annotations := map[string]string{}
	var blob bytes.Buffer
	z, err := compressor.ZstdCompressor(&blob, annotations, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := z.Write(plain); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	sum := sha256.Sum256(plain)
	return w.put(name, blob.Bytes(), layer{annotations, "sha256:" + hex.EncodeToString(sum[:])})
}

// stargz converts a tar to zstd:chunked as ctr-remote does.
func (w *writer) stargz(name string, plain []byte) error {
	annotations := map[string]string{}
	blob, l, err := convert(plain, estargz.WithChunkSize(chunkSize), estargz.WithCompression(struct {
		estargz.Compressor
		estargz.Decompressor
	}{&szc.Compressor{CompressionLevel: zstd.SpeedDefault, Metadata: annotations}, new(szc.Decompressor)}))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for k, v := range annotations {
		l.Annotations[k] = v
	}
	return w.put(name, blob, l)
}
