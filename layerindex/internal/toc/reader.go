package toc

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/stringpool"
	"github.com/imgfs/imgfs/layerindex/internal/tarscan"
)

const (
	// maxString bounds a string of a TOC: an xattr, in base64, of as many bytes as an
	// extended header of a tar may have.
	maxString = 2 << 20
	// maxXattrs bounds the attributes of an entry, by what they take in a tar.
	maxXattrs = 1 << 20
	version   = 1
)

// A Reader reads the entries of a TOC from its JSON text. It is for one goroutine. Its
// memory is that of one entry, whatever the text has.
type Reader struct {
	lex   lexer
	pool  stringpool.Pool
	entry Entry
	err   error

	started, inside, first bool   // in the text, its entries, before the first of those
	seen, fields           uint32 // members of the text and of the entry, by bits
	version                int64
	tarSplit               string
	had                    layerindex.Loss // what is not lost
	value                  []byte          // of an attribute
}

// NewReader returns a Reader of the JSON text that src gives.
func NewReader(src io.Reader) *Reader {
	return &Reader{lex: lexer{src: src, max: maxString}}
}

// Next returns the next entry, which is valid until the next call, its strings for
// good. After the last one it returns io.EOF if all of the text was right. Other errors
// are those of the source, io.ErrUnexpectedEOF, or wrap layerindex.ErrIndex.
func (r *Reader) Next() (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	more, err := r.advance()
	if err == nil && more {
		err = r.readEntry()
	}
	switch {
	case err == nil && !more:
		err = io.EOF
	case err != nil:
		err = asIndexError(err)
	}
	r.err = err
	if err != nil {
		return nil, err
	}
	return &r.entry, nil
}

// TarSplitDigest returns the digest that a TOC of zstd:chunked names of its tar-split,
// "" for none. It is known after io.EOF.
func (r *Reader) TarSplitDigest() string { return r.tarSplit }

// Lacks returns what no entry so far had of what some programs leave out: so it may be
// lost, or the layer has none of it.
func (r *Reader) Lacks() layerindex.Loss { return allLosses &^ r.had }

const allLosses = layerindex.LossSubSecond | layerindex.LossEmptyXattrs

// asIndexError makes what is wrong with a text an error of an index.
func asIndexError(err error) error {
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return err
}

// advance goes to the next entry. At the end of the text it returns false.
func (r *Reader) advance() (bool, error) {
	if !r.started {
		r.started = true
		if err := r.lex.take('{'); err != nil {
			return false, err
		}
		return r.members(true)
	}
	if r.inside {
		more, err := r.lex.another(r.first, ']')
		r.first = false
		if err != nil || more {
			return more, err
		}
		r.inside = false
	}
	return r.members(false)
}

// members reads members of the text up to the first entry, or to the end.
func (r *Reader) members(first bool) (bool, error) {
	for ; ; first = false {
		more, err := r.lex.another(first, '}')
		if err != nil {
			return false, err
		}
		if !more {
			return false, r.finish()
		}
		if entries, err := r.member(); err != nil {
			return false, err
		} else if entries {
			return r.advance()
		}
	}
}

// The members of a TOC.
const (
	memberVersion = iota
	memberEntries
	memberTarSplit
)

var topNames = []string{memberVersion: "version", memberEntries: "entries", memberTarSplit: "tarSplitDigest"}

// member reads one member of the text. Of the entries it reads the opening bracket, and
// reports that.
func (r *Reader) member() (entries bool, err error) {
	key, err := r.lex.key()
	if err != nil {
		return false, err
	}
	n := -1
	switch string(key) {
	case "version":
		n = memberVersion
	case "entries":
		n = memberEntries
	case "tarSplitDigest":
		n = memberTarSplit
	}
	if err := once(&r.lex, &r.seen, n, key, topNames); err != nil {
		return false, err
	}
	switch n {
	case memberVersion:
		r.version, err = r.lex.number()
	case memberEntries:
		r.inside, err = r.lex.begin('[')
		r.first = true
		return r.inside, err
	case memberTarSplit:
		var b []byte
		b, _, err = r.lex.text()
		r.tarSplit = string(b)
	default:
		err = r.lex.skip(0)
	}
	return false, err
}

// once notes that a member was seen. It refuses one that was seen before, and one that
// is a known one for who does not look at upper case, as encoding/json does not.
func once(lex *lexer, seen *uint32, n int, key []byte, names []string) error {
	if n < 0 {
		for _, name := range names {
			if len(name) == len(key) && strings.EqualFold(name, string(key)) {
				return lex.refuse(fmt.Sprintf("member %q is %q for some", key, name))
			}
		}
		return nil
	}
	if *seen&(1<<n) != 0 {
		return lex.refuse(fmt.Sprintf("second member %q", names[n]))
	}
	*seen |= 1 << n
	return nil
}

// finish checks the end of the text.
func (r *Reader) finish() error {
	if err := r.lex.end(); err != nil {
		return err
	}
	if r.seen&(1<<memberEntries) == 0 {
		return r.lex.refuse("no entries")
	}
	if r.version != version {
		return r.lex.refuse(fmt.Sprintf("version %d, this program reads version %d", r.version, version))
	}
	return nil
}

// readEntry reads the next entry.
func (r *Reader) readEntry() error {
	e := &r.entry
	*e = Entry{Entry: layerindex.Entry{Xattrs: e.Xattrs[:0]}}
	r.fields = 0
	if err := r.lex.take('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := r.lex.another(first, '}')
		if err == nil && more {
			err = r.field()
		}
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	return r.check()
}

// check makes an entry what a tar's would be, and refuses what no tar can have.
func (r *Reader) check() error {
	e := &r.entry
	if e.Type == 0 {
		return r.lex.refuse("entry without a type")
	}
	if e.Type != layerindex.TypeLink && e.Type != layerindex.TypeSymlink {
		e.Linkname = "" // buildah's whiteouts are files with one
	}
	if e.Type != layerindex.TypeChar && e.Type != layerindex.TypeBlock {
		e.Major, e.Minor = 0, 0
	}
	if e.Type != layerindex.TypeReg {
		e.Size, e.HasDigest, e.Digest = 0, false, [32]byte{}
	} else if e.Size == 0 && strings.HasSuffix(e.Name, "/") {
		e.Type = layerindex.TypeDir // as in the tar: docs/semantics.md, F12
	}
	if err := tarscan.CheckNames(e.Type, e.Name, e.Linkname); err != nil {
		return r.lex.refuse(err.Error())
	}
	return nil
}
