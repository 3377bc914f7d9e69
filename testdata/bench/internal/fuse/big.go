package fuse

import (
	"errors"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// big measures one file whose content each system has on disk.
func (b *bench) big() error {
	img, err := b.oneFile("big", b.bigSize)
	if err != nil {
		return err
	}
	if err := b.everywhere(img); err != nil {
		return err
	}
	for _, s := range b.systems {
		if !s.mine || b.report.Lacks[s.name] != "" {
			continue
		}
		b.logf("having %s keep the content of %s", s.name, img.name)
		kept, err := b.keep(s, img)
		if err != nil {
			return err
		}
		b.note("%s: the content is in the cache directory %s", s.name, map[bool]string{true: "whole, and as the blob's chunks", false: "as the blob's chunks alone"}[kept])
	}
	if err := b.each(img, func(s *system) error { return b.bigBy(s, img) }); err != nil {
		return err
	}
	b.note("%s, compressed %s; %s of 4 KiB", img.what, img.ratio(), plural(b.pages, "page"))
	b.note("where it is whole a mount with passthrough has put it; the rows that do not say otherwise begin when reads go past the process that serves, or, without passthrough, are answered from there")
	for _, s := range b.systems {
		if s.mine && b.report.Lacks[s.name] == "" {
			b.note("%s: reads go %s", s.name, map[bool]string{true: "past the process that serves", false: "to the process that serves"}[s.past])
		}
	}
	b.judge("big")
	return nil
}

// bigBy measures the file by way of one system.
func (b *bench) bigBy(s *system, img *image) error {
	// In the order of the table.
	rows := []struct {
		name string
		only bool // imgfs
		do   func() (reading, error)
	}{
		{sequential, false, func() (reading, error) {
			return b.settled(s, img, func(m *mounted) (reading, error) { return b.readAll(m, &img.all, 1) })
		}},
		{freshMount, true, func() (reading, error) { return b.firstTime(s, img) }},
		{chunksOnly, true, func() (reading, error) { return b.unpack(s, img) }},
		{randomMap, false, func() (reading, error) { return b.settled(s, img, b.pagesOf(img, "random")) }},
		{aroundMap, false, func() (reading, error) { return b.settled(s, img, b.pagesOf(img, "around")) }},
	}
	for _, row := range rows {
		if row.only && !s.mine {
			continue
		}
		r, err := row.do()
		if err != nil {
			return err
		}
		b.took(row.name, s.name, r.took)
	}
	return nil
}

// pagesOf returns what reads pages of a mapping.
func (b *bench) pagesOf(img *image, how string) func(m *mounted) (reading, error) {
	return func(m *mounted) (reading, error) { return b.read(m.root, img.all.names, how, b.pages) }
}

// firstTime reads the file from a mount from which nobody has read.
func (b *bench) firstTime(s *system, img *image) (r reading, err error) {
	err = b.coldly(s, img, func(m *mounted) error {
		r, err = b.readAll(m, &img.all, 1)
		return err
	})
	return r, err
}

// settled reads the file from a mount in which reads go where they are to go
// from then on.
func (b *bench) settled(s *system, img *image, read func(m *mounted) (reading, error)) (r reading, err error) {
	err = b.coldly(s, img, func(m *mounted) error {
		if err := b.settle(s, img, m); err != nil {
			return err
		}
		if !s.past {
			r, err = read(m)
			return err
		}
		before, err := b.stats(m)
		if err != nil {
			return err
		}
		if r, err = read(m); err != nil {
			return err
		}
		after, err := b.stats(m)
		if asked := after.asked() - before.asked(); asked > r.bytes/2 {
			b.note("%s: in one run reads went to the process although they had gone past it before: %s of %s",
				s.name, figures.Number(float64(asked)/1e6, "MB"), figures.Number(float64(r.bytes)/1e6, "MB"))
		}
		return err
	})
	return r, err
}

// settle waits until reads of a mounted file go past the process that serves,
// if they may, and else are answered from what is on disk whole, and then drops
// what the kernel has cached.
func (b *bench) settle(s *system, img *image, m *mounted) error {
	if !s.mine {
		return nil
	}
	stats, err := b.stats(m)
	if err != nil {
		return err
	}
	s.past = false
	may, _ := stats.active(passthrough)
	whole := false
	for end := time.Now().Add(b.patience); !s.past && !(whole && !may) && time.Now().Before(end); {
		if err := b.dropCaches(); err != nil {
			return err
		}
		before := stats
		_, readErr := b.readAll(m, &img.all, 1)
		if stats, err = b.stats(m); errors.Join(readErr, err) != nil {
			return errors.Join(readErr, err)
		}
		asked := stats.asked() - before.asked()
		s.past = asked < img.all.bytes/2
		whole = asked-(stats.kept()-before.kept()) < img.all.bytes/2
	}
	return b.dropCaches()
}
