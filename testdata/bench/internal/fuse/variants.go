package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

const (
	// cacheSizeFlag has room for all images, and for their files once more.
	cacheSizeFlag = "--cache-size=40G"
	// uringParameter says whether the kernel offers FUSE over io_uring.
	uringParameter = "/sys/module/fuse/parameters/enable_uring"
)

// A Variant is imgfs with other flags or another environment.
type Variant struct {
	label       string
	flags       []string // of imgfs mount
	environment []string
	fast        string // the fast path that it is about, as imgfs stats names it
	uring       bool   // whether the kernel is to offer FUSE over io_uring
}

// variants are the columns of imgfs, the default first.
var variants = []Variant{
	{},
	{label: "passthrough", flags: []string{"--passthrough=on"}, fast: passthrough},
	{label: "no passthrough", flags: []string{"--passthrough=off"}},
	{label: "io_uring", flags: []string{"--io-uring=on"}, fast: "io-uring", uring: true},
}

const passthrough = "passthrough"

// ParseVariant reads what -also is followed by: 'LABEL: WORDS', flags of imgfs
// mount and NAME=VALUE for its environment.
func ParseVariant(text string) (Variant, error) {
	label, words, ok := strings.Cut(text, ":")
	v := Variant{label: strings.TrimSpace(label)}
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
	v.uring = slices.ContainsFunc(v.flags, func(f string) bool { return strings.HasPrefix(f, "--io-uring") && f != "--io-uring=off" })
	return v, nil
}

// imgfsAs is a variant as one of the systems.
func (b *bench) imgfsAs(v Variant) *system {
	s := &system{name: strings.TrimSpace(nameImgfs + " " + v.label), mine: true, variant: v}
	s.title = "`" + strings.Join(slices.Concat(v.environment, []string{"imgfs mount"}, v.flags), " ") + "`"
	if v.uring {
		s.title += ", with " + uringParameter + " Y meanwhile"
		s.before = b.offerUring
	}
	s.prepare = func(img *image) error { return b.fetch(img, b.cacheOf(s, img)) }
	s.mount = func(img *image, dir string) (*runner.Daemon, error) {
		return b.serveImage(img, b.cacheOf(s, img), dir, v)
	}
	return s
}

// cacheOf is the cache directory of a variant of imgfs.
func (b *bench) cacheOf(s *system, img *image) string {
	return filepath.Join(b.disk, strings.ReplaceAll("cache "+s.name+" "+img.name, " ", "-"))
}

// fetch makes a new cache directory and brings an image into it as the registry
// has it.
func (b *bench) fetch(img *image, cache string) error {
	if err := os.RemoveAll(cache); err != nil {
		return err
	}
	_, err := b.Output(b.Imgfs, "index", "--fetch", "--quiet", cacheSizeFlag, "--cache-dir", cache, img.reference)
	return err
}

// serveImage mounts an image with imgfs; wrap is the command that starts it.
func (b *bench) serveImage(img *image, cache, dir string, v Variant, wrap ...string) (*runner.Daemon, error) {
	args := append(wrap, b.Imgfs, "mount", "--foreground", "--quiet", cacheSizeFlag, "--cache-dir", cache)
	return b.Serve(dir, v.environment, append(append(args, v.flags...), img.reference, dir)...)
}

// offerUring has the kernel offer FUSE over io_uring, until the function that
// it returns is called, or the bench ends. Tests that do the same meanwhile hold
// a shared lock on the parameter, as is done here: it stays as long as any does.
func (b *bench) offerUring() (undo func() error, err error) {
	parameter, err := os.Open(uringParameter)
	if err != nil {
		return nil, fmt.Errorf("the kernel has no FUSE over io_uring: %w", err)
	}
	fd := int(parameter.Fd())
	old, err := os.ReadFile(uringParameter)
	if err == nil {
		err = syscall.Flock(fd, syscall.LOCK_SH)
	}
	if err == nil {
		err = os.WriteFile(uringParameter, []byte("Y"), 0)
	}
	if err != nil {
		return nil, errors.Join(err, parameter.Close())
	}
	undo = sync.OnceValue(func() error {
		defer parameter.Close()
		if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			return nil // others need it
		}
		return os.WriteFile(uringParameter, old, 0)
	})
	b.AtEnd(undo)
	return undo, nil
}

// inspect notes the fast paths of a variant of imgfs with an image. It is an error
// if the one that the variant is about is not used.
func (b *bench) inspect(s *system, img *image, m *mounted) error {
	stats, err := b.StatsOf(m.root)
	if err != nil {
		return err
	}
	if on, why := stats.Active(s.variant.fast); s.variant.fast != "" && !on {
		return fmt.Errorf("no %s: %s", s.variant.fast, why)
	}
	if s.variant.label == "" {
		b.Note("%s of %s: %s", s.name, img.name, &stats)
	}
	return nil
}

// keep has imgfs make a file of the content of the one file of an image, in
// the cache directory of a variant, and tells whether it did.
func (b *bench) keep(s *system, img *image) (bool, error) {
	cache := b.cacheOf(s, img)
	with := Variant{flags: []string{"--passthrough=on"}}
	keeper := &system{name: s.name, mine: true, mount: func(img *image, dir string) (*runner.Daemon, error) { return b.serveImage(img, cache, dir, with) }}
	kept := func() bool { return hasFile(filepath.Join(cache, "contents"), img.all.bytes) }
	if kept() {
		return true, nil
	}
	m, err := b.mount(keeper, img)
	if err != nil {
		b.Logf("%s: no content is kept: %v", s.name, err)
		return false, b.Ctx.Err()
	}
	for range 3 {
		if err := b.dropCaches(); err != nil {
			return false, err
		}
		if _, err := b.readAll(m, &img.all, 1); err != nil {
			return false, err
		}
		if b.eventually(b.patience, kept) {
			break
		}
	}
	return kept(), m.unmount()
}

// hasFile reports whether there is a file of a size below a directory.
func hasFile(dir string, size int64) bool {
	found := false
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil && info.Size() == size {
				found = true
			}
		}
		return nil // unreadable files do not count
	})
	return found
}

// eventually waits until something holds, and tells whether it does.
func (b *bench) eventually(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); !holds(); {
		select {
		case <-b.Ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return holds()
		}
	}
	return true
}
