package network

import (
	"fmt"
	"slices"
	"time"
)

// latency measures how long a small read waits beside a prefetch that takes
// all of the line that readers leave.
func (b *bench) latency() error {
	const name = "p50 of a cold read"
	b.fast()
	cache, err := b.indexed("latency", b.far(b.node))
	if err != nil {
		return err
	}
	b.slow()
	var alone time.Duration
	for _, flags := range [][]string{nil, {"--prefetch"}} {
		if len(flags) > 0 {
			if ok, err := b.has(flags[0]); err != nil || !ok {
				b.figures = append(b.figures, figure{Section: b.section, Name: name + " beside " + flags[0], Unit: "ms", Missing: "this imgfs has no " + flags[0]})
				return err
			}
		}
		reads, use, err := b.coldReads(cache, flags)
		if err != nil {
			return err
		}
		waited := slices.DeleteFunc(slices.Clone(reads), func(d time.Duration) bool { return d < b.delay })
		note := fmt.Sprintf("%d of %d reads waited for the line, which was in use %.0f %%", len(waited), len(reads), 100*use)
		if len(waited) == 0 {
			b.figures = append(b.figures, figure{Section: b.section, Name: name, Unit: "ms", Missing: "no read waited for the line"})
			continue
		}
		p50 := median(waited)
		if len(flags) == 0 {
			alone = p50
			b.add(name, float64(p50.Microseconds())/1e3, "ms", note)
			continue
		}
		b.add(name+" beside "+flags[0], float64(p50.Microseconds())/1e3, "ms", note)
		if alone > 0 {
			b.add("ratio", p50.Seconds()/alone.Seconds(), "×", "")
		}
	}
	return nil
}

// coldReads reads small files from mounts with an empty cache of blobs, and
// returns how long each took and how much of the line was in use meanwhile.
func (b *bench) coldReads(cache string, flags []string) (reads []time.Duration, use float64, err error) {
	var moved int64
	var took time.Duration
	for range b.runs {
		if err := forgetBlobs(cache); err != nil {
			return nil, 0, err
		}
		err := b.with(b.ctx, cache, b.far(b.node), flags, func(m *mount) error {
			files, err := m.files()
			if err != nil {
				return err
			}
			b.proxy.forget()
			begun := time.Now()
			each, err := m.read(smallOnes(files, b.reads), b.pause)
			if err != nil {
				return err
			}
			reads = append(reads, each...)
			took += time.Since(begun)
			moved += b.proxy.seen().all(blobs).Bytes
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		if _, err := b.proxy.settled(b.ctx); err != nil {
			return nil, 0, err
		}
		b.traced(fmt.Sprint("small files ", flags))
	}
	return reads, float64(moved) / b.bandwidth() / took.Seconds(), nil
}
