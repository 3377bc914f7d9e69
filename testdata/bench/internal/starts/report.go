package starts

import (
	"fmt"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// What is wanted.
const (
	overBound = 1.25 // times what line and program take at least
	vainMost  = 20   // percent of what was expected
	overDisk  = 2    // times the time on disk, pages dropped
	overAgain = 1.2  // times the time on disk
)

// bound returns what a start takes at least: the line for the bytes that it needs, and the
// start with all of them in the cache.
func (r *result) bound(l line) time.Duration {
	needed := figures.Median(each(r.known, (*start).needed))
	return l.takes(needed) + figures.Median(each(r.warm, took))
}

// report adds the rows of a program.
func (b *bench) report(l line, p program, r *result, peers []pulled) {
	plain, known := figures.Median(each(r.plain, took)), figures.Median(each(r.known, took))
	for _, peer := range peers {
		f := figures.Figure{Unit: "s", Peer: peer.peer, Theirs: peer.took.Seconds(), PeerMissing: peer.lacks, AtLeast: 1}
		if peer.lacks != "" {
			f.AtLeast = 0
		}
		if peer.traced {
			f.Peer += ", traced"
		} else {
			f.Name, f.Ours, f.Note = p.what+": first start, no profile", plain.Seconds(), traffic(r.plain)
			b.Add(f)
		}
		f.Name, f.Ours, f.Note = p.what+": with the profile of another tag", known.Seconds(), traffic(r.known)
		b.Add(f)
	}
	needed := figures.Median(each(r.known, (*start).needed))
	warm := figures.Median(each(r.warm, took))
	b.Add(
		figures.Figure{Name: p.what + ": with the profile of another tag", Unit: "s", Ours: known.Seconds(), Peer: "bound", Theirs: r.bound(l).Seconds(), AtLeast: 1 / overBound,
			Note: fmt.Sprintf("%s; needed %s, which the line takes %s for, and %s warm", traffic(r.known), figures.Megabytes(needed), seconds(l.takes(needed)), seconds(warm))})
	fetched, used := figures.Median(each(r.known, func(s *start) int64 { return s.stats.Profile.Fetched })), figures.Median(each(r.known, func(s *start) int64 { return s.stats.Profile.Used }))
	if fetched > 0 {
		b.Add(figures.Figure{Name: p.what + ": expected and not read", Unit: "%", Ours: 100 * float64(fetched-used) / float64(fetched), AtMost: figures.Most(vainMost),
			Note: fmt.Sprintf("%s fetched, %s used", figures.Megabytes(fetched), figures.Megabytes(used))})
	}
	p99 := func(s *start) float64 { return 1e3 * s.stats.Total.WaitP99Seconds }
	waits := func(s *start) int64 { return s.stats.Total.Waits }
	b.Add(
		figures.Figure{Name: p.what + ": waits of readers, 99 % up to", Unit: "ms", Ours: figures.Median(each(r.known, p99)), Peer: "no profile", Theirs: figures.Median(each(r.plain, p99)), AtLeast: 1,
			Note: fmt.Sprintf("%d waits, without a profile %d", figures.Median(each(r.known, waits)), figures.Median(each(r.plain, waits)))},
		figures.Figure{Name: p.what + ": the program, bytes in the cache, pages dropped", Unit: "s", Ours: figures.Median(each(r.warm, func(s *start) time.Duration { return s.program })).Seconds(),
			Peer: "on disk", Theirs: figures.Median(r.disk).Seconds(), AtLeast: 1.0 / overDisk},
		figures.Figure{Name: p.what + ": the program, warm", Unit: "s", Ours: figures.Median(each(r.warm, func(s *start) time.Duration { return s.again })).Seconds(),
			Peer: "on disk", Theirs: figures.Median(r.diskAgain).Seconds(), AtLeast: 1 / overAgain})
}

// traffic says what some starts moved.
func traffic(all []start) string {
	return fmt.Sprintf("%s in %d requests, the program alone %s", figures.Megabytes(figures.Median(each(all, func(s *start) int64 { return s.moved }))),
		figures.Median(each(all, func(s *start) int64 { return s.requests })), seconds(figures.Median(each(all, func(s *start) time.Duration { return s.program }))))
}

func took(s *start) time.Duration { return s.took }

func seconds(d time.Duration) string { return figures.Number(d.Seconds(), "s") }

// each returns a part of all starts.
func each[V any](all []start, of func(*start) V) []V {
	values := make([]V, len(all))
	for i := range all {
		values[i] = of(&all[i])
	}
	return values
}
