package fuse

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// maxSmall is how big a small file is at most.
const maxSmall = 16 << 10

// An image is shown by all systems.
type image struct {
	*labimage.Image
	name      string // its directory, and its repository in the registry
	what      string // for the report
	reference string // in the registry
	dir       string
	tree      string // unpacked
	shown     string // its list by find
	all       files
	small     files
	// everywhere is whether all systems were prepared for it.
	everywhere bool
}

// files are regular files of an image, with their total size and checksum.
type files struct {
	names []string
	bytes int64
	sum   uint64
}

func (l *files) add(name string, size int64) {
	l.names = append(l.names, name)
	l.bytes += size
}

// node returns the image with many files.
func (b *bench) node() (*image, error) {
	if img := b.images["node"]; img != nil {
		return img, nil
	}
	img, what, err := b.Node(b.disk)
	if err != nil {
		return nil, err
	}
	return b.image("node", what, img)
}

// oneFile returns an image with nothing but a file of a size: the content of the
// files of node, one after the other, and again from the first.
func (b *bench) oneFile(name string, size int64) (*image, error) {
	if img := b.images[name]; img != nil {
		return img, nil
	}
	node, err := b.node()
	if err != nil {
		return nil, err
	}
	layout := filepath.Join(b.disk, name, "layout")
	err = runner.Once(layout, func(part string) error {
		_, err := labimage.Write(part, func(a *labimage.Archive) error {
			return a.Copy(name, size, &endless{dir: node.tree, names: node.all.names})
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	img, err := labimage.Open(layout)
	if err != nil {
		return nil, err
	}
	return b.image(name, fmt.Sprintf("one file of %s, of the files of %s", figures.Megabytes(size), node.what), img)
}

// image has an image unpacked and in the registry.
func (b *bench) image(name, what string, layout *labimage.Image) (*image, error) {
	b.Logf("preparing %s: %s", name, what)
	img := &image{Image: layout, name: name, what: what, dir: filepath.Join(b.disk, name)}
	img.tree = filepath.Join(img.dir, "tree")
	err := runner.Once(img.tree, func(part string) error {
		_, err := b.Output("umoci", "raw", "unpack", "--image", img.Layout+":"+labimage.Tag, part)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := b.list(img); err != nil {
		return nil, err
	}
	img.reference, err = b.Push(layout, name+":latest")
	b.images[name] = img
	return img, err
}

// ratio says how well an image is compressed.
func (img *image) ratio() string {
	return fmt.Sprintf("%.2f : 1", float64(img.all.bytes)/float64(img.Size()))
}

// list lists the files of an unpacked image that have content, in the order of
// a walk, and reads them.
func (b *bench) list(img *image) error {
	err := filepath.WalkDir(img.tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(img.tree, path)
		img.all.add(name, info.Size())
		if info.Size() <= maxSmall {
			img.small.add(name, info.Size())
		}
		return err
	})
	if err == nil && img.all.bytes == 0 {
		err = fmt.Errorf("%s has no files", img.tree)
	}
	if err != nil {
		return err
	}
	r, err := b.Read(img.tree, img.all.names, "check", "2")
	if err == nil && r.Bytes != img.all.bytes {
		err = fmt.Errorf("%s has %d bytes, want %d", img.tree, r.Bytes, img.all.bytes)
	}
	img.all.sum = r.Sum
	if err == nil {
		img.shown, err = b.shown(img.tree)
	}
	return err
}

// shown returns kind, name and length or target of everything in a tree, as
// find has them. A directory's length is its file system's own affair.
func (b *bench) shown(root string) (string, error) {
	out, err := b.Output("find", root, "-type", "f", "-printf", `f %s %P\0`, "-o", "-printf", `%y %l %P\0`)
	lines := strings.Split(out, "\x00")
	slices.Sort(lines)
	return strings.Join(lines, "\x00"), err
}

// readAll reads files of a mounted image, which must have the length they had
// when they were unpacked.
func (b *bench) readAll(m *mounted, l *files, threads int, wrap ...string) (runner.Reading, error) {
	r, err := b.Read(m.root, l.names, "open", strconv.Itoa(threads), wrap...)
	if err == nil && r.Bytes != l.bytes {
		err = fmt.Errorf("%s: %d bytes read, want %d", m.root, r.Bytes, l.bytes)
	}
	return r, err
}

// An endless reads files one after the other, without an end.
type endless struct {
	dir   string
	names []string
	next  int
	f     *os.File
}

// Read implements io.Reader.
func (e *endless) Read(p []byte) (int, error) {
	for {
		if e.f == nil {
			f, err := os.Open(filepath.Join(e.dir, e.names[e.next]))
			if err != nil {
				return 0, err
			}
			e.f, e.next = f, (e.next+1)%len(e.names)
		}
		n, err := e.f.Read(p)
		if err == io.EOF {
			err = e.f.Close()
			e.f = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}
