package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A system is one way of showing the tree of an image.
type system struct {
	name, title string
	program     string // that it needs besides imgfs; "" for none
	// prepare makes what mounting needs, once for an image; nil if nothing.
	prepare func(img *image) error
	mount   func(img *image, dir string) (*daemon, error)
	mine    bool // imgfs
	// past is whether reads went past the process that serves, as far as is
	// known.
	past bool
}

// A mounted is a tree that a system shows.
type mounted struct {
	root   string
	dir    string // to unmount; "" for the tree itself
	daemon *daemon
}

// names of systems that wishes are about
const (
	nameImgfs     = "imgfs"
	nameSquash    = "squashfuse_ll"
	nameOverlay   = "overlayfs"
	nameErofs     = "erofs"
	nameUnpacked  = "unpacked"
	nameBindfs    = "bindfs"
	nameGzip      = "gzip -dc"
	cacheSizeFlag = "--cache-size=40G"
)

// A variant is imgfs with other flags or another environment.
type variant struct {
	label       string
	flags       []string // of imgfs mount
	environment []string
}

func parseVariant(text string) (variant, error) {
	label, words, ok := strings.Cut(text, ":")
	v := variant{label: strings.TrimSpace(label)}
	if !ok || v.label == "" {
		return v, errors.New("a label and a colon are needed")
	}
	for _, w := range strings.Fields(words) {
		if strings.HasPrefix(w, "-") {
			v.flags = append(v.flags, w)
		} else if strings.Contains(w, "=") {
			v.environment = append(v.environment, w)
		} else {
			return v, fmt.Errorf("%q is neither a flag nor NAME=VALUE", w)
		}
	}
	return v, nil
}

// allSystems returns what is compared, in the order of the table.
func (b *bench) allSystems() ([]*system, error) {
	own, err := b.output("df", "--output=fstype", filepath.Dir(b.dir))
	if err != nil {
		return nil, err
	}
	if b.work != b.dir {
		if err := os.MkdirAll(b.work, 0o777); err != nil {
			return nil, err
		}
		if own, err = b.output("df", "--output=fstype", b.work); err != nil {
			return nil, err
		}
	}
	fstype := own[strings.LastIndexByte(strings.TrimSpace(own), '\n')+1:]
	all := []*system{b.imgfsAs(variant{})}
	for _, v := range b.also {
		all = append(all, b.imgfsAs(v))
	}
	return append(all,
		&system{name: nameSquash, title: "squashfuse_ll of an uncompressed image (timeout=0)", program: "squashfuse_ll", prepare: b.makeSquash, mount: b.mountSquash},
		&system{name: nameOverlay, title: "the kernel's overlayfs on the unpacked tree", mount: b.mountOverlay},
		&system{name: nameErofs, title: "the kernel's erofs of an uncompressed image, backed by a file", program: "mkfs.erofs", prepare: b.makeErofs, mount: mountErofs},
		&system{name: nameUnpacked, title: "the unpacked tree on the machine's own file system, " + strings.TrimSpace(fstype)},
		&system{name: nameBindfs, title: "bindfs of the unpacked tree", program: "bindfs", mount: b.mountBindfs},
	), nil
}

func (b *bench) imgfsAs(v variant) *system {
	s := &system{name: strings.TrimSpace(nameImgfs + " " + v.label), mine: true}
	s.title = strings.Join(append(v.environment, append([]string{"imgfs mount"}, v.flags...)...), " ")
	s.prepare = func(img *image) error { return b.fetch(img, b.cacheOf(s, img)) }
	s.mount = func(img *image, dir string) (*daemon, error) { return b.serveImage(img, b.cacheOf(s, img), dir, v) }
	return s
}

// cacheOf is the cache directory of a variant of imgfs.
func (b *bench) cacheOf(s *system, img *image) string {
	return filepath.Join(b.dir, strings.ReplaceAll("cache "+s.name+" "+img.name, " ", "-"))
}

// fetch brings an image into a cache directory as the registry has it.
func (b *bench) fetch(img *image, cache string) error {
	_, err := b.output(b.imgfs, "index", "--fetch", "--quiet", cacheSizeFlag, "--cache-dir", cache, b.reference(img))
	return err
}

// serveImage mounts an image with imgfs; wrap is the command that starts it.
func (b *bench) serveImage(img *image, cache, dir string, v variant, wrap ...string) (*daemon, error) {
	args := append(wrap, b.imgfs, "mount", "--foreground", "--quiet", cacheSizeFlag, "--cache-dir", cache)
	return b.serve(dir, v.environment, append(append(args, v.flags...), b.reference(img), dir)...)
}

func (b *bench) makeSquash(img *image) error {
	return once(filepath.Join(img.dir, "squashfs"), func(part string) error {
		_, err := b.output("mksquashfs", img.tree, part, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX")
		return err
	})
}

func (b *bench) mountSquash(img *image, dir string) (*daemon, error) {
	return b.serve(dir, nil, "squashfuse_ll", "-f", "-o", "timeout=0", filepath.Join(img.dir, "squashfs"), dir)
}

func (b *bench) mountOverlay(img *image, dir string) (*daemon, error) {
	empty := filepath.Join(b.dir, "empty")
	if err := os.MkdirAll(empty, 0o777); err != nil {
		return nil, err
	}
	return nil, mountError("overlayfs", syscall.Mount("overlay", dir, "overlay", syscall.MS_RDONLY, "lowerdir="+empty+":"+img.tree))
}

func (b *bench) makeErofs(img *image) error {
	return once(filepath.Join(img.dir, "erofs"), func(part string) error {
		_, err := b.output("mkfs.erofs", "--quiet", part, img.tree)
		return err
	})
}

// mountErofs goes past mount(8), which would put a loop device between.
func mountErofs(img *image, dir string) (*daemon, error) {
	return nil, mountError("erofs of a file", syscall.Mount(filepath.Join(img.dir, "erofs"), dir, "erofs", syscall.MS_RDONLY, ""))
}

func (b *bench) mountBindfs(img *image, dir string) (*daemon, error) {
	return b.serve(dir, nil, "bindfs", "-f", "-r", img.tree, dir)
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
	b.mounts++
	dir := filepath.Join(b.dir, fmt.Sprintf("mnt-%d", b.mounts))
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	d, err := s.mount(img, dir)
	if err != nil {
		return nil, err
	}
	return &mounted{root: dir, dir: dir, daemon: d}, nil
}

// coldly mounts an image, drops what the kernel has cached, has something done,
// and unmounts.
func (b *bench) coldly(s *system, img *image, do func(m *mounted) error) error {
	m, err := b.mount(s, img)
	if err != nil {
		return err
	}
	if err := b.dropCaches(); err != nil {
		return err
	}
	if err := do(m); err != nil {
		return fmt.Errorf("%s: %w", s.name, err) // whatever is mounted is unmounted at the end
	}
	return m.unmount()
}

// everywhere prepares an image for all systems, and reads all of it by way of
// each. A peer that does not work is left out from then on.
func (b *bench) everywhere(img *image) error {
	if img.everywhere {
		return nil
	}
	img.everywhere = true
	for _, s := range b.systems {
		if b.report.Lacks[s.name] != "" {
			continue
		}
		b.logf("preparing %s for %s", img.name, s.name)
		err := b.tried(s, img)
		if err != nil && (s.mine || b.ctx.Err() != nil || errors.Is(err, errWrong)) {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err != nil {
			b.report.Lacks[s.name] = err.Error()
		}
	}
	return nil
}

// errWrong is about a system that shows other bytes than were unpacked.
var errWrong = errors.New("the files have other bytes than those that were unpacked")

func (b *bench) tried(s *system, img *image) error {
	if s.program != "" {
		if _, err := exec.LookPath(s.program); err != nil {
			return fmt.Errorf("%s is not installed", s.program)
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
	r, err := b.read(m.root, img.all.names, "check", 2)
	if err == nil && (r.bytes != img.all.bytes || r.sum != img.all.sum) {
		err = errWrong
	}
	return errors.Join(err, m.unmount())
}

// each has something done with an image by way of each system, in turns that
// do not always begin with the same one.
func (b *bench) each(img *image, do func(s *system) error) error {
	if err := b.everywhere(img); err != nil {
		return err
	}
	for run := range b.runs {
		b.logf("run %d of %d", run+1, b.runs)
		for i := range b.systems {
			s := b.systems[(i+run)%len(b.systems)]
			if b.report.Lacks[s.name] != "" {
				continue
			}
			if err := do(s); err != nil {
				return err
			}
		}
	}
	return nil
}
