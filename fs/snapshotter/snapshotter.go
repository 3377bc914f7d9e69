package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
)

// errClosed is what is answered after Close.
var errClosed = fmt.Errorf("the snapshotter is closed: %w", errdefs.ErrUnavailable)

// Options are choices of New. nil and zero fields mean the defaults.
type Options struct {
	// RemapIDs has the labels of user namespaces become options of mounts, as containerd
	// expects it of a snapshotter with the capability remap-ids. Default: they do not.
	RemapIDs bool
	// MaxPasses bounds the images that are indexed side by side. Default: the number of
	// processors.
	MaxPasses int
	// CheckTimeout bounds how long Prepare waits for the config of an image before it falls
	// back. Default: 10 seconds.
	CheckTimeout time.Duration
	// MountWait bounds how long Prepare and View wait for a mount before they answer that it
	// takes long. It goes on. Default: 10 seconds.
	MountWait time.Duration
	// MountTimeout bounds how long a mount may take, which is as long as a pass where indexes
	// have gone. Default: one hour.
	MountTimeout time.Duration
	// Remember is how long an image falls back without being asked for again after that has
	// failed. Default: 30 seconds.
	Remember time.Duration
	// RememberPass is how long it falls back after a pass has failed. Default: 10 minutes.
	RememberPass time.Duration
	// Warnf, if not nil, is told of what goes wrong beside an answer; Debugf of more. Calls
	// may come from several goroutines.
	Warnf, Debugf func(format string, args ...any)
}

func (opts *Options) withDefaults() Options {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MaxPasses <= 0 {
		o.MaxPasses = runtime.GOMAXPROCS(0)
	}
	for _, d := range []struct {
		of   *time.Duration
		zero time.Duration
	}{
		{&o.CheckTimeout, 10 * time.Second}, {&o.MountWait, 10 * time.Second}, {&o.MountTimeout, time.Hour},
		{&o.Remember, 30 * time.Second}, {&o.RememberPass, 10 * time.Minute},
	} {
		if *d.of <= 0 {
			*d.of = d.zero
		}
	}
	return o
}

// A Snapshotter keeps snapshots in a directory. It is safe for concurrent use. Errors are
// those of containerd's errdefs. What it is asked of snapshots that are not lazy it does as
// containerd's snapshotter overlayfs.
type Snapshotter struct {
	root    *root
	meta    *storage.MetaStore
	trees   Trees
	opts    Options
	overlay []string // options of every overlay

	checks    flights[[]digest.Digest]
	passes    flights[struct{}]
	mountings sync.WaitGroup

	sweeping sync.Mutex    // held while sweep works
	wake     chan struct{} // has something in it when sweep has something to do
	ending   context.CancelFunc
	ended    chan struct{} // closed when the sweeper is gone
	closing  sync.Once
	closeErr error

	mu     sync.Mutex // guards the following, and what chain says
	chains map[digest.Digest]*chain
	closed bool // no mounting begins any more
	stats  Stats
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New opens the root, or makes it, and cleans up what a process has left there that was
// killed. nil opts are the defaults. Values of ctx are those of work in the background,
// which goes on after ctx has ended until Close.
func New(ctx context.Context, dir string, trees Trees, opts *Options) (*Snapshotter, error) {
	r, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Snapshotter{root: r, trees: trees, opts: opts.withDefaults(), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		chains: map[digest.Digest]*chain{}}
	if err := s.open(ctx); err != nil {
		if s.meta != nil {
			s.meta.Close()
		}
		r.Close()
		return nil, err
	}
	s.sweep(ctx)
	ctx, s.ending = context.WithCancel(context.WithoutCancel(ctx))
	go s.sweeper(ctx)
	return s, nil
}

func (s *Snapshotter) open(ctx context.Context) error {
	var err error
	if s.overlay, err = overlayOptions(s.root.dir); err != nil {
		return err
	}
	if s.meta, err = storage.NewMetaStore(s.root.path(databaseName)); err != nil {
		return err
	}
	s.checks = flights[[]digest.Digest]{call: s.diffIDs, failed: s.opts.Remember, keep: 256}
	turns := make(chan struct{}, s.opts.MaxPasses)
	s.passes = flights[struct{}]{failed: s.opts.RememberPass, keep: 256, landed: s.indexed, call: func(ctx context.Context, img Image) (none struct{}, err error) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
		s.count(func(n *Stats) { n.Passes++ })
		return none, s.trees.Index(ctx, img)
	}}
	return s.load(ctx)
}

// load finds the chains that snapshots need.
func (s *Snapshotter) load(ctx context.Context) error {
	used, err := s.used(ctx)
	if err != nil {
		return err
	}
	for id := range used {
		c := newChain(id, s.root.path(chainsDir, id.Encoded()))
		s.chains[id] = c
		if r, err := readRecord(c.recordName()); err != nil {
			s.warnf("chain %s: its record is lost until its image is pulled again: %v", id, err)
		} else {
			c.adopt(r)
		}
	}
	return nil
}

// used returns the chains that snapshots need.
func (s *Snapshotter) used(ctx context.Context) (map[digest.Digest]bool, error) {
	all := map[digest.Digest]bool{}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if id := lazyChain(info); id != "" {
			all[id] = true
		}
		return nil
	})
	return all, err
}

// lazyChain returns the chain of a lazy snapshot, and "" for any other. All others are kept
// without the label.
func lazyChain(info snapshots.Info) digest.Digest {
	return digest.Digest(info.Labels[snapshots.LabelSnapshotRef])
}

// parseChain reads a chain id. Those of containerd are of SHA-256.
func parseChain(text string) (digest.Digest, error) {
	id := digest.Digest(text)
	if err := id.Validate(); err != nil {
		return "", fmt.Errorf("chain %.100q: %w", text, err)
	}
	if id.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("chain %s: it is of another algorithm than sha256", id)
	}
	return id, nil
}

// Close ends what goes on in the background and lets another process have the root. Mounts
// stay. Nothing else is to be called at the same time or afterwards, but Close.
func (s *Snapshotter) Close() error {
	s.closing.Do(func() {
		s.ending()
		s.stopMountings()
		s.checks.close()
		s.passes.close()
		<-s.ended
		s.closeErr = errors.Join(s.meta.Close(), s.root.Close())
	})
	return s.closeErr
}

func (s *Snapshotter) warnf(format string, args ...any) {
	if s.opts.Warnf != nil {
		s.opts.Warnf(format, args...)
	}
}

func (s *Snapshotter) debugf(format string, args ...any) {
	if s.opts.Debugf != nil {
		s.opts.Debugf(format, args...)
	}
}

// describe names an image, for people.
func describe(img Image) string { return printable.Name(img.Ref + "@" + img.Digest.String()) }
