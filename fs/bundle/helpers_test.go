package bundle

import (
	"context"
	"io"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A stream is a layer in memory.
type stream []byte

func (s stream) ReadFileAt(ctx context.Context, p []byte, off, _ int64) (int, error) {
	if off > int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, ctx.Err()
}

// treeOf returns a tree of one layer.
func treeOf(t testing.TB, members ...layertest.Member) *fs.Tree {
	t.Helper()
	var content stream
	var entries []layerindex.Entry
	for _, m := range members {
		e := m.Entry
		if e.Type == layerindex.TypeReg {
			e.Off = int64(len(content))
		}
		content = append(content, m.Data...)
		entries = append(entries, e)
	}
	tree, err := fs.Merge(t.Context(), []fs.Layer{{Name: "layer", Content: fs.StreamContent(content), Entries: func(yield func(*layerindex.Entry) bool) {
		for _, e := range entries {
			if !yield(&e) {
				return
			}
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

const passwdText = `root:x:0:0:root:/root:/bin/sh
bob:x:1000:1001:Bob:/home/bob:/bin/sh
bob:x:7:7:another:/:/bin/sh
homeless:x:1003:1003:::
`

const groupText = `root:x:0:
bob:x:1001:
extra:x:2000:alice,bob
wheel:x:10:root,bob
`

// smallRoot are the files of an image in which a program runs.
func smallRoot(more ...layertest.Member) []layertest.Member {
	return append([]layertest.Member{
		layertest.Dir("proc"), layertest.Dir("sys"), layertest.Dir("dev"), layertest.Dir("srv"),
		layertest.File("bin/sh", "#!/bin/busybox sh\n", layertest.Mode(0o755)),
		layertest.File("bin/busybox", "program", layertest.Mode(0o755)),
		layertest.File("etc/passwd", passwdText),
		layertest.File("etc/group", groupText),
	}, more...)
}

// shell is the config of an image whose command is a shell.
func shell() *ocispec.Image {
	return &ocispec.Image{
		Platform: ocispec.Platform{OS: "linux"},
		Config:   ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"FOO=bar"}},
	}
}
