package image

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/firstreads"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/cache/blobs"
)

const (
	// What was fetched for a forecast and not read is at most what the line brings in
	// unreadTime, within bounds, and as much more as was read of it, and never more than
	// MaxUnread: who starts nothing, or something else, has little fetched in vain. Of
	// guesses about large files it is at most unreadGuess.
	unreadTime           = time.Second
	minUnread, maxUnread = 1 << 20, 8 << 20
	unreadGuess          = 3 << 20
	// batchTime is how long the line takes for what is put into the order of the layers
	// before it is asked for, so that neighbours are one request.
	batchTime          = 250 * time.Millisecond
	minBatch, maxBatch = 512 << 10, 4 << 20
	firstBatch         = 256 << 10
	// joinGap is how many bytes between two ranges are fetched with them.
	joinGap = 128 << 10
	// decodedSlack is how many bytes more are fetched than a read is expected to be decoded
	// from. Where it is decoded to is not exactly known, and a reader who lacks the last
	// bytes waits for a request of its own.
	decodedSlack = 48 << 10
)

// MaxUnread is how many bytes are fetched for a forecast at most beyond those that were read
// of it.
const MaxUnread = 64 << 20

// A Forecast has what a profile expects to be read fetched ahead of the readers of an image,
// and notes what they read, for the next profile. It is safe for concurrent use.
type Forecast struct {
	img    *Image
	record *firstreads.Recorder
	room   int64 // bytes that may be fetched

	known atomic.Pointer[knowledge]

	wake chan struct{} // gets an element when something was read

	mu    sync.Mutex
	queue []want
	later []want // when there is nothing in queue

	guesser guesser
	guesses chan fs.Node // programs that nothing is known of

	decoder expectedDecoder

	// Of Run alone: what of the blobs was looked for, and how many bytes were asked for.
	wanted map[*blobs.Blob]*extentSet
	asked  int64

	state atomic.Value // of ForecastState
}

// A knowledge is the profile that a forecast goes by.
type knowledge struct {
	choose *profile.Chooser
	of     map[uint64]string // paths of the profile that the image has, by inode number
}

// A want is a part of a file that is expected to be read.
type want struct {
	n         fs.Node
	off, size int64
}

// A ForecastState says how far a forecast is.
type ForecastState string

// The states of a forecast. That of an image that has none is "".
const (
	// ForecastNone: nothing was fetched yet.
	ForecastNone ForecastState = "none"
	// ForecastRunning: something is being fetched.
	ForecastRunning ForecastState = "running"
	// ForecastWaiting: all that is expected by now was fetched, or too much of it was not
	// read.
	ForecastWaiting ForecastState = "waiting"
	// ForecastFailed: the registry did not give it, or the disk did not take it.
	ForecastFailed ForecastState = "failed"
	// ForecastOver: nothing is fetched, and nothing noted, any more.
	ForecastOver ForecastState = "over"
)

// Forecast begins to note what is read of the image, until Forecast.Stop. p is what is
// expected, which Run fetches; nil if nothing is known, or not yet. An image has one forecast
// at a time.
func (i *Image) Forecast(p *profile.Profile) *Forecast {
	f := &Forecast{img: i, wake: make(chan struct{}, 1), wanted: map[*blobs.Blob]*extentSet{}, room: MaxUnread + maxProfileBytes}
	if limit := i.Resolved().Cache().Budget(); limit > 0 {
		f.room = min(f.room, limit/4)
	}
	f.known.Store(&knowledge{})
	f.state.Store(ForecastNone)
	f.guesses = make(chan fs.Node, maxGuessed)
	f.guesser = guesser{img: i, seen: map[uint64]bool{}, want: f.expect, later: f.expectLater}
	f.record = firstreads.New(i.tree, f.fresh)
	f.decoder = expectedDecoder{img: i, record: f.record, began: make(chan struct{}), more: make(chan struct{}, 1)}
	if p != nil {
		f.Expect(p)
	}
	i.counts.Watch(f.record)
	return f
}

// Expect has Run fetch what a profile expects, where Forecast was given none. It is called
// at most once, by any goroutine.
func (f *Forecast) Expect(p *profile.Profile) {
	k := &knowledge{choose: profile.NewChooser(p), of: map[uint64]string{}}
	for path := range k.choose.Paths() {
		if n, err := f.img.tree.Lookup(path, false); err == nil {
			k.of[n.Ino()] = path
		}
	}
	f.expect(f.wants(k.choose.First())...)
	f.known.Store(k)
	parts, _ := f.record.Parts() // what was read meanwhile says what else to expect
	for _, p := range parts {
		f.begun(p.Ino)
	}
}

// maxProfileBytes is more than any profile has.
const maxProfileBytes = profile.MaxStarts * profile.MaxStartBytes

// Stop ends the noting. Run is to be ended before.
func (f *Forecast) Stop() {
	f.img.counts.Watch(nil)
	f.state.Store(ForecastOver)
}

// fresh is told of blocks of files of which something is read for the first time.
func (f *Forecast) fresh(n fs.Node, off int64) {
	f.decoder.met(n, off)
	if !f.begun(n.Ino()) && n.Mode()&0o111 != 0 {
		select {
		case f.guesses <- n:
		default: // there are very many
		}
	}
	f.stir()
}

// begun has be fetched what is expected since something of a file was read. It reports
// whether the profile knows the file.
func (f *Forecast) begun(ino uint64) bool {
	k := f.known.Load()
	path, known := k.of[ino]
	if !known {
		return false
	}
	f.putBack(f.wants(k.choose.Read(path)), true) // somebody waits for these
	f.stir()
	return true
}

// stir has Run look whether there is something to do.
func (f *Forecast) stir() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// wants returns what of some reads the image has.
func (f *Forecast) wants(reads []profile.Read) []want {
	all := make([]want, 0, len(reads))
	for _, r := range reads {
		if n, err := f.img.tree.Lookup(r.Path, false); err == nil && n.Layer() >= 0 {
			all = append(all, want{n, r.Off, r.Size})
		}
	}
	return all
}

// expect adds to what is fetched, at its end.
func (f *Forecast) expect(more ...want) { f.add(&f.queue, more) }

// expectLater adds to what is fetched when there is nothing else.
func (f *Forecast) expectLater(more ...want) { f.add(&f.later, more) }

func (f *Forecast) add(to *[]want, more []want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(*to) < profile.MaxReads {
		*to = append(*to, more...)
		f.stir()
	}
}

// Run fetches what is expected, in the order in which it is needed and in as few requests as
// the line likes, until ctx ends: what is read tells what else to expect. It leaves readers
// the line, and stops while too much of what it has fetched is not read (MaxUnread). An
// error of the registry or the disk ends it: readers try for themselves. Of programs that
// the profile does not know it guesses what they will read.
func (f *Forecast) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { f.decoder.run(ctx) })
	beside.Go(func() {
		for {
			select {
			case n := <-f.guesses:
				f.guesser.guess(ctx, n)
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		batch, sure := f.next()
		if len(batch) == 0 || !f.mayFetch(sure) {
			f.state.Store(ForecastWaiting)
			select {
			case <-f.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			f.putBack(batch, sure)
			continue
		}
		f.state.Store(ForecastRunning)
		for _, r := range f.ranges(ctx, batch) {
			n, err := r.Blob.Expect(ctx, r.Off, min(r.End-r.Off, f.room-f.asked))
			f.asked += n
			if err != nil {
				if ctx.Err() == nil {
					f.state.Store(ForecastFailed)
				}
				return err
			}
		}
		f.decoder.add(batch)
	}
}

// mayFetch reports whether enough of what was asked for is read, to ask for more.
func (f *Forecast) mayFetch(sure bool) bool {
	_, met := f.img.Resolved().Cache().Blobs.Expected()
	most := int64(unreadGuess)
	if sure {
		rate := f.img.Resolved().Cache().Blobs.Line().Rate
		most = min(MaxUnread, max(minUnread, min(int64(rate*unreadTime.Seconds()), maxUnread))+met)
	}
	return f.asked < f.room && f.asked-met < most
}

// next takes what is to be fetched next from the queue, or if there is nothing, and so it is
// not sure, from later.
func (f *Forecast) next() (batch []want, sure bool) {
	most := int64(firstBatch)
	if f.asked > 0 {
		line := f.img.Resolved().Cache().Blobs.Line()
		most = max(minBatch, min(int64(line.Rate*batchTime.Seconds()), maxBatch))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	from := &f.queue
	if sure = len(f.queue) > 0; !sure {
		from, most = &f.later, min(most, minBatch)
	}
	most *= 2 // of files; of the blob it is about half
	for len(*from) > 0 && most > 0 {
		w := &(*from)[0]
		part := *w
		if w.size > most {
			w.off += most
			w.size -= most
			part.size = most
		} else {
			*from = (*from)[1:]
		}
		most -= part.size
		batch = append(batch, part)
	}
	return batch, sure
}

// putBack puts what next has taken, or what is to be first, at the head.
func (f *Forecast) putBack(batch []want, sure bool) {
	if len(batch) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	to := &f.later
	if sure {
		to = &f.queue
	}
	*to = append(batch, *to...)
}

// ranges returns where the blobs have what is read, as far as it was not asked for: in the
// order of the blobs, with small gaps filled. Files that are kept whole are left out.
func (f *Forecast) ranges(ctx context.Context, batch []want) []blobs.Range {
	var all []blobs.Range
	for _, w := range batch {
		size := w.n.Attr().Size
		if w.off >= size || w.n.IsSparse() || f.img.isKept(ctx, w.n) {
			continue
		}
		blob, from, to, err := f.img.source(w.n, w.off, min(w.off+w.size, size))
		if err != nil {
			continue // its readers hear of it
		}
		wanted := f.wanted[blob]
		if wanted == nil {
			wanted = &extentSet{}
			f.wanted[blob] = wanted
		}
		to += decodedSlack
		for _, x := range wanted.add(layerindex.Extent{Off: from, Size: to - from}) {
			all = append(all, blobs.Range{Blob: blob, Off: x.Off, End: x.Off + x.Size})
		}
	}
	place := map[*blobs.Blob]int{} // in the order in which they are needed
	for _, r := range all {
		if _, known := place[r.Blob]; !known {
			place[r.Blob] = len(place)
		}
	}
	slices.SortStableFunc(all, func(a, b blobs.Range) int {
		return cmp.Or(cmp.Compare(place[a.Blob], place[b.Blob]), cmp.Compare(a.Off, b.Off))
	})
	joined := all[:0]
	for _, r := range all {
		if n := len(joined) - 1; n >= 0 && joined[n].Blob == r.Blob && r.Off-joined[n].End <= joinGap {
			joined[n].End = max(joined[n].End, r.End)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// source returns the part of a blob that has the bytes of a file from off to end.
func (i *Image) source(n fs.Node, off, end int64) (b *blobs.Blob, from, to int64, err error) {
	s := i.layers.all[n.Layer()].state.Load()
	if err := s.refuted(); err != nil {
		return nil, 0, 0, err
	}
	at, _ := s.extent(n)
	_, from, to, err = s.reader.Source(at+off, at+end)
	return s.blob, from, to, err
}

// Reads returns what was read so far, for profile.Profile.Add: nothing if somebody goes
// through the image. It walks through the names of the tree.
func (f *Forecast) Reads() []profile.Read {
	parts, all := f.record.Parts()
	if !all {
		return nil
	}
	paths := map[uint64]string{}
	for _, p := range parts {
		paths[p.Ino] = ""
	}
	f.img.tree.FindPaths(f.img.digests.ctx, paths)
	reads := make([]profile.Read, 0, len(parts))
	for _, p := range parts {
		if path := paths[p.Ino]; path != "" {
			reads = append(reads, profile.Read{Path: path, Off: p.First * profile.Grain, Size: p.Count * profile.Grain, After: p.After})
		}
	}
	return reads
}

// ForecastStats are the counters of a forecast.
type ForecastStats struct {
	State ForecastState `json:"state"`
	// Files are those of the profile that the image has.
	Files int `json:"files"`
	// Fetched is how many bytes came because they were expected, and Used how many of them
	// somebody has read something of since, chunk by chunk.
	Fetched int64 `json:"fetched"`
	Used    int64 `json:"used"`
}

// Stats returns the counters as they are now.
func (f *Forecast) Stats() ForecastStats {
	s := ForecastStats{State: f.state.Load().(ForecastState), Files: len(f.known.Load().of)}
	s.Fetched, s.Used = f.img.Resolved().Cache().Blobs.Expected()
	return s
}
