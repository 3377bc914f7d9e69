package magic_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/magic"
)

// named is a tar whose first member has that name.
func named(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The name of a tar's first member may be the magic of anything.
func TestNamedLikeMagic(t *testing.T) {
	for _, name := range []string{
		"\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "\x50\x2a\x4d\x18", "\xfd7zXZ", "BZh91AY&SY", "\x04\x22\x4d\x18", "\x5d\x01", "LZIP", "x\x9cy",
		"PK\x03\x04", "hsqs", "#!x", "[", "{", "070701",
	} {
		b := named(t, name)
		if !magic.IsTar(b) || !magic.IsTar(b[:512]) {
			t.Errorf("%q: not a tar", name)
		}
		if magic.IsTar(b[:511]) {
			t.Errorf("%q: a tar without a whole header", name)
		}
		b[100] ^= 1
		if magic.IsTar(b) {
			t.Errorf("%q: a tar with a wrong checksum", name)
		}
	}
}

// The checksum may be of signed bytes, and have spaces or zeros around it.
func TestIsTarChecksums(t *testing.T) {
	for _, format := range []string{"%06o\x00 ", "%6o\x00 ", "%07o\x00", "%o\x00junk"} {
		for _, signed := range []bool{false, true} {
			b := named(t, "\xe4\xe4")[:512]
			copy(b[148:156], "        ")
			sum := 0
			for _, c := range b {
				if signed {
					sum += int(int8(c))
				} else {
					sum += int(c)
				}
			}
			copy(b[148:156], fmt.Sprintf(format, sum))
			if !magic.IsTar(b) {
				t.Errorf("%q, signed %v: not a tar", b[148:156], signed)
			}
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "zeros": make([]byte, 1024), "text": bytes.Repeat([]byte("text"), 512)} {
		if magic.IsTar(b) {
			t.Errorf("%s: a tar", name)
		}
	}
}

// What the programs write that compress is known by their name.
func TestOfPrograms(t *testing.T) {
	for _, program := range []string{"gzip", "bzip2", "xz", "zstd", "lz4", "lzip", "lzop", "compress"} {
		cmd := exec.Command(program, "-c")
		cmd.Stdin = strings.NewReader(strings.Repeat("content ", 1000))
		b, err := cmd.Output()
		if err != nil {
			t.Logf("%s: %v", program, err)
			continue
		}
		if f := magic.Of(b); f.Name != program || !f.Compression || f.String() != "data compressed with "+program {
			t.Errorf("%s: got %v", program, f)
		}
	}
}

func TestOf(t *testing.T) {
	at := func(off int, s string) []byte { return append(make([]byte, off), s...) }
	for want, b := range map[string][]byte{
		"data compressed with zstd":         []byte("\x5f\x2a\x4d\x18\x04\x00\x00\x00skip"),
		"a zip archive":                     []byte("PK\x03\x04"),
		"a squashfs file system":            []byte("hsqs"),
		"an ISO 9660 image":                 at(0x8001, "CD001"),
		"an ext2, ext3 or ext4 file system": at(0x438, "\x53\xef"),
		"a btrfs file system":               at(0x10040, "_BHRfS_M"),
		"a Singularity image file (SIF)":    append([]byte("#!/usr/bin/env run-singularity\n\x00"), "SIF_MAGIC"...),
		"a disk image with partitions":      append(at(510, "\x55\xaa"), "EFI PART"...),
		"a JSON document":                   []byte(`{"a":1}`),
		"":                                  []byte("text"),
	} {
		if got := magic.Of(b).String(); got != want {
			t.Errorf("%.10q: got %q, want %q", b, got, want)
		}
		if got := magic.Of(b[:len(b)-1]).String(); want != "" && got == want && want != "a JSON document" && want != "data compressed with zstd" {
			t.Errorf("without the last byte: got %q", got)
		}
	}
	if got := (magic.Format{}); magic.Of(nil) != got || magic.Of(make([]byte, magic.HeadSize)) != got {
		t.Error("nothing, or zeros, are something")
	}
}
