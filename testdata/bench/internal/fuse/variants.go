package fuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// cacheSizeFlag has room for all images, and for their files once more.
	cacheSizeFlag = "--cache-size=40G"
	// uringParameter says whether the kernel offers FUSE over io_uring.
	uringParameter = "/sys/module/fuse/parameters/enable_uring"
)

// A variant is imgfs with other flags or another environment.
type variant struct {
	label       string
	flags       []string // of imgfs mount
	environment []string
	fast        string // the fast path that it is about, as imgfs stats names it
	uring       bool   // whether the kernel is to offer FUSE over io_uring
}

// variants are what is measured of imgfs, the default first.
var variants = []variant{
	{},
	{label: "passthrough", flags: []string{"--passthrough=on"}, fast: passthrough},
	{label: "no passthrough", flags: []string{"--passthrough=off"}},
	{label: "io_uring", flags: []string{"--io-uring=on"}, fast: "io-uring", uring: true},
}

const passthrough = "passthrough"

// parseVariant reads what -also is followed by.
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
	v.uring = slices.ContainsFunc(v.flags, func(f string) bool { return strings.HasPrefix(f, "--io-uring") && f != "--io-uring=off" })
	return v, nil
}

// imgfsAs is a variant as one of the systems.
func (b *bench) imgfsAs(v variant) *system {
	s := &system{name: strings.TrimSpace(nameImgfs + " " + v.label), mine: true, variant: v}
	s.title = "`" + strings.Join(slices.Concat(v.environment, []string{"imgfs mount"}, v.flags), " ") + "`"
	if v.uring {
		s.title += ", with " + uringParameter + " Y meanwhile"
		s.before = b.offerUring
	}
	s.prepare = func(img *image) error { return b.fetch(img, b.cacheOf(s, img)) }
	s.mount = func(img *image, dir string) (*daemon, error) { return b.serveImage(img, b.cacheOf(s, img), dir, v) }
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
	_, err := b.output(b.imgfs, "index", "--fetch", "--quiet", cacheSizeFlag, "--cache-dir", cache, b.reference(img))
	return err
}

// serveImage mounts an image with imgfs; wrap is the command that starts it.
func (b *bench) serveImage(img *image, cache, dir string, v variant, wrap ...string) (*daemon, error) {
	args := append(wrap, b.imgfs, "mount", "--foreground", "--quiet", cacheSizeFlag, "--cache-dir", cache)
	return b.serve(dir, v.environment, append(append(args, v.flags...), b.reference(img), dir)...)
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
	b.stops = append(b.stops, undo)
	return undo, nil
}

// A mountStats is what imgfs stats --json tells of a mount, as far as it is of
// interest here.
type mountStats struct {
	Total *struct {
		Asked int64
	}
	Contents struct {
		ReadBytes int64
	}
	FastPaths []struct {
		Name   string
		Active bool
		Why    string
	}
}

func (b *bench) stats(m *mounted) (mountStats, error) {
	var s mountStats
	out, err := b.output(b.imgfs, "stats", "--json", m.root)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("imgfs stats: %w", err)
	}
	if s.Total == nil {
		return s, errors.New("imgfs stats: no total")
	}
	return s, nil
}

// asked returns how many bytes readers have asked the process for.
func (s *mountStats) asked() int64 {
	if s.Total == nil {
		return 0
	}
	return s.Total.Asked
}

// kept returns how many bytes the process has answered from files that are on
// disk whole.
func (s *mountStats) kept() int64 { return s.Contents.ReadBytes }

// active tells whether a mount uses a fast path, and if not, why.
func (s *mountStats) active(name string) (bool, string) {
	for _, p := range s.FastPaths {
		if p.Name == name {
			return p.Active, p.Why
		}
	}
	return false, "imgfs stats does not name it"
}

// String says which fast paths a mount uses.
func (s *mountStats) String() string {
	var on, off []string
	for _, p := range s.FastPaths {
		if p.Active {
			on = append(on, p.Name)
		} else {
			off = append(off, fmt.Sprintf("%s (%s)", p.Name, p.Why))
		}
	}
	return fmt.Sprintf("active: %s; not: %s", strings.Join(on, ", "), strings.Join(off, ", "))
}

// inspect notes how fast a variant of imgfs can be with an image. It is an
// error if it is not what it is for.
func (b *bench) inspect(s *system, img *image, m *mounted) error {
	stats, err := b.stats(m)
	if err != nil {
		return err
	}
	if on, why := stats.active(s.variant.fast); s.variant.fast != "" && !on {
		return fmt.Errorf("no %s: %s", s.variant.fast, why)
	}
	if s.variant.label == "" {
		b.note("%s of %s: %s", s.name, img.name, &stats)
	}
	return nil
}

// keep has imgfs make a file of the content of the one file of an image, in
// the cache directory of a variant, and tells whether it did.
func (b *bench) keep(s *system, img *image) (bool, error) {
	cache := b.cacheOf(s, img)
	with := variant{flags: []string{"--passthrough=on"}}
	keeper := &system{name: s.name, mine: true, mount: func(img *image, dir string) (*daemon, error) { return b.serveImage(img, cache, dir, with) }}
	kept := func() bool { return hasFile(filepath.Join(cache, "contents"), img.all.bytes) }
	if kept() {
		return true, nil
	}
	m, err := b.mount(keeper, img)
	if err != nil {
		b.logf("%s: no content is kept: %v", s.name, err)
		return false, b.ctx.Err()
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
		return nil // what cannot be read is not there
	})
	return found
}

// eventually waits until something holds, and tells whether it does.
func (b *bench) eventually(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); !holds(); {
		select {
		case <-b.ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return holds()
		}
	}
	return true
}
