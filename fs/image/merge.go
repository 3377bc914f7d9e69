package image

import (
	"context"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/counters"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
)

// listMemory is about how many bytes the entries may take that are read ahead of
// what is being merged.
const listMemory = 64 << 20

// listLess is listMemory where the tree is not to be in memory.
const listLess = 4 << 20

// Merge makes one tree of the layers. It takes them over: Image.Close closes
// them, and so does Merge if it fails. A layer directly on itself changes nothing
// and is left out, unless its hard links mean something else there. If there is no tree
// of what indexes of others say, their layers are read whole.
func (l *Layers) Merge(ctx context.Context) (*Image, error) {
	i, _, err := l.merge(ctx, false)
	return i, err
}

// MergeSurvey is Merge, and tells what each layer does to the tree. The survey takes
// memory that Options.MaxMetadata counts.
func (l *Layers) MergeSurvey(ctx context.Context) (*Image, *fs.Survey, error) {
	return l.merge(ctx, true)
}

func (l *Layers) merge(ctx context.Context, survey bool) (*Image, *fs.Survey, error) {
	if l.from == nil {
		l.from = &Resolved{Image: &remote.Image{}}
	}
	i, s, err := l.tryMerge(ctx, survey)
	if err != nil && l.distrust(ctx, err) {
		i, s, err = l.tryMerge(ctx, survey)
	}
	if err != nil {
		l.Close()
		if l.from.Source != nil {
			err = fmt.Errorf("%s: %w", l.from.Name(), err)
		}
		return nil, nil, err
	}
	return i, s, nil
}

// tryMerge merges by the indexes that there are. If it fails the layers stay open.
func (l *Layers) tryMerge(ctx context.Context, survey bool) (*Image, *fs.Survey, error) {
	i := &Image{layers: l}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i.digests = &digestTables{limit: maxDigestMemory, ctx: life, cancel: cancel}
	large := int64(math.MaxInt64)
	if len(l.all) > 0 && !l.from.opts.NoKeptFiles {
		large = keptfile.MinSize
		i.kept = keptfile.New(keptDir{l.from.disk}, len(l.all), i.Reads)
	}
	i.counts = counters.New(len(l.all), large)
	b, err := i.merge(ctx, survey)
	if err == nil {
		i.tree, err = b.Tree()
	}
	if err != nil {
		i.closeOwn()
		return nil, nil, err
	}
	i.counts.Init(i.tree)
	if i.kept != nil {
		i.kept.Init(i.tree)
	}
	return i, b.Survey(), nil
}

// merge applies the layers.
func (i *Image) merge(ctx context.Context, survey bool) (*fs.Builder, error) {
	layers, opts := i.layers.all, &i.layers.from.opts
	budget := layerindex.NewBudget(opts.MaxMetadata, opts.Metadata)
	names, err := sumEntries(layers, budget)
	if err != nil {
		return nil, err
	}
	b, err := fs.NewBuilder(ctx, &fs.BuilderOptions{Budget: budget, Names: names, Survey: survey, Room: opts.Room})
	if err != nil {
		return nil, err
	}
	listing, cancel := context.WithCancel(ctx)
	ahead := int64(listMemory)
	if opts.Room != nil {
		ahead = listLess
	}
	lists := listAhead(listing, layers, layerindex.NewBudget(opts.MaxMetadata, nil), ahead)
	defer lists.wait()
	defer cancel()
	for at, l := range layers {
		again := repeats(layers, at)
		content := i.content(at, l)
		if again && b.Repeat(l.Digest().String(), content) {
			continue
		}
		list, err := lists.of(listing, at, again)
		if err != nil {
			return nil, layerError(l.Digest(), err)
		}
		entries := list.Drain()
		if hidesTOC(l.Layer) {
			entries = withoutTOC(entries)
		}
		err = b.Apply(fs.Layer{
			Name: l.Digest().String(), Entries: entries, Marked: list.Containing(fs.WhiteoutPrefix),
			Content: content, Stable: true,
		})
		lists.release(at)
		if err != nil {
			return nil, err
		}
	}
	if len(opts.Directories) > 0 {
		if err := b.Apply(fs.Layer{Name: "added directories", Entries: directories(opts.Directories)}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// directories returns entries of a layer that has directories alone.
func directories(paths []string) layerindex.Entries {
	return func(yield func(*layerindex.Entry) bool) {
		for _, p := range paths {
			if !yield(&layerindex.Entry{Name: p, Type: layerindex.TypeDir, Mode: 0o755}) {
				return
			}
		}
	}
}

// repeats says whether a layer is the one below it once more.
func repeats(layers []*Layer, i int) bool { return i > 0 && layers[i] == layers[i-1] }

// sumEntries returns how many entries of the layers can have names of their own.
// It refuses too many before anything is made of the first one.
func sumEntries(layers []*Layer, budget *layerindex.Budget) (names int, err error) {
	entries := 0
	seen := map[*Layer]bool{}
	for i, l := range layers {
		n := l.Index.NumEntries()
		if !repeats(layers, i) {
			if n > layerindex.MaxEntries-entries {
				return 0, layerError(l.Digest(), fmt.Errorf("%w: more than %d entries in all layers", layerindex.ErrEntries, layerindex.MaxEntries))
			}
			entries += n
		}
		if seen[l] {
			continue
		}
		seen[l] = true
		names += n
		if l.Index.OnDisk() {
			continue
		}
		if err := budget.Take(l.Index.EncodedSize()); err != nil {
			return 0, layerError(l.Digest(), err)
		}
	}
	return names, nil
}

// listed are the entries of layers, read ahead of what is being merged.
type listed struct {
	layers []*Layer
	lists  []chan listResult // nil for a layer that repeats the one below
	ahead  int64             // bytes that they may take
	room   *semaphore.Weighted
	group  sync.WaitGroup
}

type listResult struct {
	list *layerindex.Listing
	err  error
}

// listAhead begins to read the entries of the layers, in their order. What they
// take is counted in budget, each layer once.
func listAhead(ctx context.Context, layers []*Layer, budget *layerindex.Budget, ahead int64) *listed {
	p := &listed{layers: layers, lists: make([]chan listResult, len(layers)), ahead: ahead, room: semaphore.NewWeighted(ahead)}
	for i := range layers {
		if !repeats(layers, i) {
			p.lists[i] = make(chan listResult, 1)
		}
	}
	p.group.Go(func() {
		seen := map[*Layer]bool{}
		for i, l := range layers {
			if p.lists[i] == nil {
				continue
			}
			if p.room.Acquire(ctx, p.need(i)) != nil {
				return // merging has ended
			}
			count := budget
			if seen[l] {
				count = nil
			}
			seen[l] = true
			p.group.Go(func() {
				list, err := l.Index.List(ctx, count)
				p.lists[i] <- listResult{list, err}
			})
		}
	})
	return p
}

// need is the share of what is read ahead that a layer's entries take.
func (p *listed) need(i int) int64 {
	return min(p.layers[i].Index.ListedSize(), p.ahead)
}

// of returns the entries of a layer. It waits for them, or reads them now if the
// layer repeats the one below.
func (p *listed) of(ctx context.Context, i int, now bool) (*layerindex.Listing, error) {
	if now {
		return p.layers[i].Index.List(ctx, nil)
	}
	select {
	case r := <-p.lists[i]:
		return r.list, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release says that the entries of a layer have been merged.
func (p *listed) release(i int) {
	if p.lists[i] != nil {
		p.room.Release(p.need(i))
	}
}

// wait waits until no list is being read any more.
func (p *listed) wait() { p.group.Wait() }
