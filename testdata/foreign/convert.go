package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// convertFile converts a layer in a file into another file and prints what has to be
// known of it. The layer is a tar that is compressed with gzip. Those of the files of first
// that it has come first in an eStargz.
func convertFile(kind, from, to string, first []string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	var l layer
	switch kind {
	case "estargz":
		l, err = convertToEStargz(in, out, first)
	case "zstdchunked":
		l, err = convertToZstdChunked(in, out, nil)
	case "zstdchunked-latin1":
		var extra []byte
		if extra, err = latin1(); err == nil {
			l, err = convertToZstdChunked(in, out, extra)
		}
	default:
		err = fmt.Errorf("unknown kind %q", kind)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

func convertToEStargz(in *os.File, out io.Writer, first []string) (layer, error) {
	info, err := in.Stat()
	if err != nil {
		return layer{}, err
	}
	var missing []string // in other layers
	b, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()), estargz.WithPrioritizedFiles(first), estargz.WithAllowPrioritizeNotFound(&missing))
	if err != nil {
		return layer{}, err
	}
	defer b.Close()
	_, err = io.Copy(out, b)
	return layer{map[string]string{digestKey: b.TOCDigest().String()}, b.DiffID().String()}, err
}

// latin1 returns the beginning of a tar: an entry whose name is not UTF-8.
func latin1() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "caf\xe9", Typeflag: tar.TypeReg, Mode: 0o644})
	return b.Bytes(), err
}

// convertToZstdChunked converts a layer behind the entries of extra.
func convertToZstdChunked(in io.Reader, out io.Writer, extra []byte) (layer, error) {
	plain, err := gzip.NewReader(in)
	if err != nil {
		return layer{}, err
	}
	annotations := map[string]string{}
	z, err := compressor.ZstdCompressor(out, annotations, nil)
	if err != nil {
		return layer{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(z, sum), io.MultiReader(bytes.NewReader(extra), plain))
	return layer{annotations, "sha256:" + hex.EncodeToString(sum.Sum(nil))}, errors.Join(err, z.Close())
}
