package fuse

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// maxSmall is how big a small file is at most.
const maxSmall = 16 << 10

// An image is what all systems show.
type image struct {
	name   string // its directory, and its repository in the registry
	what   string // for the report
	dir    string
	layout string
	tree   string // unpacked
	shown  string // what find shows of it
	all    files
	small  files
	// everywhere is whether all systems were prepared for it.
	everywhere bool
}

// files are regular files of an image, and what reading them must give.
type files struct {
	names []string
	bytes int64
	sum   uint64
}

func (l *files) add(name string, size int64) {
	l.names = append(l.names, name)
	l.bytes += size
}

// goSources is the image that every machine with Go can make.
func goSources(layout string) error { return labimage.GoTree(layout) }

// node returns the image with many files.
func (b *bench) node() (*image, error) {
	if b.corpora != "" {
		return b.image("node", "node of the lab", filepath.Join(b.corpora, "built", "node"), nil)
	}
	return b.image("node", "made by testdata/labimage", "", b.source)
}

// oneFile returns an image with nothing but a file of a size: what is in the
// image with many files, one after the other, and again from its beginning.
func (b *bench) oneFile(name string, size int64) (*image, error) {
	node, err := b.node()
	if err != nil {
		return nil, err
	}
	return b.image(name, fmt.Sprintf("one file of %s, of the files of %s", figures.Number(float64(size)/1e6, "MB"), node.what), "", func(layout string) error {
		_, err := labimage.Write(layout, func(a *labimage.Archive) error {
			return a.Copy(name, size, &endless{dir: node.tree, names: node.all.names})
		})
		return err
	})
}

// image has an image unpacked and in the registry. If layout is empty, source
// makes one.
func (b *bench) image(name, what, layout string, source func(layout string) error) (*image, error) {
	if img := b.images[name]; img != nil {
		return img, nil
	}
	b.logf("preparing %s: %s", name, what)
	img := &image{name: name, what: what, dir: filepath.Join(b.disk, name), layout: layout}
	if layout == "" {
		img.layout = filepath.Join(img.dir, "layout")
		if err := once(img.layout, source); err != nil {
			return nil, err
		}
	}
	img.tree = filepath.Join(img.dir, "tree")
	err := once(img.tree, func(part string) error {
		_, err := b.output("umoci", "raw", "unpack", "--image", img.layout+":"+labimage.Tag, part)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := b.list(img); err != nil {
		return nil, err
	}
	_, err = b.output("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+img.layout+":"+labimage.Tag, "docker://"+b.reference(img))
	b.images[name] = img
	return img, err
}

// ratio says how well an image is compressed.
func (img *image) ratio() string {
	blob, err := biggest(filepath.Join(img.layout, "blobs", "sha256"))
	if err != nil {
		return "unknown"
	}
	info, err := os.Stat(blob)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.2f : 1", float64(img.all.bytes)/float64(info.Size()))
}

// reference names an image in the registry.
func (b *bench) reference(img *image) string { return b.registry + "/" + img.name + ":latest" }

// once makes a file or directory, unless a run before has done so.
func once(path string, make func(part string) error) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	part := path + ".part" // of a run that was interrupted, if it exists
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(filepath.Dir(path), 0o777)); err != nil {
		return err
	}
	if err := make(part); err != nil {
		return err
	}
	return os.Rename(part, path)
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
	r, err := b.read(img.tree, img.all.names, "check", 2)
	if err == nil && r.bytes != img.all.bytes {
		err = fmt.Errorf("%s has %d bytes, want %d", img.tree, r.bytes, img.all.bytes)
	}
	img.all.sum = r.sum
	if err == nil {
		img.shown, err = b.shown(img.tree)
	}
	return err
}

// shown returns kind, name and length or target of everything in a tree, as
// find has them. A directory's length is its file system's own affair.
func (b *bench) shown(root string) (string, error) {
	out, err := b.output("find", root, "-type", "f", "-printf", `f %s %P\0`, "-o", "-printf", `%y %l %P\0`)
	lines := strings.Split(out, "\x00")
	slices.Sort(lines)
	return strings.Join(lines, "\x00"), err
}

// readAll reads files of a mounted image, which must have the length they had
// when they were unpacked.
func (b *bench) readAll(m *mounted, l *files, threads int, wrap ...string) (reading, error) {
	r, err := b.read(m.root, l.names, "open", threads, wrap...)
	if err == nil && r.bytes != l.bytes {
		err = fmt.Errorf("%s: %d bytes read, want %d", m.root, r.bytes, l.bytes)
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
