package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// A system is one way of showing the tree of an image.
type system struct {
	name, title string
	program     string // that it needs besides imgfs; "" for none
	// prepare makes the files that mounting needs, once for an image; nil if
	// there are none.
	prepare func(img *image) error
	// before, if not nil, is called before mounting, and undo after unmounting.
	before func() (undo func() error, err error)
	mount  func(img *image, dir string) (*runner.Daemon, error)

	mine    bool // imgfs
	variant Variant
	// past is whether reads went past the process that serves, as far as is
	// known.
	past bool
}

// A mounted is a tree that a system shows.
type mounted struct {
	root   string
	dir    string // to unmount; "" for the tree itself
	daemon *runner.Daemon
	undo   func() error // after unmounting, if not nil
}

// names of systems that wishes are about
const (
	nameImgfs   = "imgfs"
	nameSquash  = "squashfuse_ll"
	nameOverlay = "overlayfs"
	nameErofs   = "erofs"
	nameExt4    = "ext4"
	nameBindfs  = "bindfs"
	nameGzip    = "gzip -dc"
)

// allSystems returns the systems to compare, in the order of the table.
func (b *bench) allSystems() ([]*system, error) {
	kind, err := b.fileSystem(b.disk)
	if err != nil {
		return nil, err
	}
	place := "in a file, behind a loop device"
	if b.disk == b.Work {
		place = "the machine's own, " + kind
	}
	if kind != "ext4" {
		b.lacks[nameExt4] = "the trees are on " + kind
	}
	var all []*system
	for _, v := range slices.Concat(variants, b.Also) {
		all = append(all, b.imgfsAs(v))
	}
	all = append(all,
		&system{name: nameSquash, program: "squashfuse_ll", prepare: b.makeSquash, mount: b.mountSquash,
			title: "an uncompressed image; timeout=0: it does not unmount by itself"},
		&system{name: nameOverlay, title: "the kernel's overlayfs on the unpacked tree", mount: b.mountOverlay},
		&system{name: nameErofs, title: "the kernel's erofs, an uncompressed image in a file", program: "mkfs.erofs", prepare: b.makeErofs, mount: mountErofs},
		&system{name: nameExt4, title: "the unpacked tree itself, and what all others have their files on: " + place},
		&system{name: nameBindfs, title: "bindfs of the unpacked tree", program: "bindfs", mount: b.mountBindfs},
	)
	if b.Systems == nil {
		return all, nil
	}
	return slices.DeleteFunc(all, func(s *system) bool { return !slices.Contains(b.Systems, s.name) }), nil
}

func (b *bench) makeSquash(img *image) error {
	if why := runner.Lacking("mksquashfs"); why != "" {
		return errors.New(why)
	}
	return runner.Once(filepath.Join(img.dir, "squashfs"), func(part string) error {
		_, err := b.Output("mksquashfs", img.tree, part, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX")
		return err
	})
}

// mountSquash has the defaults else: many threads, and the kernel keeps names,
// attributes and pages for ever.
func (b *bench) mountSquash(img *image, dir string) (*runner.Daemon, error) {
	return b.Serve(dir, nil, "squashfuse_ll", "-f", "-o", "timeout=0", filepath.Join(img.dir, "squashfs"), dir)
}

// mountOverlay has an empty layer over the tree: with one layer alone overlayfs
// does not mount.
func (b *bench) mountOverlay(img *image, dir string) (*runner.Daemon, error) {
	empty := filepath.Join(b.disk, "empty")
	if err := os.MkdirAll(empty, 0o777); err != nil {
		return nil, err
	}
	return nil, mountError("overlayfs", runner.MountReadOnly("overlay", dir, "overlay", "lowerdir="+empty+":"+img.tree))
}

func (b *bench) makeErofs(img *image) error {
	return runner.Once(filepath.Join(img.dir, "erofs"), func(part string) error {
		_, err := b.Output("mkfs.erofs", "--quiet", part, img.tree)
		return err
	})
}

// mountErofs goes past mount(8), which would put a loop device between.
func mountErofs(img *image, dir string) (*runner.Daemon, error) {
	return nil, mountError("erofs of a file", runner.MountReadOnly(filepath.Join(img.dir, "erofs"), dir, "erofs", ""))
}

func (b *bench) mountBindfs(img *image, dir string) (*runner.Daemon, error) {
	return b.Serve(dir, nil, "bindfs", "-f", "-r", img.tree, dir)
}

func mountError(what string, err error) error {
	if err != nil {
		return fmt.Errorf("mounting %s: %w", what, err)
	}
	return nil
}

// mount shows an image by way of a system.
func (b *bench) mount(s *system, img *image) (*mounted, error) {
	if s.mount == nil {
		return &mounted{root: img.tree}, nil
	}
	dir, err := b.NewDir()
	if err != nil {
		return nil, err
	}
	m := &mounted{root: dir, dir: dir}
	if s.before != nil {
		if m.undo, err = s.before(); err != nil {
			return nil, err
		}
	}
	if m.daemon, err = s.mount(img, dir); err != nil && m.undo != nil {
		err = errors.Join(err, m.undo())
	}
	if err != nil {
		return nil, fmt.Errorf("%w%w", errMount, err)
	}
	return m, nil
}

// errMount marks the error of a system that does not mount.
var errMount = errors.New("")

// coldly mounts an image, drops the kernel's caches, calls do, and unmounts.
func (b *bench) coldly(s *system, img *image, do func(m *mounted) error) error {
	m, err := b.mount(s, img)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err := b.dropCaches(); err != nil {
		return err
	}
	if err := do(m); err != nil {
		return fmt.Errorf("%s: %w", s.name, err) // whatever is mounted is unmounted at the end
	}
	return m.unmount()
}

// everywhere prepares an image for all systems, and reads all of it with each.
// A peer that does not work is left out from then on, and a variant of imgfs that
// the machine does not have.
func (b *bench) everywhere(img *image) error {
	if img.everywhere {
		return nil
	}
	img.everywhere = true
	for _, s := range b.here() {
		b.Logf("preparing %s for %s", img.name, s.name)
		err := b.tried(s, img)
		// Only variants of imgfs with flags may be impossible.
		must := s.mine && s.variant.flags == nil
		if err != nil && (must || b.Ctx.Err() != nil || errors.Is(err, errWrong)) {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err != nil {
			b.leaveOut(s, err)
		}
	}
	return nil
}

// errWrong means that a system shows another tree than the unpacked one.
var errWrong = errors.New("the files are not those that were unpacked")

func (b *bench) tried(s *system, img *image) error {
	if s.program != "" {
		if why := runner.Lacking(s.program); why != "" {
			return errors.New(why)
		}
	}
	if s.prepare != nil {
		if err := s.prepare(img); err != nil {
			return err
		}
	}
	m, err := b.mount(s, img)
	if err != nil {
		return err
	}
	if s.mine {
		err = b.inspect(s, img, m)
	}
	if err == nil {
		err = b.compare(m, img)
	}
	return errors.Join(err, m.unmount())
}

// compare reads all files of a mounted image, and lists it.
func (b *bench) compare(m *mounted, img *image) error {
	r, err := b.Read(m.root, img.all.names, "check", "2")
	if err != nil {
		return err
	}
	shown, err := b.shown(m.root)
	if err != nil {
		return err
	}
	if r.Bytes != img.all.bytes || r.Sum != img.all.sum || shown != img.shown {
		return fmt.Errorf("%s: %w", m.root, errWrong)
	}
	return nil
}

// each calls do with each system, in turns.
func (b *bench) each(img *image, do func(s *system) error) error {
	if err := b.everywhere(img); err != nil {
		return err
	}
	var tasks []runner.Task
	for _, s := range b.here() {
		tasks = append(tasks, runner.Task{Name: s.name, Run: func() error {
			if b.lacks[s.name] != "" {
				return nil
			}
			err := do(s)
			if errors.Is(err, errMount) && s.variant.flags != nil && b.Ctx.Err() == nil {
				// The kernel's offer may have changed meanwhile.
				b.leaveOut(s, err)
				return nil
			}
			return err
		}})
	}
	_, err := b.InTurns(b.Runs, tasks)
	return err
}
