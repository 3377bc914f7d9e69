package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

const (
	// MaxLayers is how many layers a tree may have: docker takes 127.
	MaxLayers = 1 << 12
	// ctxEntries is how many entries are merged between two looks at the context.
	ctxEntries = 1 << 8
	// roomEntries is how many are looked at here and there, which brings several pages of
	// memory each, between two looks at the room.
	roomEntries = 1 << 5
)

// Merge makes one tree of layers, the base first. The same layers give the
// same tree with the same inode numbers. The package documentation has the
// rules. It ends with ctx.
//
// A layer that no rule gives a meaning to is refused: the error is an
// *EntryError that wraps one of the reasons in this package.
func Merge(ctx context.Context, layers []Layer) (*Tree, error) {
	if err := checkLayers(len(layers)); err != nil {
		return nil, err
	}
	all, once, seen := 0, 0, map[string]bool{}
	for _, l := range layers {
		if l.Count < 0 || l.Count > layerindex.MaxEntries-all {
			return nil, tooManyEntries(l.Name)
		}
		all += l.Count
		if !seen[l.Name] {
			once += l.Count
		}
		seen[l.Name] = true
	}
	b, err := NewBuilder(ctx, &BuilderOptions{Names: once})
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if err := b.Apply(l); err != nil {
			return nil, err
		}
	}
	return b.Tree()
}

func tooManyEntries(layer string) error {
	return fmt.Errorf("layer %s: %w: more than %d entries in all layers", layer, layerindex.ErrEntries, layerindex.MaxEntries)
}

// A Builder makes one tree of layers that come one after the other, the base
// first. It is used by one goroutine.
type Builder struct {
	// Inodes and links that fall out of the tree stay where they are,
	// unreachable, until Tree: hiding a directory costs the same whatever it
	// holds.
	//
	// A directory's inode has in off its parent's inode, in size the length of
	// its path and in nlink the number of its set of names.

	ctx      context.Context    // of the one call that merges
	budget   *layerindex.Budget // nil: no bound
	steps    int64              // to resolve names, so far
	maxSteps int64
	count    int // entries, so far

	inodes  paged[inode] // 0 is no inode
	root    uint32
	links   linkTable
	sets    setTable
	dirSets uint32     // sets of names so far
	targets textWriter // of symlinks
	sources []source
	extras  []extra    // what few inodes have; 0 is none
	sparse  [][]extent // of sparse files
	// merged has, by position in extras, the xattrs that are of several entries.
	merged map[uint32][]layerindex.Xattr

	room     Room
	survey   *surveyor // nil: there is none
	surveyed *Survey   // what it has made in the end

	// Of the layer that is being applied:
	layer    uint16
	reserved map[string]uint32 // inodes by reserved path
	// fromBelow says that a hard link was bound by what lower layers have: it
	// may mean something else when the same layer lies below.
	fromBelow bool

	// The directory of the last entry: tars are grouped by directory.
	lastPath string
	last     uint32 // 0 if not known
}

// BuilderOptions are the choices of NewBuilder.
type BuilderOptions struct {
	// Budget counts what names, targets, attributes and inodes take, and
	// bounds it. Default: no bound.
	Budget *layerindex.Budget
	// Names is how many entries with names of their own there will be, for the
	// room that they need. Default: not known.
	Names int
	// Survey says that a Survey is wanted, which Builder.Survey returns. It takes about
	// as much memory as the tree, and more for what layers replace and hide; Budget
	// counts it. Default: none.
	Survey bool
	// Room is where large arrays are put that are kept as long as the tree, which then is as
	// large as is needed while it is built. Default: the heap.
	Room Room
}

// NewBuilder returns a builder of a tree without layers. Building ends with
// ctx. nil options are the defaults.
func NewBuilder(ctx context.Context, opts *BuilderOptions) (*Builder, error) {
	if opts == nil {
		opts = &BuilderOptions{}
	}
	b := &Builder{
		ctx: ctx, budget: opts.Budget, maxSteps: maxImageSteps,
		links:  newLinkTable(opts.Room, &textWriter{room: opts.Room}),
		sets:   newSetTable(opts.Budget),
		extras: make([]extra, 1),
		merged: make(map[uint32][]layerindex.Xattr),
	}
	b.room, b.inodes.room, b.targets.room = opts.Room, opts.Room, opts.Room
	b.inodes.push(inode{})
	var err error
	if b.root, err = b.newDir(0, 0); err != nil {
		return nil, err
	}
	b.inodes.at(b.root).off = int64(b.root)
	b.links.reserve(opts.Names)
	if opts.Survey {
		if b.survey, err = newSurveyor(b, opts.Names); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func checkLayers(n int) error {
	if n > MaxLayers {
		return fmt.Errorf("%w: %d layers, more than %d", ErrTooLarge, n, MaxLayers)
	}
	return nil
}

// Repeat adds the layer that was applied last once more, if that changes
// nothing: Apply is not to be called then. It reports false if hard links of
// the layer may mean something else now.
func (b *Builder) Repeat(name string, content Content) bool {
	if b.fromBelow || len(b.sources) == 0 || len(b.sources) >= MaxLayers {
		return false
	}
	b.sources = append(b.sources, source{name, content})
	if b.survey != nil {
		b.survey.repeat()
	}
	return true
}

// Apply adds a layer on top of those before: first it takes away what the layer
// hides of the lower ones, then it adds what the layer has. So whiteouts never
// act on their own layer, wherever they stand in it. It looks at nothing of the
// layer but Content once it has returned. After an error nothing may be called any
// more.
func (b *Builder) Apply(l Layer) error {
	if err := checkLayers(len(b.sources) + 1); err != nil {
		return err
	}
	b.layer = uint16(len(b.sources))
	b.sources = append(b.sources, source{l.Name, l.Content})
	b.sets.begin(l.Stable)
	if b.survey != nil {
		b.survey.begin()
	}
	if b.layer > 0 {
		if err := b.hideAll(l); err != nil {
			return err
		}
	}
	b.last, b.reserved, b.fromBelow = 0, nil, false
	for e := range l.Entries {
		err := b.tick()
		if err == nil {
			err = b.add(e)
		}
		switch {
		case b.ctx.Err() != nil:
			return b.ctx.Err()
		case errors.Is(err, layerindex.ErrEntries):
			return tooManyEntries(l.Name)
		case err != nil:
			return &EntryError{Layer: l.Name, Name: e.Name, Err: err}
		}
	}
	if b.survey != nil {
		return b.survey.end()
	}
	return nil
}

// tick counts an entry, and looks now and then at what ends merging.
func (b *Builder) tick() error {
	if b.count++; b.count > layerindex.MaxEntries {
		return layerindex.ErrEntries
	}
	if err := b.checkSteps(); err != nil {
		return err
	}
	if b.count%ctxEntries == 0 {
		if b.room != nil {
			b.room.Check()
		}
		return b.ctx.Err()
	}
	return nil
}

func (b *Builder) checkSteps() error {
	if b.steps > b.maxSteps {
		return fmt.Errorf("%w: more than %d in all layers", ErrSteps, b.maxSteps)
	}
	return nil
}

// hideAll takes away what the whiteouts and opaque markers of a layer hide.
func (b *Builder) hideAll(l Layer) error {
	marked := l.Marked
	if marked == nil {
		marked = l.Entries
	}
	n := 0
	for e := range marked {
		if n++; n%ctxEntries == 0 && b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		if !strings.Contains(e.Name, WhiteoutPrefix) {
			continue
		}
		var hidden error
		if p, err := placeOf(e.Name); err == nil {
			hidden = b.hide(p)
		}
		if err := cmp.Or(hidden, b.checkSteps()); err != nil {
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
			return &EntryError{Layer: l.Name, Name: e.Name, Err: err}
		}
	}
	return nil
}

// hide takes away what a whiteout or an opaque marker hides. What leads there
// must be directories: through a symlink nothing is hidden.
func (b *Builder) hide(p place) error {
	if p.kind != kindWhiteout && p.kind != kindOpaque {
		return nil
	}
	dir, ok := b.findDir(p.dir)
	switch {
	case !ok:
	case p.kind == kindOpaque:
		b.inodes.at(dir).nlink = b.newSet()
		if b.survey != nil {
			return b.survey.empty(dir)
		}
	default:
		if l := b.links.find(b.inodes.at(dir).nlink, p.base); l != nil {
			l.ino = 0
			if b.survey != nil {
				return b.survey.hide(dir, p.base)
			}
		}
	}
	return nil
}

// add adds an entry, if its name is not a whiteout's.
func (b *Builder) add(e *layerindex.Entry) error {
	p, err := placeOf(e.Name)
	if err != nil {
		return err
	}
	switch p.kind {
	case kindRoot:
		if e.Type != layerindex.TypeDir {
			return fmt.Errorf("%w: the root must be a directory", ErrEntry)
		}
		return b.setAttr(b.root, e)
	case kindReserved:
		return b.addReserved(p.dir, e)
	case kindEntry:
		dir, err := b.makeDirs(p.dir)
		if errors.Is(err, errReserved) {
			return nil
		} else if err != nil {
			return err
		}
		return b.addTo(dir, p.base, e)
	}
	return nil
}

// addTo adds an entry as a name in a directory, in place of what had the name.
// Only a directory in place of a directory keeps what is in it.
func (b *Builder) addTo(dir uint32, name string, e *layerindex.Entry) error {
	length, err := b.pathLen(dir, name)
	if err != nil {
		return err
	}
	switch e.Type {
	case layerindex.TypeLink:
		return b.addLink(dir, name, e)
	case layerindex.TypeDir:
		ino, _ := b.find(dir, name)
		if ino == 0 || !b.inodes.at(ino).isDir() {
			if ino, err = b.newDir(dir, length); err != nil {
				return err
			}
		}
		if err := b.setAttr(ino, e); err != nil {
			return err
		}
		return b.put(dir, name, ino)
	}
	ino, err := b.newInode(e)
	if err != nil {
		return err
	}
	return b.put(dir, name, ino)
}

// addReserved keeps an entry with a reserved path for the hard links of this
// layer. It changes nothing that is shown.
func (b *Builder) addReserved(path string, e *layerindex.Entry) error {
	var ino uint32
	var err error
	switch e.Type {
	case layerindex.TypeDir:
		return nil
	case layerindex.TypeLink:
		if _, _, ino, err = b.linkTarget(e.Linkname); err == nil {
			err = b.addAttr(ino, e)
		}
	default:
		ino, err = b.newInode(e)
	}
	if err != nil {
		return err
	}
	if err := b.budget.Take(reservedCost + int64(len(path))); err != nil {
		return err
	}
	if b.reserved == nil {
		b.reserved = make(map[string]uint32)
	}
	b.reserved[strings.Clone(path)] = ino
	return nil
}

// addLink adds one more name of an inode.
func (b *Builder) addLink(dir uint32, name string, e *layerindex.Entry) error {
	inDir, inName, ino, err := b.linkTarget(e.Linkname)
	if err != nil {
		return err
	}
	if inDir == dir && inName == name {
		return fmt.Errorf("%w %q is the link itself", ErrLinkTarget, e.Linkname)
	}
	// The name must be free before it can be a link: what was there is gone,
	// and the target must not be in it.
	if old, _ := b.find(dir, name); inDir != 0 && b.inodes.at(old).isDir() && b.within(inDir, old) {
		return fmt.Errorf("%w %q is below the link itself", ErrLinkTarget, e.Linkname)
	}
	if err := b.addAttr(ino, e); err != nil {
		return err
	}
	return b.put(dir, name, ino)
}

// linkTarget finds what a hard link's target is at this position: any layer's,
// and through symlinks of any layer. inDir is 0 for a reserved path.
func (b *Builder) linkTarget(target string) (inDir uint32, inName string, ino uint32, err error) {
	path, _ := clean(target)
	if ino, ok := b.reserved[path]; ok {
		return 0, "", ino, nil
	}
	dirPath, name := split(path)
	dir, err := b.walk(dirPath, b.stepFind)
	if err != nil {
		return 0, "", 0, fmt.Errorf("%w %q: %w", ErrLinkTarget, target, err)
	}
	ino, layer := b.find(dir, name)
	b.fromBelow = b.fromBelow || layer != b.layer
	switch {
	case path == "" || b.inodes.at(ino).isDir():
		return 0, "", 0, fmt.Errorf("%w %q is a directory", ErrLinkTarget, target)
	case ino == 0:
		return 0, "", 0, fmt.Errorf("%w %q: %w", ErrLinkTarget, target, syscall.ENOENT)
	}
	return dir, name, ino, nil
}

// within says whether dir is ancestor or below it.
func (b *Builder) within(dir, ancestor uint32) bool {
	for dir != ancestor && dir != b.root {
		b.steps++
		dir = uint32(b.inodes.at(dir).off)
	}
	return dir == ancestor
}
