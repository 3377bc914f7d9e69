package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// has reports whether this imgfs's help speaks of something: features of newer
// ones are rows that say so.
func (b *bench) has(what string) (bool, error) {
	for _, args := range [][]string{{"help"}, {"help", "mount"}} {
		out, err := b.output(b.ctx, b.imgfs, args...)
		if err != nil {
			return false, err
		}
		if strings.Contains(out, what) {
			return true, nil
		}
	}
	return false, nil
}

// fetchedBy returns what the stats of a mount, as JSON, say that was fetched of
// all layers.
func fetchedBy(text string) (count, error) {
	var s struct {
		Total *struct{ Requests, Fetched int64 }
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return count{}, fmt.Errorf("imgfs stats: %w", err)
	}
	if s.Total == nil {
		return count{}, errors.New("imgfs stats: no total")
	}
	return count{s.Total.Requests, s.Total.Fetched}, nil
}

// stats compares the counters of a mount with the proxy's.
func (b *bench) stats() error {
	const bytes, requests = "`imgfs stats --json DIR`: bytes fetched, off by", "`imgfs stats --json DIR`: requests for blobs, off by"
	if ok, err := b.has("imgfs stats"); err != nil || !ok {
		b.missing(bytes, "this imgfs has no stats", 0, "B")
		b.missing(requests, "this imgfs has no stats", 0, "")
		return err
	}
	b.fast()
	cache, err := b.indexed("stats", b.far(b.node))
	if err != nil {
		return err
	}
	if err := forgetBlobs(cache); err != nil {
		return err
	}
	b.slow()
	b.proxy.forget()
	return b.with(b.ctx, cache, b.far(b.node), nil, func(m *mount) error {
		files, err := m.files()
		if err != nil {
			return err
		}
		big, err := nearest(files, 30_000_000)
		if err != nil {
			return err
		}
		if _, err := m.read(append(smallOnes(files, b.reads), big), 0); err != nil {
			return err
		}
		said, seen, err := b.bothSay(m)
		if err != nil {
			return err
		}
		b.want(bytes, float64(max(said.Bytes-seen.Bytes, seen.Bytes-said.Bytes)), 0, "B", fmt.Sprintf("%d, the proxy sent %d", said.Bytes, seen.Bytes))
		b.want(requests, float64(max(said.Requests-seen.Requests, seen.Requests-said.Requests)), 0, "", fmt.Sprintf("%d, the proxy had %d", said.Requests, seen.Requests))
		return nil
	})
}

// bothSay returns what imgfs stats says of blobs and what the proxy has seen,
// at a time when nothing was being fetched. imgfs may count an answer a moment
// after the proxy does, so a difference counts only if it lasts.
func (b *bench) bothSay(m *mount) (said, seen count, err error) {
	for range 10 {
		before, err := b.proxy.settled(b.ctx)
		if err != nil {
			return count{}, count{}, err
		}
		out, err := b.output(b.ctx, b.imgfs, "stats", "--json", m.dir)
		if err != nil {
			return count{}, count{}, err
		}
		if said, err = fetchedBy(out); err != nil {
			return count{}, count{}, err
		}
		if seen = b.proxy.seen().all(blobs); seen == before.all(blobs) && said == seen {
			break
		}
	}
	return said, seen, nil
}
