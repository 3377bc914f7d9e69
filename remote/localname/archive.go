package localname

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
	"github.com/imgfs/imgfs/remote/printable"
)

const (
	// maxHeaders is how many headers of a tar are read, and maxUnpacked how many
	// bytes are unpacked for that.
	maxHeaders  = 1 << 16
	maxUnpacked = 64 << 20
)

// archiveOf returns the transport that reads a file. image is what follows its name.
func archiveOf(ctx context.Context, name string, info fs.FileInfo, image string) (string, error) {
	word := printable.Word(name)
	no := func(hint, format string, args ...any) error {
		return &Error{Path: name, Err: fmt.Errorf("%w: "+format, append([]any{errNoImage}, args...)...), Hint: hint}
	}
	if above := layoutAbove(name); above != "" {
		return "", no(printable.Word("oci:"+above), "it is a part of the image layout %s", above)
	}
	if !info.Mode().IsRegular() {
		return "", no(printable.Word("docker-archive:"+name)+" or "+printable.Word("oci-archive:"+name), "it is no regular file, so that it must be said which kind of archive it is")
	}
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", reason(err)
	}
	defer file.Close()
	begins := make([]byte, 512)
	n, _ := file.ReadAt(begins, 0) // of an empty file there is nothing
	r, compressed, err := tarball.Decompress(ctx, file)
	if err != nil {
		return "", err
	}
	defer r.Close()
	c := &contents{}
	if compressed {
		c.read(ctx, io.LimitReader(r, maxUnpacked))
	} else {
		c.read(ctx, io.NewSectionReader(file, 0, info.Size()))
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case c.manifest && c.layout:
		return eitherOf(image), nil
	case c.manifest, c.layers && !c.blobs:
		return remote.TransportDockerArchive, nil
	case c.layout, c.blobs:
		return remote.TransportOCIArchive, nil
	case c.nested != "":
		return "", no("tar -xf "+word+" && imgfs ls "+printable.Word("./"+c.nested), "the image is in the directory %s of the archive", c.nested)
	case c.root() >= 2:
		return "", no("docker save -o FILE IMAGE writes an image", "it is the tar of a file system, as docker export writes it")
	case c.headers > 0:
		return "", no("docker save -o FILE IMAGE writes an image", "it is a tar with neither manifest.json nor index.json in it")
	}
	hint, what := kindOf(begins[:n])
	if base := filepath.Base(name); strings.HasPrefix(base, "Dockerfile") || strings.HasPrefix(base, "Containerfile") {
		hint, what = "podman build -t NAME -f "+word, "what an image can be built from"
	}
	return "", no(hint, "it is %s", what)
}

// eitherOf returns the transport for an archive that is of docker and a layout, as
// docker save writes since version 25. Layouts know tags and digests, and docker's
// archives names.
func eitherOf(image string) string {
	if image != "" && !strings.ContainsAny(strings.TrimPrefix(image, "@"), ":/") || strings.HasPrefix(image, "@sha") {
		return remote.TransportOCIArchive
	}
	return remote.TransportDockerArchive
}

// contents is what a tar has in it.
type contents struct {
	headers          int
	manifest, layout bool            // manifest.json; index.json or oci-layout
	layers, blobs    bool            // layers as docker save wrote them; blobs of a layout
	nested           string          // the directory that an image is in
	first            map[string]bool // names that root file systems have
}

// read reads the headers of a tar, as far as there are any.
func (c *contents) read(ctx context.Context, r io.Reader) {
	c.first = map[string]bool{}
	for tr := tar.NewReader(r); c.headers < maxHeaders && ctx.Err() == nil; c.headers++ {
		h, err := tr.Next()
		if err != nil {
			return
		}
		c.add(path.Clean("/" + h.Name)[1:])
	}
}

// add takes down the name of a member.
func (c *contents) add(name string) {
	top, rest, _ := strings.Cut(name, "/")
	switch {
	case name == "manifest.json":
		c.manifest = true
	case name == "index.json", name == "oci-layout":
		c.layout = true
	case top == "blobs":
		c.blobs = true
	case len(strings.TrimSuffix(top, ".tar")) == 64 && strings.Trim(top[:64], "0123456789abcdef") == "":
		c.layers = true
	case rest == "manifest.json", rest == "index.json", rest == "oci-layout":
		c.nested = top
	}
	if rootNames(func(n string) bool { return n == top }) > 0 {
		c.first[top] = true
	}
}

// root counts the names that root file systems have.
func (c *contents) root() int { return len(c.first) }

// kindOf says what a file is that begins with some bytes and is no tar.
func kindOf(begins []byte) (hint, what string) {
	for _, k := range []struct{ magic, hint, what string }{
		{"hsqs", "", "a squashfs, and not a tar"},
		{"PK\x03\x04", "", "a zip file, and not a tar"},
		{"\x7fELF", "", "a program, and not a tar"},
		{"{", "", "a JSON document, and not a tar"},
		{"FROM ", "podman build -t NAME -f FILE", "what an image can be built from"},
	} {
		if bytes.HasPrefix(bytes.TrimLeft(begins, " \r\n\t"), []byte(k.magic)) {
			return k.hint, k.what
		}
	}
	switch {
	case bytes.Contains(begins[:min(64, len(begins))], []byte("SIF_MAGIC")):
		return "", "an image of Apptainer (SIF), which imgfs does not read"
	case len(begins) == 0:
		return "", "an empty file"
	}
	return "docker save -o FILE IMAGE writes an image", "not a tar"
}
