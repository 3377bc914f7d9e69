package snapshotter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// maxSources is how many images are remembered that a chain is the lower part of. A base
// image may be that of thousands.
const maxSources = 32

// A source is an image whose first layers are a chain.
type source struct {
	Image
	Layers int `json:"layers"`
	// Proven says that a pass over the layers of this image has succeeded. Until then that it
	// has the chain is its own word, and nothing of it may ever come.
	Proven bool `json:"proven,omitempty"`
}

// A record is what is on the disk of a chain.
type record struct {
	Chain digest.Digest `json:"chain"`
	// Indexed says that a pass over the layers has succeeded. Mounting makes indexes that
	// have gone since.
	Indexed bool     `json:"indexed"`
	Sources []source `json:"sources"` // the latest one first
}

// A chain is a number of layers from the base of an image upwards. Locks are taken in the
// order mounting, mu, a transaction of the database, Snapshotter.mu.
type chain struct {
	id  digest.Digest
	dir string

	// mounting is held, by who has put something into it, while the tree is mounted or
	// unmounted, which may take long.
	mounting chan struct{}

	// mu is held while the record is written or removed, with the snapshots that need it: a
	// few files on this machine.
	mu sync.Mutex

	// Of the rest Snapshotter.mu is held.
	record  record
	removed bool          // the chain has no directory any more, and will have none
	mounted bool          // as far as this process knows
	now     *mounting     // if somebody looks after the mount
	ready   chan struct{} // closed when record.Indexed is set
}

func newChain(id digest.Digest, dir string) *chain {
	return &chain{id: id, dir: dir, mounting: make(chan struct{}, 1), record: record{Chain: id}, ready: make(chan struct{})}
}

// tree is where the chain is mounted.
func (c *chain) tree() string { return filepath.Join(c.dir, treeName) }

func (c *chain) recordName() string { return filepath.Join(c.dir, recordName) }

// lockMounting waits until nobody else mounts or unmounts the chain.
func (c *chain) lockMounting(ctx context.Context) error {
	select {
	case c.mounting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *chain) unlockMounting() { <-c.mounting }

// adopt takes over a record. It is called with Snapshotter.mu held.
func (c *chain) adopt(r record) {
	was := c.record.Indexed
	c.record = r
	if r.Indexed && !was {
		close(c.ready)
	}
}

// isReady reports whether a pass over the layers has succeeded.
func (c *chain) isReady() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// with returns a record that has a source as its latest one.
func (r record) with(src source) record {
	others := slices.Clone(r.Sources)
	if i := slices.IndexFunc(others, func(s source) bool { return s.Image == src.Image }); i >= 0 {
		src.Proven = others[i].Proven
		others = slices.Delete(others, i, i+1)
	}
	r.Sources = append([]source{src}, others...)
	if len(r.Sources) > maxSources {
		gone := maxSources // the oldest one, or better the oldest that is not proven
		for i := maxSources; i > 0; i-- {
			if !r.Sources[i].Proven {
				gone = i
				break
			}
		}
		r.Sources = slices.Delete(r.Sources, gone, gone+1)
	}
	return r
}

// proven returns a record in which a source is proven, and so the chain is indexed.
func (r record) proven(img Image) record {
	r.Indexed = true
	r.Sources = slices.Clone(r.Sources)
	for i := range r.Sources {
		r.Sources[i].Proven = r.Sources[i].Proven || r.Sources[i].Image == img
	}
	return r
}

// readRecord reads the record of a chain.
func readRecord(name string) (record, error) {
	var r record
	text, err := readRegular(name, maxRecord)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// write puts a record on the disk, and makes the directories of the chain. c.mu is held.
func (c *chain) write(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := c.makeDirs(); err != nil {
		return err
	}
	if err := replaceFile(c.recordName(), text); err != nil {
		return err
	}
	return syncDir(filepath.Dir(c.dir))
}

// makeDirs makes the directories of a chain that are not there. It looks into none, as a tree
// may be mounted there that does not answer.
func (c *chain) makeDirs() error {
	for _, dir := range []string{c.dir, c.tree()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, iofs.ErrExist) {
			return err
		}
	}
	return nil
}

// erase removes the directories of a chain. What is still mounted there stays, with an error.
// c.mu is held.
func (c *chain) erase() error {
	// The directory goes before the record: what is left over without one is swept. Nothing
	// is removed recursively, as a tree may be mounted there.
	if err := os.Remove(c.tree()); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	left, err := os.ReadDir(c.dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range left { // the record, and files that a killed process has left
		errs = append(errs, os.Remove(filepath.Join(c.dir, e.Name())))
	}
	errs = append(errs, os.Remove(c.dir))
	return errors.Join(errs...)
}

// chain returns a chain, known or new.
func (s *Snapshotter) chain(id digest.Digest) *chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.chains[id]
	if c == nil {
		c = newChain(id, s.root.path(chainsDir, id.Encoded()))
		s.chains[id] = c
	}
	return c
}

// lockChain returns a chain, known or new, with its mu held: nobody removes it meanwhile.
func (s *Snapshotter) lockChain(id digest.Digest) *chain {
	for {
		c := s.chain(id)
		c.mu.Lock()
		if !s.isRemoved(c) {
			return c
		}
		c.mu.Unlock()
	}
}

// setRecord changes the record of a chain, on the disk too. c.mu is held.
func (s *Snapshotter) setRecord(c *chain, change func(record) record) error {
	s.mu.Lock()
	was := c.record
	s.mu.Unlock()
	r := change(was)
	if r.Indexed == was.Indexed && slices.Equal(r.Sources, was.Sources) {
		return nil
	}
	if err := c.write(r); err != nil {
		return fmt.Errorf("record of chain %s: %w", c.id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.adopt(r)
	return nil
}

// sources returns the images that a chain is known to be of: those that are proven before
// others, and the latest one first.
func (s *Snapshotter) sources(c *chain) []source {
	s.mu.Lock()
	all := slices.Clone(c.record.Sources)
	s.mu.Unlock()
	rank := func(s source) int {
		if s.Proven {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b source) int { return rank(a) - rank(b) })
	return all
}

// setIndexed notes that a pass over the layers of a chain has succeeded, as those of an image.
// That it cannot be kept costs a pass over indexes that are there.
func (s *Snapshotter) setIndexed(c *chain, img Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.isRemoved(c) {
		return
	}
	indexed := func(r record) record { return r.proven(img) }
	if err := s.setRecord(c, indexed); err != nil {
		s.warnf("%v", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		c.adopt(indexed(c.record))
	}
}

// indexed is called when a pass over the layers of an image has ended.
func (s *Snapshotter) indexed(img Image, err error) {
	if err != nil {
		s.count(func(n *Stats) { n.PassFailures++ })
		s.warnf("the pass over the layers of %s failed: %v", describe(img), err)
		return
	}
	for _, c := range s.chainsOf(img) {
		s.setIndexed(c, img)
	}
}

// chainsOf returns the chains of which an image is a source.
func (s *Snapshotter) chainsOf(img Image) (all []*chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.chains {
		if slices.ContainsFunc(c.record.Sources, func(src source) bool { return src.Image == img }) {
			all = append(all, c)
		}
	}
	return all
}

// awaitIndexed waits until a pass over the layers of a chain has succeeded, of whichever
// image. It begins one if none is under way.
func (s *Snapshotter) awaitIndexed(ctx context.Context, c *chain) error {
	if c.isReady() {
		return nil
	}
	s.count(func(n *Stats) { n.Waits++ })
	errs := []error{}
	for _, src := range s.sources(c) {
		pass, err := s.passes.begin(ctx, src.Image)
		if err != nil {
			return err
		}
		select {
		case <-c.ready:
			return nil
		case <-pass.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if pass.err == nil {
			s.setIndexed(c, src.Image)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", describe(src.Image), pass.err))
	}
	if len(errs) == 0 {
		return fmt.Errorf("chain %s: no image is known that has it: %w", c.id, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("chain %s cannot be read: %w: %w", c.id, errdefs.ErrUnavailable, errors.Join(errs...))
}
