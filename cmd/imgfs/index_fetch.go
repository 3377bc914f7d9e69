package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
)

// stallLimit is how long imgfs index --fetch goes on while nothing arrives. A mount
// that prefetches goes on for ever.
const stallLimit = 2 * time.Minute

// A filling says how many bytes of an image are in the cache.
type filling struct{ have, all int64 }

func (f *filling) String() string { return show.Bytes(f.have) + " of " + show.Bytes(f.all) }

// fetch brings all of an image into the cache. begun is when the command began: what
// came to index the layers counts as well.
func (e *env) fetch(ctx context.Context, layers *image.Layers, begun time.Time) error {
	img := layers.Resolved()
	name, disk := img.Name(), img.Cache()
	if img.Local() {
		e.Warnf("%s is on this machine: there is nothing to fetch", name)
		return nil
	}
	var f filling
	g := show.NewBar(e, "fetching")
	alive, stop := whileAlive(ctx, stallLimit)
	err := layers.Fill(alive.ctx, func(have, all int64) {
		if have > f.have {
			alive.prolong()
		}
		f = filling{have, all}
		g.Update(have, all)
	})
	stop()
	g.Finish()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%s: only %v are in the cache: %w", name, &f, endless(err))
	}
	// What others say of the layers is proven now, or not.
	if err := layers.Check(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	n := disk.Stats()
	e.Warnf("%s: all %s are in the cache; %s were fetched now, in %.1f s", name, show.Bytes(f.all),
		show.Bytes(n.Fetched+n.Recorded), time.Since(begun).Seconds())
	return nil
}

// A lease is a context that ends unless it is prolonged in time.
type lease struct {
	ctx   context.Context
	limit time.Duration
	timer *time.Timer
}

// whileAlive returns a lease within ctx. stop ends it.
func whileAlive(ctx context.Context, limit time.Duration) (l *lease, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	l = &lease{ctx: ctx, limit: limit, timer: time.AfterFunc(limit, cancel)}
	return l, func() {
		l.timer.Stop()
		cancel()
	}
}

func (l *lease) prolong() { l.timer.Reset(l.limit) }

// endless replaces an error that says that a lease ended. The new one does not wrap
// context.Canceled: the user has not interrupted anything.
func endless(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	why := strings.TrimPrefix(err.Error(), context.Canceled.Error()+"; ")
	return fmt.Errorf("nothing arrived for %v; %s", stallLimit, why)
}
