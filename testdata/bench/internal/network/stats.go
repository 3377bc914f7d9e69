package network

import (
	"fmt"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// stats compares the counters of a mount with the proxy's.
func (b *bench) stats() error {
	cache, err := b.indexed("stats", b.node)
	if err != nil {
		return err
	}
	if err := ForgetBlobs(cache); err != nil {
		return err
	}
	b.proxy.forget()
	return b.With(cache, b.node.far, nil, func(m *runner.Mount) error {
		all, err := b.files(m)
		if err != nil {
			return err
		}
		big, err := nearest(all, 30_000_000)
		if err != nil {
			return err
		}
		if _, err := b.read(m, append(smallOnes(all, b.reads), big), 0); err != nil {
			return err
		}
		said, seen, err := b.bothSay(m)
		if err != nil {
			return err
		}
		b.want("`imgfs stats --json DIR`: bytes fetched, off by", float64(max(said.Bytes-seen.Bytes, seen.Bytes-said.Bytes)), 0, "B",
			fmt.Sprintf("%d, the proxy sent %d", said.Bytes, seen.Bytes))
		b.want("`imgfs stats --json DIR`: requests for blobs, off by", float64(max(said.Requests-seen.Requests, seen.Requests-said.Requests)), 0, "",
			fmt.Sprintf("%d, the proxy had %d", said.Requests, seen.Requests))
		return nil
	})
}

// bothSay returns the blob traffic that imgfs stats shows and that the proxy has
// counted, at a time when nothing was being fetched. imgfs may count an answer a moment
// after the proxy does, so a difference counts only if it lasts.
func (b *bench) bothSay(m *runner.Mount) (said, seen count, err error) {
	for range 10 {
		before, err := b.proxy.settled(b.Ctx)
		if err != nil {
			return count{}, count{}, err
		}
		s, err := b.StatsOf(m.Dir)
		if err != nil {
			return count{}, count{}, err
		}
		said = count{s.Total.Requests, s.Total.Fetched}
		if seen = b.proxy.seen().all(blobs); seen == before.all(blobs) && said == seen {
			break
		}
	}
	return said, seen, nil
}
