package directory

import (
	"cmp"
	"math"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
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
	// FutureTime is how far clocks may be apart.
	FutureTime = time.Hour

	// ImageTime is how long an image is remembered of which nothing is left.
	ImageTime = 30 * 24 * time.Hour

	// MaxWords bounds the state words of a file that are looked at: those of
	// 4 TiB in chunks of 256 KiB.
	MaxWords = 1 << 24
)

// A Rule says what may be removed to make room.
type Rule struct {
	// before, if not 0, spares chunks and kept files last used then or later.
	before uint32
	// copies spares all but chunks and kept files.
	Copies bool
	// spare are blobs of which nothing is removed.
	Spare map[digest.Digest]bool
	// indexes lets layer indexes go that are in use.
	Indexes bool
	// often says that the question will be asked again soon.
	Often bool
}

// An Eviction removes what was used least recently. The caller has the
// lock of the ledger.
type Eviction struct {
	Inv     inventory
	BlobsOf func(record []byte) []digest.Digest // see Options
	Rule    Rule
	// want is how many bytes are to go, must how many of these whatever
	// rule says of indexes.
	Want, Must               int64
	now                      time.Time
	freed                    int64
	Blobs, indexes, Contents int                       // files that went
	held                     int                       // indexes that stayed, as mounts have them
	layouts                  map[int32]blobfile.Layout // of blob files, by their number in inv
	empty                    []found                   // blob files without chunks
	keyed                    map[digest.Digest][]string
}

// Run returns how many bytes of the inventory are gone.
func (e *Eviction) Run() int64 {
	e.now = time.Now()
	e.sweep()
	e.Chunks()
	e.shells()
	if e.Rule.Copies {
		return e.freed
	}
	e.rest(KindIndex)
	e.rest(kindMeta, KindImage)
	e.images()
	return e.freed
}

func (e *Eviction) enough() bool { return e.freed >= e.Want }

// sweep removes what killed processes left.
func (e *Eviction) sweep() {
	for _, f := range e.Inv.Files {
		switch {
		case f.Kind == kindOwned && sweepFile(e.Inv.dir, f.Name):
			e.freed += f.Bytes
		case f.Kind == kindUnborn && e.now.Sub(f.Mtime) > unbornTime:
			e.remove(f)
		}
	}
}

// remove removes a file that is neither a blob's nor a kept file.
func (e *Eviction) remove(f found) {
	if f.Kind == KindIndex {
		e.removeIndex(f)
		return
	}
	if e.Inv.dir.Remove(f.Name) == nil {
		e.freed += f.Bytes
	}
}

// removeIndex removes a layer index, unless somebody holds it for a mount: that would free
// nothing.
func (e *Eviction) removeIndex(file found) {
	f, err := e.Inv.dir.Open(file.Name)
	if err == nil {
		defer f.Close()
		if Flock(f, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK {
			e.held++
			return
		}
	}
	if e.Inv.dir.Remove(file.Name) == nil {
		e.freed += file.Bytes
		e.indexes++
	}
}

// A use is when a chunk, or a kept file, was used last.
type use struct {
	word        uint32
	file, chunk int32 // of a kept file chunk is 0
}

// lastUsed returns when a chunk with this state word was used. A word far in
// the future says nothing.
func (e *Eviction) lastUsed(word uint32) uint32 {
	if int64(word) > e.now.Add(FutureTime).Unix() {
		return 1
	}
	return word
}

// mayGo reports whether the rule lets go what was last used at word.
func (e *Eviction) mayGo(word uint32) bool {
	return e.Rule.before == 0 || e.lastUsed(word) < e.Rule.before
}

// Chunks removes chunks of all blobs, and kept files, least recently used first.
func (e *Eviction) Chunks() {
	var uses []use
	e.layouts = map[int32]blobfile.Layout{}
	for i, f := range e.Inv.Files {
		switch f.Kind {
		case KindBlob:
			uses = e.look(uses, int32(i))
		case KindKept:
			if w := keptWord(f.Mtime); e.mayGo(w) {
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
			if file := e.Inv.Files[batch[0].file]; file.Kind == KindKept {
				e.removeContent(file)
			} else {
				e.take(file, batch[:same])
			}
			batch = batch[same:]
		}
	}
}

// choose returns how many of the uses are enough, as far as one can tell.
func (e *Eviction) choose(uses []use) int {
	need := e.Want - e.freed
	for n, u := range uses {
		if file := e.Inv.Files[u.file]; file.Kind == KindKept {
			need -= file.Bytes
		} else {
			off, end := e.layouts[u.file].Bounds(int64(u.chunk))
			need -= Blocks(end - off) // give or take what lies in a block with others
		}
		if need <= 0 {
			return n + 1
		}
	}
	return len(uses)
}

// look adds to uses the chunks of file i that may go.
func (e *Eviction) look(uses []use, i int32) []use {
	file := e.Inv.Files[i]
	d, ok := DigestOf(file.Name)
	if ok && e.Rule.Spare[d] {
		return uses
	}
	f, err := e.Inv.dir.Open(file.Name)
	if err != nil {
		e.empty = append(e.empty, file)
		return uses
	}
	defer f.Close()
	l, epoch, fits := blobfile.ReadFooter(f)
	if !ok || !fits || epoch == 0 || l.Chunks() > MaxWords {
		e.empty = append(e.empty, file)
		return uses
	}
	e.layouts[i] = l
	var there blobfile.Disk
	for k, w := range l.Words(f, 0, l.Chunks()) {
		if w == 0 {
			continue
		}
		there.Add(l, int64(k))
		if e.mayGo(w) {
			uses = append(uses, use{w, i, int32(k)})
		}
	}
	if there.Bytes == 0 {
		e.empty = append(e.empty, file)
	}
	if extra := file.Bytes - there.Bytes - (l.FileSize() - l.Word(0)); extra > l.Longest()+1<<16 && e.now.Sub(file.Mtime) > writeTime {
		e.clean(file)
	}
	return uses
}

// open opens a blob file to remove from it, with its lock; nil if somebody
// else has it, or the file is no longer there. Where there are no locks, and of
// a file that has other names, which are not ours, it can only be removed as a
// whole.
func (e *Eviction) open(file found) (f *os.File, whole bool) {
	f, err := e.Inv.dir.OpenFile(file.Name, os.O_RDWR)
	if err != nil {
		e.removeUseless(file, err)
		return nil, false
	}
	// Nobody has it for long, unless they are stopped.
	err = Flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !NoLocks(err) || !e.Inv.dir.Is(f, file.Name) {
		f.Close()
		return nil, false
	}
	return f, err != nil || file.links > 1
}

// removeUseless removes a file that could not be opened because it belongs to
// somebody else, or may not be read: nobody can use it.
func (e *Eviction) removeUseless(file found, err error) bool {
	if !IsRefused(err) || e.Inv.dir.Remove(file.Name) != nil {
		return false
	}
	e.freed += file.Bytes
	return true
}

// take removes chunks from a file, unless they have been used since.
func (e *Eviction) take(file found, uses []use) {
	f, whole := e.open(file)
	if f == nil {
		return
	}
	defer f.Close()
	l, epoch, ok := blobfile.ReadFooter(f)
	if !ok || epoch == 0 {
		return
	}
	if whole {
		e.unlink(file, f)
		return
	}
	before := blobfile.DiskBytes(f)
	if blobfile.WriteEpoch(f, l, epoch+1) != nil {
		return
	}
	words := l.Words(f, 0, l.Chunks())
	present := func(k int64) bool { return words[k] != 0 }
	for _, u := range uses {
		k := int64(u.chunk)
		if k >= l.Chunks() || words[k] != u.word {
			continue
		}
		if l.SetWord(f, k, 0) != nil {
			break
		}
		words[k] = 0
		if l.PunchAbsent(f, k, present) != nil {
			// Without holes there is only all or nothing.
			clear(words)
			break
		}
	}
	if !slices.ContainsFunc(words, func(w uint32) bool { return w != 0 }) {
		e.unlink(file, f)
	}
	e.freed += before - blobfile.DiskBytes(f)
}

// unlink removes an open and locked blob file.
func (e *Eviction) unlink(file found, f *os.File) {
	left := blobfile.DiskBytes(f)
	if file.links > 1 {
		left = 0
	} else {
		blobfile.Retire(f)
	}
	if e.Inv.dir.Remove(file.Name) == nil {
		e.Blobs++
		e.freed += left
	}
}

// clean removes the data of chunks that are not there: of processes that were
// killed before they said so.
func (e *Eviction) clean(file found) {
	f, whole := e.open(file)
	if f == nil {
		return
	}
	defer f.Close()
	if whole {
		return
	}
	l, epoch, ok := blobfile.ReadFooter(f)
	st, err := f.Stat()
	if !ok || epoch == 0 || err != nil || e.now.Sub(st.ModTime()) <= writeTime {
		return
	}
	before := blobfile.DiskBytes(f)
	if blobfile.WriteEpoch(f, l, epoch+1) != nil {
		return
	}
	words := l.Words(f, 0, l.Chunks())
	present := func(k int64) bool { return words[k] != 0 }
	for k, w := range words {
		if w == 0 && l.PunchAbsent(f, int64(k), present) != nil {
			break
		}
	}
	e.freed += before - blobfile.DiskBytes(f)
}

// shells removes blob files that have no chunks.
func (e *Eviction) shells() {
	for _, file := range e.empty {
		if e.now.Sub(file.Mtime) > emptyTime {
			e.removeBlob(file)
		}
	}
}

// removeBlob removes a blob file with all that is in it.
func (e *Eviction) removeBlob(file found) {
	if f, _ := e.open(file); f != nil {
		e.unlink(file, f)
		f.Close()
	}
}

// rest removes files of some kinds, in the order in which they were used.
func (e *Eviction) rest(kinds ...kind) {
	var files []found
	for _, f := range e.Inv.Files {
		if slices.Contains(kinds, f.Kind) {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b found) int { return a.Mtime.Compare(b.Mtime) })
	for _, f := range files {
		idle := e.now.Sub(f.Mtime) > indexIdle
		if e.enough() || !idle && !e.Rule.Indexes && e.freed >= e.Must {
			return
		}
		e.remove(f)
	}
}

// images removes the records of images of which nothing has been left for
// long.
func (e *Eviction) images() {
	for _, f := range e.Inv.Files {
		if f.Kind == KindImage && e.now.Sub(f.Mtime) > ImageTime && !e.anyLeft(f.Name) {
			e.remove(f)
		}
	}
}

// anyLeft reports whether the directory has something of an image.
func (e *Eviction) anyLeft(record string) bool {
	data, _, err := e.Inv.dir.ReadFile(record, MaxRecord)
	return err == nil && slices.ContainsFunc(e.BlobsOf(data), func(d digest.Digest) bool {
		alg, hex := d.Algorithm().String(), d.Encoded()
		return e.Inv.dir.Exists(path.Join(Blobs, alg, hex)) || e.Inv.dir.Exists(path.Join(Indexes, alg, hex)) ||
			slices.ContainsFunc(e.keyedOf(d), e.Inv.dir.Exists)
	})
}

// keyedOf returns the blob files and layer indexes with a key that a blob had when
// the inventory was made.
func (e *Eviction) keyedOf(d digest.Digest) []string {
	if e.keyed == nil {
		e.keyed = map[digest.Digest][]string{}
		for _, f := range e.Inv.Files {
			if of, ok := DigestOf(f.Name); ok && KeyOf(f.Name) != "" && (f.Kind == KindBlob || f.Kind == KindIndex) {
				e.keyed[of] = append(e.keyed[of], f.Name)
			}
		}
	}
	return e.keyed[d]
}

// removeContent removes a kept file that nobody has open.
func (e *Eviction) removeContent(file found) {
	if sweepFile(e.Inv.dir, file.Name) {
		e.Contents++
		e.freed += file.Bytes
		return
	}
	f, err := e.Inv.dir.Open(file.Name)
	if err != nil {
		e.removeUseless(file, err)
		return
	}
	f.Close()
}

// CopyRule says what may go to make room for copies: kept files, and temporary
// files that only save work.
func (c *Dir) CopyRule() Rule {
	return Rule{before: keptWord(time.Now().Add(-c.Idle)), Copies: true}
}

// keptWord is the state word of a kept file that was last used at t.
func keptWord(t time.Time) uint32 { return uint32(min(max(t.Unix(), 1), math.MaxUint32)) }

// EvictCopies removes some of the kept files in an inventory, least recently used
// first, until want bytes are gone, and returns how many are.
func (c *Dir) EvictCopies(inv inventory, want int64) int64 {
	e := Eviction{Inv: inv, Rule: c.CopyRule(), now: time.Now(), Want: want}
	e.Chunks()
	return e.freed
}
