package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// A tar is one, though its first name may be the magic of a compression: of those
// that layers have, and of others.
func TestBuildNamedLikeMagic(t *testing.T) {
	for _, name := range []string{
		"\x1f\x8b", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "\x50\x2a\x4d\x18", "\x5f\x2a\x4d\x18", "\xfd7zXZ", "BZh", "BZh91AY&SY", "\x04\x22\x4d\x18",
		"LZIP", "x\x9c", "hsqs", "PK\x03\x04",
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for codec, blob := range map[layerindex.Codec][]byte{layerindex.Plain: b.Bytes(), layerindex.Gzip: zipped(t, b.Bytes())} {
			x, err := Index(t.Context(), claim(blob, b.Bytes()), bytes.NewReader(blob), nil)
			if err != nil {
				t.Errorf("%q: %v", name, err)
				continue
			}
			if x.Codec() != codec {
				t.Errorf("%q: got codec %v, want %v", name, x.Codec(), codec)
			}
		}
	}
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A layer that is compressed otherwise, or twice, or is no tar at all is refused by
// the name of what it is.
func TestBuildNamesFormat(t *testing.T) {
	var tarBytes bytes.Buffer
	w := tar.NewWriter(&tarBytes)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	type refused struct {
		blob []byte
		want error
		says string
	}
	tests := map[string]refused{
		"gzip in gzip":  {zipped(t, zipped(t, tarBytes.Bytes())), layerindex.ErrTar, "begins like data compressed with gzip"},
		"zstd in gzip":  {zipped(t, []byte("\x28\xb5\x2f\xfdjunk"+strings.Repeat("x", 1000))), layerindex.ErrTar, "begins like data compressed with zstd"},
		"squashfs":      {[]byte("hsqs" + strings.Repeat("x", 1000)), layerindex.ErrTar, "begins like a squashfs file system"},
		"JSON in gzip":  {zipped(t, []byte("{"+strings.Repeat(" ", 1000)+"}")), layerindex.ErrTar, "begins like a JSON document"},
		"unknown bytes": {[]byte(strings.Repeat("x", 1000)), layerindex.ErrTar, "checksum does not match"},
	}
	for _, program := range []string{"bzip2", "xz", "lz4", "lzip", "lzop", "compress"} {
		cmd := exec.Command(program, "-c")
		cmd.Stdin = bytes.NewReader(tarBytes.Bytes())
		if blob, err := cmd.Output(); err == nil {
			tests[program] = refused{blob, layerindex.ErrCompressed, program + " is not a compression of layers"}
		}
	}
	for name, tt := range tests {
		_, err := Index(t.Context(), claim(tt.blob, tarBytes.Bytes()), bytes.NewReader(tt.blob), nil)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got error %v, want %v that says %q", name, err, tt.want, tt.says)
		}
	}
}
