package layerindex

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/imgfs/imgfs/layerindex/internal/column"
	"github.com/imgfs/imgfs/layerindex/internal/indexfile"
	"github.com/imgfs/imgfs/layerindex/internal/stringpool"
)

// emptyDigest is the digest of files without content: an index need not have
// it.
var emptyDigest = sha256.Sum256(nil)

// ctxSteps is how many entries a loop over entries passes between two looks at
// its context.
const ctxSteps = 1 << 12

// A Listing holds the entries of an index in memory, encoded as in the file. It is
// safe for concurrent use, except for Drain.
type Listing struct {
	cols    [numColumns]column.Column // colTables begins with the sparse maps
	sets    [][]Xattr
	n       int
	tarSize int64 // bounds every offset
	size    int64 // of the section, decoded
	// digests opens the digests of content; nil if they are left out.
	digests func() (*indexfile.SectionReader, error)
	flagged int64 // entries that have one
	err     error // of the digests
}

// List reads the entries into memory and checks all of them. It counts their memory in
// budget. If an entry has no room there, the error wraps ErrMetadata and names the
// entry. Entries with equal sets of attributes share one.
func (x *Index) List(ctx context.Context, budget *Budget) (*Listing, error) {
	least, others := x.leastMetadata()
	if err := budget.fits(x.file.Entries, least+others); err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	if err := budget.Take(others); err != nil {
		return nil, err
	}
	r, err := x.file.OpenSection(ctx, indexfile.Entries)
	if err != nil {
		return nil, err
	}
	d := &Listing{n: int(x.file.Entries), tarSize: x.file.TarSize, size: r.Len()}
	if err := r.Close(d.read(r, budget)); err != nil {
		return nil, err
	}
	if err := d.check(ctx, budget); err != nil || x.ProofKind() != ProofOutput {
		return d, err
	}
	proofs, err := x.Proofs()
	if err != nil {
		return nil, err
	}
	return d, d.checkProofs(ctx, proofs)
}

// TakeMetadata counts in budget the least that the entries of the index can take. Their
// names have to be read before more is known.
func (x *Index) TakeMetadata(budget *Budget) error {
	least, others := x.leastMetadata()
	err := budget.fits(x.file.Entries, least+others)
	if err == nil {
		err = budget.takeEntries(x.file.Entries, least+others-x.file.Entries*(entryCost+nameCost))
	}
	if err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	return nil
}

// ListedSize returns about how many bytes the entries take once they are listed.
func (x *Index) ListedSize() int64 {
	s, _ := x.file.Find(indexfile.Entries)
	return s.Raw
}

// leastMetadata is the least that the index can count: no column of the entries
// takes more bytes in the file than the budget counts for it.
func (x *Index) leastMetadata() (entries, others int64) {
	e, _ := x.file.Find(indexfile.Entries)
	w, _ := x.file.Find(indexfile.Windows)
	others = w.Stored + pointCost*min(x.file.Checkpoints, indexfile.MaxSection) + proofCost*int64(x.file.Proofs)
	return max(e.Raw, x.file.Entries*(entryCost+nameCost)), others
}

// read splits the decoded section of entries into its columns.
func (d *Listing) read(r *indexfile.SectionReader, budget *Budget) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var lens [numColumns]int64
	all := int64(0)
	for i := range lens {
		n, used, err := readUvarint(br)
		if err == nil && n > uint64(d.size) {
			err = column.ErrShort
		}
		if err != nil {
			return indexfile.Invalid("entries: columns", err)
		}
		lens[i] = int64(n)
		all += int64(n) + used
	}
	if all != d.size || lens[colFlags] != int64(d.n) {
		return fmt.Errorf("%w: entries: columns", ErrIndex)
	}
	for i, n := range lens {
		if err := d.cols[i].ReadN(br, n); err != nil {
			return indexfile.Invalid(fmt.Sprintf("entries: column %d", i), err)
		}
	}
	return d.readSets(budget)
}

// readUvarint is binary.ReadUvarint, and says how many bytes it took.
func readUvarint(r io.ByteReader) (v uint64, n int64, err error) {
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil || shift > 63 || shift == 63 && b > 1 {
			return 0, n, errors.Join(err, column.ErrShort)
		}
		n++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, n, nil
		}
	}
}

// readSets takes the table of attribute sets off the last column. Its bytes
// are given back one piece after the other.
func (d *Listing) readSets(budget *Budget) error {
	t := d.cols[colTables].Cursor(true)
	for sets := t.Length(); len(d.sets) < sets && t.Err == nil; {
		set := readSet(&t)
		if err := budget.Take(attrsCost(set)); err != nil {
			return fmt.Errorf("attribute set %d: %w", len(d.sets), err)
		}
		d.sets = append(d.sets, set)
	}
	if t.Err != nil {
		return fmt.Errorf("%w: entries: attributes: %w", ErrIndex, t.Err)
	}
	d.cols[colTables] = t.Remainder()
	return nil
}

// readSet reads one set, as one string of which the others are parts.
func readSet(t *column.Cursor) []Xattr {
	type pair struct{ name, value int }
	var pairs []pair
	var text []byte
	for n := t.Length(); len(pairs) < n && t.Err == nil; {
		name := t.Bytes(t.Length())
		text = append(text, name...)
		value := t.Bytes(t.Length())
		text = append(text, value...)
		pairs = append(pairs, pair{len(name), len(value)})
	}
	all := string(text)
	set := make([]Xattr, 0, len(pairs))
	for _, p := range pairs {
		set = append(set, Xattr{Name: all[:p.name], Value: all[p.name : p.name+p.value]})
		all = all[p.name+p.value:]
	}
	return set
}

// check decodes all entries once and counts them.
func (d *Listing) check(ctx context.Context, budget *Budget) error {
	w := d.decoder(false)
	var e Entry
	for i := range d.n {
		if i%ctxSteps == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.next(d, &e); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrIndex, i, err)
		}
		names := int64(len(w.name)) + int64(len(w.link))
		if err := budget.takeEntries(1, names+ExtentCost*int64(len(e.Sparse))); err != nil {
			return entryError(string(w.name), err)
		}
	}
	d.flagged = w.flagged
	return w.done()
}

// checkProofs compares all entries, which have been checked, with proofs of the output:
// every byte of their contents must be in one.
func (d *Listing) checkProofs(ctx context.Context, proofs *Proofs) error {
	w, cover := d.decoder(false), &coverage{proofs: proofs}
	var e Entry
	for i := range d.n {
		if i%ctxSteps == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.next(d, &e); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrIndex, i, err)
		}
		if e.Type == TypeReg && !cover.has(e.Off, w.end) {
			return fmt.Errorf("%w: entry %d: content without proof", ErrIndex, i)
		}
	}
	return nil
}

// Len returns the number of entries.
func (d *Listing) Len() int { return d.n }

// All returns the entries in the order of the tar.
func (d *Listing) All() Entries { return d.entries(nil, false) }

// Containing returns the entries whose names contain a word. It takes a fraction of the
// time of All.
func (d *Listing) Containing(word string) Entries { return d.entries([]byte(word), false) }

// Drain is All for the last time: it frees the memory of the Listing as it goes. The
// Listing must not be used any more.
func (d *Listing) Drain() Entries { return d.entries(nil, true) }

// Numbered returns all entries, without the digests of their content, each with the number
// by which Index.ContentDigest knows that; -1 if the index does not have it.
func (d *Listing) Numbered() iter.Seq2[int, *Entry] {
	return func(yield func(int, *Entry) bool) {
		w := d.decoder(false)
		var e Entry
		var pool stringpool.Pool
		for range d.n {
			number := int(w.flagged)
			if err := w.next(d, &e); err != nil {
				return // never: it was checked before
			}
			if int(w.flagged) == number {
				number = -1
			}
			e.Name, e.Linkname = pool.Own(w.name), pool.Own(w.link)
			if !yield(number, &e) {
				return
			}
		}
	}
}

// Err returns the error of reading the digests of content from the file, after a range
// over the entries.
func (d *Listing) Err() error { return d.err }

func (d *Listing) entries(word []byte, drain bool) Entries {
	return func(yield func(*Entry) bool) {
		w := d.decoder(drain)
		if d.digests != nil {
			r, err := d.digests()
			if err != nil {
				d.err = err
				return
			}
			defer r.Release()
			w.digests = bufio.NewReaderSize(r, 64<<10)
			defer func() {
				if w.seen == d.n {
					d.err = r.Close(d.err)
				}
			}()
		}
		var e Entry
		var pool stringpool.Pool
		for range d.n {
			// All but the digests was checked before.
			if err := w.next(d, &e); err != nil {
				d.err = indexfile.Invalid("digests of contents", err)
				return
			}
			if len(word) > 0 && !bytes.Contains(w.name, word) {
				continue
			}
			e.Name, e.Linkname = pool.Own(w.name), pool.Own(w.link)
			if !yield(&e) {
				return
			}
		}
	}
}
