package containerdstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// errDatabase: a database is not what it should be.
var errDatabase = errors.New("invalid bolt database")

// errChanged: the database was written while it was read.
var errChanged = errors.New("it is being written")

const (
	boltMagic   = 0xed0cdaed
	boltVersion = 2

	metaSize    = 64
	headerSize  = 16 // of a page, of an element, and of a bucket
	pageBranch  = 1
	pageLeaf    = 2
	leafBucket  = 1 // flag of an element
	maxPageSize = 64 << 10
	// maxPage bounds a page with those that it runs over to.
	maxPage = 16 << 20
	// maxDepth bounds the way from a bucket's root to a key.
	maxDepth = 32
	// maxPages bounds the pages that one reading takes.
	maxPages = 64 << 10
)

// A database is a file of bbolt as it was at one time. It is read page by page, and not
// mapped: whoever writes it may make it shorter at any time. Its pages are copied on
// writing, and those that the newest meta page leads to are not reused before there are
// two newer ones. So what was read is right if the meta pages are afterwards what they
// were before; changed tells.
type database struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	metas    []byte // both meta pages as they were
	root     uint64
	pages    int // that may still be read
}

// order is that of the machine, in which bbolt writes.
var order = binary.NativeEndian

// openDatabase reads the meta pages.
func openDatabase(file io.ReaderAt, size int64) (*database, error) {
	d := &database{file: file, size: size, pages: maxPages}
	for _, d.pageSize = range []int64{4096, 16384, 65536, 1024, 2048, 8192, 32768} {
		var err error
		if d.metas, err = d.readMetas(); err != nil {
			return nil, err
		}
		newest := uint64(0)
		found := false
		for i := range 2 {
			m := d.metas[i*metaSize:][:metaSize]
			if sum := fnv.New64a(); order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion || int64(order.Uint32(m[8:])) != d.pageSize {
				continue
			} else if sum.Write(m[:56]); sum.Sum64() != order.Uint64(m[56:]) {
				continue
			}
			if id := order.Uint64(m[48:]); !found || id > newest {
				found, newest, d.root = true, id, order.Uint64(m[16:])
			}
		}
		if found {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: neither of its meta pages is right", errDatabase)
}

// readMetas reads both meta pages. One that is not there is zeros.
func (d *database) readMetas() ([]byte, error) {
	metas := make([]byte, 2*metaSize)
	for i := range 2 {
		if _, err := d.file.ReadAt(metas[i*metaSize:][:metaSize], int64(i)*d.pageSize+headerSize); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return metas, nil
}

// changed returns errChanged if the database has been written since it was opened.
func (d *database) changed() error {
	metas, err := d.readMetas()
	if err == nil && !bytes.Equal(metas, d.metas) {
		err = errChanged
	}
	return err
}

// A page is one page with those that it runs over to, or a bucket within another page.
type page []byte

func (p page) flags() uint16 { return order.Uint16(p[8:]) }
func (p page) count() int    { return int(order.Uint16(p[10:])) }

// read reads a page.
func (d *database) read(id uint64) (page, error) {
	if d.pages--; d.pages < 0 {
		return nil, fmt.Errorf("%w: more than %d pages", errDatabase, maxPages)
	}
	if id < 2 || id > uint64(d.size/d.pageSize) {
		return nil, fmt.Errorf("%w: page %d is not in it", errDatabase, id)
	}
	header := make([]byte, headerSize)
	if err := d.fill(header, int64(id)*d.pageSize); err != nil {
		return nil, err
	}
	if order.Uint64(header) != id {
		return nil, fmt.Errorf("%w: page %d says that it is %d", errDatabase, id, order.Uint64(header))
	}
	n := (int64(order.Uint32(header[12:])) + 1) * d.pageSize
	if n > maxPage || n > d.size-int64(id)*d.pageSize {
		return nil, fmt.Errorf("%w: page %d has %d bytes", errDatabase, id, n)
	}
	p := make(page, n)
	if err := d.fill(p, int64(id)*d.pageSize); err != nil {
		return nil, err
	}
	return p, nil
}

func (d *database) fill(p []byte, off int64) error {
	n, err := d.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("%w: it ends at byte %d", errDatabase, off+int64(n))
	}
	return err
}

// part returns n bytes of a page.
func (p page) part(off, n uint64) ([]byte, error) {
	if off > uint64(len(p)) || n > uint64(len(p))-off {
		return nil, fmt.Errorf("%w: an element leads out of its page", errDatabase)
	}
	return p[off:][:n:n], nil
}

// An element is an entry of a page: a key with the page below it, or with a value.
type element struct {
	key, value []byte
	bucket     bool
	below      uint64
}

// element returns entry i of a page.
func (p page) element(i int) (e element, err error) {
	at := uint64(headerSize * (i + 1))
	h, err := p.part(at, headerSize)
	if err != nil {
		return e, err
	}
	if p.flags()&pageBranch != 0 {
		e.below = order.Uint64(h[8:])
		e.key, err = p.part(at+uint64(order.Uint32(h)), uint64(order.Uint32(h[4:])))
		return e, err
	}
	e.bucket = order.Uint32(h)&leafBucket != 0
	at += uint64(order.Uint32(h[4:]))
	size := uint64(order.Uint32(h[8:]))
	if e.key, err = p.part(at, size); err == nil {
		e.value, err = p.part(at+size, uint64(order.Uint32(h[12:])))
	}
	return e, err
}

// A bucket is a map of keys to values and other buckets.
type bucket struct {
	db     *database
	root   uint64
	inline page // if root is 0
}

// top returns the bucket that holds all others.
func (d *database) top() bucket { return bucket{db: d, root: d.root} }

func (b bucket) first() (page, error) {
	if b.root == 0 && len(b.inline) >= headerSize {
		return b.inline, nil
	}
	return b.db.read(b.root)
}

// search returns the first entry of a page whose key is not below key, and whether it has
// that key.
func (p page) search(key []byte) (at int, exact bool, err error) {
	low, high := 0, p.count()
	for low < high {
		mid := (low + high) / 2
		e, err := p.element(mid)
		if err != nil {
			return 0, false, err
		}
		if c := bytes.Compare(e.key, key); c < 0 {
			low = mid + 1
		} else {
			high, exact = mid, exact || c == 0
		}
	}
	return low, exact, nil
}

// find returns the element of a key. ok tells whether there is one.
func (b bucket) find(key string) (e element, ok bool, err error) {
	p, err := b.first()
	for range maxDepth {
		if err != nil {
			return e, false, err
		}
		at, exact, err := p.search([]byte(key))
		if err != nil {
			return e, false, err
		}
		switch {
		case p.flags()&pageLeaf != 0 && !exact:
			return e, false, nil
		case p.flags()&pageLeaf != 0:
			e, err = p.element(at)
			return e, err == nil, err
		case p.flags()&pageBranch == 0 || p.count() == 0:
			return e, false, badPage(p)
		case !exact: // keys are the first ones of the pages below
			at = max(at-1, 0)
		}
		if e, err = p.element(at); err != nil {
			return e, false, err
		}
		if p, err = b.db.read(e.below); err != nil {
			return e, false, err
		}
	}
	return e, false, fmt.Errorf("%w: pages below pages without an end", errDatabase)
}

func badPage(p page) error {
	return fmt.Errorf("%w: a page of kind %#x with %d entries", errDatabase, p.flags(), p.count())
}

// value returns what a key has.
func (b bucket) value(key string) ([]byte, bool, error) {
	e, ok, err := b.find(key)
	if err != nil || !ok || e.bucket {
		return nil, false, err
	}
	return e.value, true, nil
}

// bucket returns the bucket of a key.
func (b bucket) bucket(key string) (bucket, bool, error) {
	e, ok, err := b.find(key)
	if err != nil || !ok || !e.bucket {
		return bucket{}, false, err
	}
	sub, err := b.below(e)
	return sub, err == nil, err
}

// below returns the bucket in an element.
func (b bucket) below(e element) (bucket, error) {
	if len(e.value) < headerSize {
		return bucket{}, fmt.Errorf("%w: a bucket of %d bytes", errDatabase, len(e.value))
	}
	return bucket{db: b.db, root: order.Uint64(e.value), inline: page(e.value[headerSize:])}, nil
}

// each calls f with all elements, in the order of their keys.
func (b bucket) each(f func(element) error) error {
	p, err := b.first()
	if err != nil {
		return err
	}
	return b.eachOf(p, 0, f)
}

func (b bucket) eachOf(p page, depth int, f func(element) error) error {
	if p.flags()&(pageBranch|pageLeaf) == 0 || depth == maxDepth {
		return badPage(p)
	}
	for i := range p.count() {
		e, err := p.element(i)
		if err != nil {
			return err
		}
		if p.flags()&pageLeaf != 0 {
			err = f(e)
		} else {
			var below page
			if below, err = b.db.read(e.below); err == nil {
				err = b.eachOf(below, depth+1, f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
