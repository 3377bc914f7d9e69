package blobcache

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// A kind is what a file in the directory is for.
type kind int

const (
	kindOther   kind = iota // manifests, references and whatever has no kind of its own
	kindKept                // what the directory needs itself
	kindOwned               // what has an owner while it is locked
	kindBlob                // a blob file
	kindIndex               // a layer index
	kindUnborn              // a layer index that is being written
	kindImage               // an image record
	kindContent             // a content
)

// A found is a file that a walk found.
type found struct {
	path  string
	kind  kind
	bytes int64 // on disk
	size  int64
	mtime time.Time
}

// An inventory is what a walk found.
type inventory struct {
	dir   string
	total int64 // bytes on disk, with directories
	files []found
}

// walk sums up what lies below dir, as du does. What goes away meanwhile, or
// cannot be looked at, does not count.
func walk(dir string) (inventory, error) {
	w := walker{inv: inventory{dir: dir}, linked: map[uint64]bool{}}
	// What is given its name meanwhile must not be missed.
	_ = w.below(filepath.Join(dir, tmpDir))
	w.skip = filepath.Join(dir, tmpDir)
	err := w.below(dir)
	return w.inv, err
}

type walker struct {
	inv    inventory
	skip   string          // a directory that has been looked at
	linked map[uint64]bool // inodes with several names, counted once
}

// below adds a directory and what is in it to the inventory. The error is that
// the directory cannot be read.
func (w *walker) below(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil
		}
		if path == w.skip {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			w.add(path, info, st)
		}
		return nil
	})
}

func (w *walker) add(path string, info fs.FileInfo, st *syscall.Stat_t) {
	bytes := st.Blocks * 512
	if st.Nlink > 1 && !info.IsDir() {
		if w.linked[st.Ino] {
			bytes = 0
		}
		w.linked[st.Ino] = true
	}
	w.inv.total += bytes
	if !info.IsDir() {
		rel := strings.TrimPrefix(path[len(w.inv.dir):], string(os.PathSeparator))
		w.inv.files = append(w.inv.files, found{path, kindOf(rel), bytes, info.Size(), info.ModTime()})
	}
}

// kindOf says what a file is for, by its path in the directory.
func kindOf(rel string) kind {
	top, rest, below := strings.Cut(rel, "/")
	switch {
	case !below:
		return kindKept
	case top == tmpDir, top == claimsDir:
		return kindOwned
	case top == blobsDir:
		return kindBlob
	case top == indexesDir && strings.HasPrefix(filepath.Base(rest), "."):
		return kindUnborn
	case top == indexesDir:
		return kindIndex
	case top == imagesDir:
		return kindImage
	case top == contentsDir:
		return kindContent
	}
	return kindOther
}

// digestOf returns the digest that a path of the form …/ALG/HEX stands for.
func digestOf(path string) (digest.Digest, bool) {
	d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), filepath.Base(path))
	return d, d.Validate() == nil
}

// Usage returns how many bytes everything below the directory takes on disk,
// as du counts.
func (c *Cache) Usage() (int64, error) {
	inv, err := walk(c.dir)
	return inv.total, err
}
