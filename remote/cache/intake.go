package cache

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/imgfs/imgfs/remote"
)

const (
	// intakeWait is how long the next piece of a Spool waits for readers. It
	// takes nothing from them but the disk, and the Spool's file takes room.
	intakeWait = 250 * time.Millisecond
	// intakeTries is how often a piece is tried when readers' own requests
	// for parts of it fail.
	intakeTries = 3
)

// An intake is what a store knows of a Spool of its blob, whose bytes came by
// one request, however often they are read. It is guarded by blobState.mu.
type intake struct {
	running bool   // it is waited for, or being taken in
	refused bool   // there is no room for it, or it is of no use
	counted []bool // by chunk: as fetched
}

// intake returns that of what a source keeps of the blob; nil if it keeps
// nothing. counted says, of what was not known, that it came for somebody else
// than the blobState, which has counted it.
func (s *blobState) intake(src remote.Blob, counted bool) (*intake, remote.Spool) {
	spooled, ok := src.(remote.SpooledBlob)
	if !ok || s.local {
		return nil, nil
	}
	from := spooled.Spooled()
	if from == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.intakes[from]
	if in == nil {
		in = &intake{counted: slices.Repeat([]bool{counted}, int(s.layout.chunks()))}
		s.intakes[from] = in
	}
	return in, from
}

// beginIntake begins to bring to the disk what the source of b keeps, if it
// keeps something that nobody brings already. For counted see intake.
func (s *blobState) beginIntake(b *Blob, counted bool) {
	in, from := s.intake(b.src, counted)
	if in == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || in.running || in.refused {
		return
	}
	in.running = true
	s.c.dir.Go(func() {
		if s.takeIn(s.ctx, from, in) {
			s.beginIntake(b, true) // another place may have sent the blob, too
		}
	})
}

// takeIn brings to the disk what from has, as soon as it has all, and then
// releases it. It reports whether it has.
func (s *blobState) takeIn(ctx context.Context, from remote.Spool, in *intake) bool {
	refused := false
	if from.Wait(ctx) == nil {
		s.countIntake(in)
		refused = s.bringAll(ctx, from) != nil
	}
	// If the copy broke off, another request goes on with it, or others have
	// brought the blob.
	done := !refused && s.allPresent()
	if done {
		from.Release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in.running, in.refused = false, refused
	if done {
		delete(s.intakes, from)
		s.taken = in
	}
	return done
}

// bringAll brings to the disk what is missing of the blob, which from has. It
// takes room as recordings do: at most half of the budget, and nothing from
// what was used since it began.
func (s *blobState) bringAll(ctx context.Context, from remote.Spool) error {
	if s.allPresent() {
		return nil
	}
	if !s.hasRoom() {
		return ErrFull
	}
	s.c.dir.beginRecording()
	err := s.bringPieces(ctx, &Blob{src: from, s: s})
	if err == nil && !s.allPresent() {
		err = ErrFull // others have removed something meanwhile
	}
	if err != nil {
		s.c.dir.endRecording("")
		return err
	}
	s.c.dir.endRecording(s.digest)
	return nil
}

func (s *blobState) bringPieces(ctx context.Context, from *Blob) error {
	for next := int64(0); ; {
		first, end := s.lacking(next, fillRequest)
		if first == end {
			return nil
		}
		soon, cancel := context.WithTimeout(ctx, intakeWait)
		_ = s.c.sched.quiet(soon) // who does not come to an end is not waited for
		cancel()
		if err := s.bringPiece(ctx, from, first, end); err != nil {
			return err
		}
		next = end
	}
}

// bringPiece brings some chunks. Some of them may be on their way from
// elsewhere, and fail there.
func (s *blobState) bringPiece(ctx context.Context, from *Blob, first, end int64) (err error) {
	for range intakeTries {
		if err = ctx.Err(); err != nil {
			return err
		}
		err = s.bring(ctx, from, first, end, forIntake)
		if err == nil || errors.Is(err, ErrFull) || errors.Is(err, fs.ErrClosed) {
			return err
		}
	}
	return err
}

// hasRoom reports whether the blob may be taken in.
func (s *blobState) hasRoom() bool {
	if !s.c.dir.mayWrite() || s.c.dir.Budget() > 0 && s.size > s.c.dir.Budget()/2 {
		return false
	}
	free, err := s.c.dir.Files().Free()
	if err != nil {
		return true
	}
	// What else is cached does not have to go for it.
	return free > s.size-s.presentBytes()
}

// allPresent reports whether all chunks seem to be on disk.
func (s *blobState) allPresent() bool {
	f := s.openFileTo(false)
	return f != nil && f.complete()
}

// beginRequest counts a request for the chunks from first on, and returns what
// counts the bytes that it brings: of what came by way of a Spool each chunk
// once, since it came once.
func (s *blobState) beginRequest(f *flight, first int64, elsewhere bool) (brought func(n int64)) {
	if f.why == forIntake {
		return func(int64) {}
	}
	s.c.count.requests.Add(1)
	s.count.requests.Add(1)
	if elsewhere {
		return s.addFetched
	}
	in, _ := s.intake(f.owner.src, false)
	taken := s.lastTaken()
	return func(n int64) {
		if in == nil {
			in, _ = s.intake(f.owner.src, false)
		}
		if last := s.lastTaken(); in == nil && last != taken {
			in = last
		}
		s.addFetched(s.countFirst(in, first, n))
	}
}

func (s *blobState) addFetched(n int64) {
	s.c.count.fetched.Add(n)
	s.count.fetched.Add(n)
}

func (s *blobState) lastTaken() *intake {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// countFirst returns how many of the n bytes from chunk first on were not
// counted before, as far as they came by way of a Spool.
func (s *blobState) countFirst(in *intake, first, n int64) int64 {
	if in == nil {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, count := first*s.chunk+n, int64(0)
	for k := first; k*s.chunk < stop; k++ {
		if at, end := s.bounds(k); !in.counted[k] {
			in.counted[k] = true
			count += min(end, stop) - at
		}
	}
	return count
}

// countIntake counts the chunks that nobody has asked for: they have come, too.
func (s *blobState) countIntake(in *intake) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, counted := range in.counted {
		if !counted {
			in.counted[k] = true
			at, end := s.bounds(int64(k))
			s.addFetched(end - at)
			s.fetchedUnread(int64(k), int64(k)+1)
		}
	}
}
