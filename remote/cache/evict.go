package cache

import (
	"cmp"
	"math"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	// indexIdle is how long a layer index was not used that goes to make room
	// for chunks. To make it again takes reading the whole blob.
	indexIdle = 24 * time.Hour
	// unbornTime is how old a layer index gets whose writer is alive.
	unbornTime = time.Hour
	// emptyTime is how old a blob file gets before its first chunk, if
	// somebody is about to write one.
	emptyTime = time.Minute
	// writeTime is more than what passes between a chunk's data and its
	// state word.
	writeTime = 10 * time.Second
	// futureTime is how far clocks may be apart.
	futureTime = time.Hour

	// imageTime is how long an image is remembered of which nothing is left.
	imageTime = 30 * 24 * time.Hour

	// maxWords bounds the state words of a file that are looked at: those of
	// 4 TiB in chunks of 256 KiB.
	maxWords = 1 << 24
)

// A rule says what may be removed to make room.
type rule struct {
	// before, if not 0, spares chunks and contents last used then or later.
	before uint32
	// copies spares all but chunks and contents.
	copies bool
	// spare are blobs of which nothing is removed.
	spare map[digest.Digest]bool
	// indexes lets layer indexes go that are in use.
	indexes bool
	// often says that the question will be asked again soon.
	often bool
}

// An eviction removes what was used least recently. The caller has the
// lock of the ledger.
type eviction struct {
	inv     inventory
	blobsOf func(record []byte) []digest.Digest // see directoryOptions
	rule    rule
	// want is how many bytes are to go, must how many of these whatever
	// rule says of indexes.
	want, must               int64
	now                      time.Time
	freed                    int64
	blobs, indexes, contents int              // files that went
	layouts                  map[int32]layout // of blob files, by their number in inv
	empty                    []found          // blob files without chunks
}

// run returns how many bytes of the inventory are gone.
func (e *eviction) run() int64 {
	e.now = time.Now()
	e.sweep()
	e.chunks()
	e.shells()
	if e.rule.copies {
		return e.freed
	}
	e.rest(kindIndex)
	e.rest(kindMeta, kindImage)
	e.images()
	return e.freed
}

func (e *eviction) enough() bool { return e.freed >= e.want }

// sweep removes what killed processes left.
func (e *eviction) sweep() {
	for _, f := range e.inv.files {
		switch {
		case f.kind == kindOwned && sweepFile(e.inv.dir, f.name):
			e.freed += f.bytes
		case f.kind == kindUnborn && e.now.Sub(f.mtime) > unbornTime:
			e.remove(f)
		}
	}
}

// remove removes a file that is neither a blob's nor a content.
func (e *eviction) remove(f found) {
	if e.inv.dir.Remove(f.name) != nil {
		return
	}
	e.freed += f.bytes
	if f.kind == kindIndex {
		e.indexes++
	}
}

// A use is when a chunk, or a content, was used last.
type use struct {
	word        uint32
	file, chunk int32 // of a content chunk is 0
}

// lastUsed returns when a chunk with this state word was used. A word far in
// the future says nothing.
func (e *eviction) lastUsed(word uint32) uint32 {
	if int64(word) > e.now.Add(futureTime).Unix() {
		return 1
	}
	return word
}

// mayGo reports whether the rule lets go what was last used at word.
func (e *eviction) mayGo(word uint32) bool {
	return e.rule.before == 0 || e.lastUsed(word) < e.rule.before
}

// chunks removes chunks of all blobs, and contents, least recently used first.
func (e *eviction) chunks() {
	var uses []use
	e.layouts = map[int32]layout{}
	for i, f := range e.inv.files {
		switch f.kind {
		case kindBlob:
			uses = e.look(uses, int32(i))
		case kindKept:
			if w := keptWord(f.mtime); e.mayGo(w) {
				uses = append(uses, use{word: w, file: int32(i)})
			}
		}
	}
	slices.SortFunc(uses, func(a, b use) int {
		return cmp.Or(cmp.Compare(e.lastUsed(a.word), e.lastUsed(b.word)), cmp.Compare(a.file, b.file), cmp.Compare(a.chunk, b.chunk))
	})
	// Chunks may turn out to take less than it seems: then some more go.
	for len(uses) > 0 && !e.enough() {
		n := e.choose(uses)
		batch := uses[:n]
		uses = uses[n:]
		slices.SortStableFunc(batch, func(a, b use) int { return cmp.Compare(a.file, b.file) })
		for len(batch) > 0 {
			same := 1
			for same < len(batch) && batch[same].file == batch[0].file {
				same++
			}
			if file := e.inv.files[batch[0].file]; file.kind == kindKept {
				e.removeContent(file)
			} else {
				e.take(file, batch[:same])
			}
			batch = batch[same:]
		}
	}
}

// choose returns how many of the uses are enough, as far as one can tell.
func (e *eviction) choose(uses []use) int {
	need := e.want - e.freed
	for n, u := range uses {
		if file := e.inv.files[u.file]; file.kind == kindKept {
			need -= file.bytes
		} else {
			off, end := e.layouts[u.file].bounds(int64(u.chunk))
			need -= blocks(end - off)
		}
		if need <= 0 {
			return n + 1
		}
	}
	return len(uses)
}

// look adds to uses the chunks of file i that may go.
func (e *eviction) look(uses []use, i int32) []use {
	file := e.inv.files[i]
	d, ok := digestOf(file.name)
	if ok && e.rule.spare[d] {
		return uses
	}
	f, err := e.inv.dir.Open(file.name)
	if err != nil {
		e.empty = append(e.empty, file)
		return uses
	}
	defer f.Close()
	l, epoch, fits := readFooter(f)
	if !ok || !fits || epoch == 0 || l.chunks() > maxWords {
		e.empty = append(e.empty, file)
		return uses
	}
	e.layouts[i] = l
	there := int64(0)
	for k, w := range l.words(f, 0, l.chunks()) {
		if w == 0 {
			continue
		}
		off, end := l.bounds(int64(k))
		there += blocks(end - off)
		if e.mayGo(w) {
			uses = append(uses, use{w, i, int32(k)})
		}
	}
	if there == 0 {
		e.empty = append(e.empty, file)
	}
	if extra := file.bytes - there - wordSize*l.chunks(); extra > l.chunk+1<<16 && e.now.Sub(file.mtime) > writeTime {
		e.clean(file)
	}
	return uses
}

// open opens a blob file to remove from it, with its lock; nil if somebody
// else has it, or the file is no longer there. Where there are no locks, and of
// a file that has other names, which are not ours, it can only be removed as a
// whole.
func (e *eviction) open(file found) (f *os.File, whole bool) {
	f, err := e.inv.dir.OpenFile(file.name, os.O_RDWR)
	if err != nil {
		e.removeUseless(file, err)
		return nil, false
	}
	// Nobody has it for long, unless they are stopped.
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !noLocks(err) || !e.inv.dir.Is(f, file.name) {
		f.Close()
		return nil, false
	}
	return f, err != nil || file.links > 1
}

// removeUseless removes a file that could not be opened because it belongs to
// somebody else, or may not be read: nobody can use it.
func (e *eviction) removeUseless(file found, err error) bool {
	if !isRefused(err) || e.inv.dir.Remove(file.name) != nil {
		return false
	}
	e.freed += file.bytes
	return true
}

// take removes chunks from a file, unless they have been used since.
func (e *eviction) take(file found, uses []use) {
	f, whole := e.open(file)
	if f == nil {
		return
	}
	defer f.Close()
	l, epoch, ok := readFooter(f)
	if !ok || epoch == 0 {
		return
	}
	if whole {
		e.unlink(file, f)
		return
	}
	before := diskBytes(f)
	if writeEpoch(f, l, epoch+1) != nil {
		return
	}
	words := l.words(f, 0, l.chunks())
	for _, u := range uses {
		k := int64(u.chunk)
		if k >= l.chunks() || words[k] != u.word {
			continue
		}
		off, end := l.bounds(k)
		if l.setWord(f, k, 0) != nil {
			break
		}
		words[k] = 0
		if punch(f, off, blocks(end-off)) != nil {
			// Without holes there is only all or nothing.
			clear(words)
			break
		}
	}
	if !slices.ContainsFunc(words, func(w uint32) bool { return w != 0 }) {
		e.unlink(file, f)
	}
	e.freed += before - diskBytes(f)
}

// unlink removes an open and locked blob file.
func (e *eviction) unlink(file found, f *os.File) {
	left := diskBytes(f)
	if file.links > 1 {
		left = 0
	} else {
		retire(f)
	}
	if e.inv.dir.Remove(file.name) == nil {
		e.blobs++
		e.freed += left
	}
}

// clean removes the data of chunks that are not there: of processes that were
// killed before they said so.
func (e *eviction) clean(file found) {
	f, whole := e.open(file)
	if f == nil {
		return
	}
	defer f.Close()
	if whole {
		return
	}
	l, epoch, ok := readFooter(f)
	st, err := f.Stat()
	if !ok || epoch == 0 || err != nil || e.now.Sub(st.ModTime()) <= writeTime {
		return
	}
	before := diskBytes(f)
	if writeEpoch(f, l, epoch+1) != nil {
		return
	}
	for k, w := range l.words(f, 0, l.chunks()) {
		if off, end := l.bounds(int64(k)); w == 0 && punch(f, off, blocks(end-off)) != nil {
			break
		}
	}
	e.freed += before - diskBytes(f)
}

// shells removes blob files that have no chunks.
func (e *eviction) shells() {
	for _, file := range e.empty {
		if e.now.Sub(file.mtime) > emptyTime {
			e.removeBlob(file)
		}
	}
}

// removeBlob removes a blob file with all that is in it.
func (e *eviction) removeBlob(file found) {
	if f, _ := e.open(file); f != nil {
		e.unlink(file, f)
		f.Close()
	}
}

// rest removes files of some kinds, in the order in which they were used.
func (e *eviction) rest(kinds ...kind) {
	var files []found
	for _, f := range e.inv.files {
		if slices.Contains(kinds, f.kind) {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b found) int { return a.mtime.Compare(b.mtime) })
	for _, f := range files {
		idle := e.now.Sub(f.mtime) > indexIdle
		if e.enough() || !idle && !e.rule.indexes && e.freed >= e.must {
			return
		}
		e.remove(f)
	}
}

// images removes the records of images of which nothing has been left for
// long.
func (e *eviction) images() {
	for _, f := range e.inv.files {
		if f.kind == kindImage && e.now.Sub(f.mtime) > imageTime && !e.anyLeft(f.name) {
			e.remove(f)
		}
	}
}

// anyLeft reports whether the directory has something of an image.
func (e *eviction) anyLeft(record string) bool {
	data, _, err := e.inv.dir.ReadFile(record, maxRecord)
	return err == nil && slices.ContainsFunc(e.blobsOf(data), func(d digest.Digest) bool {
		alg, hex := d.Algorithm().String(), d.Encoded()
		return e.inv.dir.Exists(path.Join(blobsDir, alg, hex)) || e.inv.dir.Exists(path.Join(indexesDir, alg, hex))
	})
}

// removeContent removes a content that nobody has open.
func (e *eviction) removeContent(file found) {
	if sweepFile(e.inv.dir, file.name) {
		e.contents++
		e.freed += file.bytes
		return
	}
	f, err := e.inv.dir.Open(file.name)
	if err != nil {
		e.removeUseless(file, err)
		return
	}
	f.Close()
}

// copyRule says what may go to make room for copies: kept files, and temporary
// files that only save work.
func (c *directory) copyRule() rule {
	return rule{before: keptWord(time.Now().Add(-c.idle)), copies: true}
}

// keptWord is the state word of a content that was last used at t.
func keptWord(t time.Time) uint32 { return uint32(min(max(t.Unix(), 1), math.MaxUint32)) }

// evictCopies removes some of the kept files in an inventory, least recently used
// first, until want bytes are gone, and returns how many are.
func (c *directory) evictCopies(inv inventory, want int64) int64 {
	e := eviction{inv: inv, rule: c.copyRule(), now: time.Now(), want: want}
	e.chunks()
	return e.freed
}
