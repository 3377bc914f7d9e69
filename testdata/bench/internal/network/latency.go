package network

import (
	"fmt"
	"slices"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// latency measures how long a small read waits beside a prefetch that takes
// all of the line that readers leave.
func (b *bench) latency() error {
	const name = "p50 of a cold read"
	cache, err := b.indexed("latency", b.node)
	if err != nil {
		return err
	}
	var alone time.Duration
	for _, flags := range [][]string{nil, {"--prefetch"}} {
		reads, use, err := b.coldReads(cache, flags)
		if err != nil {
			return err
		}
		f := figures.Figure{Name: name, Unit: "ms"}
		if flags != nil {
			f.Name += " beside " + flags[0]
		}
		waited := slices.DeleteFunc(slices.Clone(reads), func(d time.Duration) bool { return d < b.Delay })
		if len(waited) == 0 {
			f.Missing = "no read waited for the line"
			b.Add(f)
			continue
		}
		p50 := figures.Median(waited)
		f.Ours = float64(p50.Microseconds()) / 1e3
		f.Note = fmt.Sprintf("%d of %d reads waited for the line, which was in use %.0f %%", len(waited), len(reads), 100*use)
		b.Add(f)
		if flags == nil {
			alone = p50
		} else if alone > 0 {
			b.add("ratio", p50.Seconds()/alone.Seconds(), "×", "")
		}
	}
	return nil
}

// coldReads reads small files from mounts with an empty cache of blobs, and
// returns how long each took and how much of the line was in use meanwhile.
func (b *bench) coldReads(cache string, flags []string) (reads []time.Duration, use float64, err error) {
	var bytes int64
	var took time.Duration
	for range b.Runs {
		_, err := b.coldly(cache, fmt.Sprint("small files ", flags), b.node, flags, func(m *runner.Mount) (time.Duration, error) {
			all, err := b.files(m)
			if err != nil {
				return 0, err
			}
			b.proxy.forget()
			begun := time.Now()
			r, err := b.read(m, smallOnes(all, b.reads), b.pause)
			reads = append(reads, r.Each...)
			took += time.Since(begun)
			bytes += b.proxy.seen().all(blobs).Bytes
			return 0, err
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return reads, float64(bytes) / b.bandwidth() / took.Seconds(), nil
}
