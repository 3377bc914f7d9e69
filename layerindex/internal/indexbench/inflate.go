package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// inflate compares the CPU time of decoders. What they decode is compared
// outside of what is timed.
func (b *bench) inflate() error {
	empty := filepath.Join(b.dir, "empty.gz")
	if _, err := writeGzip(empty, fastGzip, func(io.Writer) error { return nil }); err != nil {
		return err
	}
	for _, in := range b.inputs {
		if err := b.inflateOne(in, empty); err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
	}
	return nil
}

// An inflateRow is a row to be: which of our decoders against which peer.
type inflateRow struct {
	ours, other peer
	want        float64
	userOnly    bool
}

// inflateRows says what is compared, and how many times as good we should be.
func inflateRows(in *input) []inflateRow {
	klauspostWant := 2.2
	if in.poor {
		klauspostWant = 1.6
	}
	return []inflateRow{
		{ours: ourDecoder, other: klauspost, want: klauspostWant},
		{ours: ourDecoder, other: libdeflate, want: 0.7},
		// It keeps all of the output in memory, and the kernel spends as much
		// as half of its time on making that memory.
		{ours: ourDecoder, other: libdeflate, want: 0.7, userOnly: true},
		{ours: ourDecoder, other: zlibNG, want: 1},
		{ours: ourDecoder, other: isal},
		{ours: ourDecoder, other: standard},
		{ours: ourDecoder, other: gnuGzip},
		{ours: ourIndexer, other: klauspost},
	}
}

func (b *bench) inflateOne(in *input, empty string) error {
	rows := inflateRows(in)
	used, err := b.decodeInTurns(in, empty, []peer{ourDecoder, ourIndexer, klauspost, libdeflate, zlibNG, isal, standard, gnuGzip})
	if err != nil {
		return err
	}
	for _, r := range rows {
		ours, other := used[r.ours.name()], used[r.other.name()]
		f := figure{
			Name: in.name + ": " + r.ours.name(), Unit: "s", Ours: ours.cpu.Seconds(),
			Peer: r.other.name(), PeerValue: other.cpu.Seconds(), Missing: r.other.missing(), WantRatio: r.want,
		}
		if r.userOnly {
			f.Name += ", in user mode"
			f.Ours, f.PeerValue = ours.user.Seconds(), other.user.Seconds()
		}
		b.add(f)
	}
	return nil
}

// decodeInTurns returns what each decoder that is here takes, less what it
// takes for an empty file: to start.
func (b *bench) decodeInTurns(in *input, empty string, decoders []peer) (map[string]sample, error) {
	var here []peer
	var tasks []task
	for _, d := range decoders {
		if d.missing() != "" {
			continue
		}
		b.logf("inflate %s: %s", in.name, d.name())
		if err := b.checkDecoder(in, d); err != nil {
			return nil, err
		}
		here = append(here, d)
		for _, path := range []string{empty, in.Path} {
			tasks = append(tasks, task{d.name(), d.who(), func() error { return d.decode(b.ctx, path, io.Discard) }})
		}
	}
	samples, err := inTurns(b.ctx, b.runs, tasks)
	if err != nil {
		return nil, err
	}
	used := map[string]sample{}
	for i, d := range here {
		start, whole := samples[2*i], samples[2*i+1]
		used[d.name()] = sample{whole.cpu - start.cpu, whole.user - start.user, whole.wall - start.wall}
	}
	return used, nil
}

// checkDecoder compares what a decoder makes of an input with its diff_id.
func (b *bench) checkDecoder(in *input, d peer) error {
	h := sha256.New()
	if err := d.decode(b.ctx, in.Path, h); err != nil {
		return fmt.Errorf("%s: %w", d.name(), err)
	}
	if got := digest.NewDigest(digest.SHA256, h); got != in.DiffID {
		return fmt.Errorf("%s decodes to %s, not %s", d.name(), got, in.DiffID)
	}
	return nil
}
