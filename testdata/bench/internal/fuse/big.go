package fuse

import (
	"errors"
	"strconv"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// big measures one file that each system has on disk.
func (b *bench) big() error {
	img, err := b.oneFile("big", b.bigSize)
	if err != nil {
		return err
	}
	if err := b.everywhere(img); err != nil {
		return err
	}
	for _, s := range b.here() {
		if !s.mine {
			continue
		}
		b.Logf("having %s keep the content of %s", s.name, img.name)
		kept, err := b.keep(s, img)
		if err != nil {
			return err
		}
		b.Note("%s: the content is in the cache directory %s", s.name, map[bool]string{true: "whole, and as the blob's chunks", false: "as the blob's chunks alone"}[kept])
	}
	if err := b.each(img, func(s *system) error { return b.bigBy(s, img) }); err != nil {
		return err
	}
	b.Note("%s, compressed %s; %s of 4 KiB", img.what, img.ratio(), plural(b.pages, "page"))
	b.Note("where it is whole a mount with passthrough has put it; the rows that do not say otherwise begin when reads go past the process that serves, or, without passthrough, are answered from there")
	for _, s := range b.here() {
		if s.mine {
			b.Note("%s: reads go %s", s.name, map[bool]string{true: "past the process that serves", false: "to the process that serves"}[s.past])
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
		do   func() (runner.Reading, error)
	}{
		{sequential, false, func() (runner.Reading, error) {
			return b.settled(s, img, func(m *mounted) (runner.Reading, error) { return b.readAll(m, &img.all, 1) })
		}},
		{freshMount, true, func() (runner.Reading, error) { return b.firstTime(s, img) }},
		{chunksOnly, true, func() (runner.Reading, error) { return b.unpack(s, img) }},
		{randomMap, false, func() (runner.Reading, error) { return b.settled(s, img, b.pagesOf(img, "random")) }},
		{aroundMap, false, func() (runner.Reading, error) { return b.settled(s, img, b.pagesOf(img, "around")) }},
	}
	for _, row := range rows {
		if row.only && !s.mine {
			continue
		}
		r, err := row.do()
		if err != nil {
			return err
		}
		b.Now.Took(row.name, s.name, r.Took)
	}
	return nil
}

// pagesOf returns a function that reads pages of a mapping.
func (b *bench) pagesOf(img *image, how string) func(m *mounted) (runner.Reading, error) {
	return func(m *mounted) (runner.Reading, error) {
		return b.Read(m.root, img.all.names, how, strconv.Itoa(b.pages))
	}
}

// firstTime reads the file from a fresh mount.
func (b *bench) firstTime(s *system, img *image) (r runner.Reading, err error) {
	err = b.coldly(s, img, func(m *mounted) error {
		r, err = b.readAll(m, &img.all, 1)
		return err
	})
	return r, err
}

// settled reads the file from a mount in which reads go where they are to go
// from then on.
func (b *bench) settled(s *system, img *image, read func(m *mounted) (runner.Reading, error)) (r runner.Reading, err error) {
	err = b.coldly(s, img, func(m *mounted) error {
		if err := b.settle(s, img, m); err != nil {
			return err
		}
		if !s.past {
			r, err = read(m)
			return err
		}
		before, err := b.StatsOf(m.root)
		if err != nil {
			return err
		}
		if r, err = read(m); err != nil {
			return err
		}
		after, err := b.StatsOf(m.root)
		if asked := after.Total.Asked - before.Total.Asked; asked > r.Bytes/2 {
			b.Note("%s: in one run reads went to the process although they had gone past it before: %s of %s",
				s.name, figures.Megabytes(asked), figures.Megabytes(r.Bytes))
		}
		return err
	})
	return r, err
}

// settle waits until reads of a mounted file go past the process that serves,
// if they may, or else are answered from a kept file, and then drops the kernel's
// caches.
func (b *bench) settle(s *system, img *image, m *mounted) error {
	if !s.mine {
		return nil
	}
	stats, err := b.StatsOf(m.root)
	if err != nil {
		return err
	}
	s.past = false
	may, _ := stats.Active(passthrough)
	whole := false
	for end := time.Now().Add(b.patience); !s.past && !(whole && !may) && time.Now().Before(end); {
		if err := b.dropCaches(); err != nil {
			return err
		}
		before := stats
		_, readErr := b.readAll(m, &img.all, 1)
		if stats, err = b.StatsOf(m.root); errors.Join(readErr, err) != nil {
			return errors.Join(readErr, err)
		}
		asked := stats.Total.Asked - before.Total.Asked
		s.past = asked < img.all.bytes/2
		whole = asked-(stats.Contents.ReadBytes-before.Contents.ReadBytes) < img.all.bytes/2
	}
	return b.dropCaches()
}
