package podstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of what is in a store.
const (
	markerName = "imgfs-store.json"
	imagesDir  = "overlay-images"
	layersDir  = "overlay-layers"
	overlayDir = "overlay"
	linksDir   = "overlay/l"
	mountsDir  = "mounts"
	lockSuffix = ".lock"
	tempPrefix = ".imgfs-"
)

// Errors of Create and Open. They come wrapped, with the directory's name.
var (
	// ErrNoStore: there is no such directory, or it is empty.
	ErrNoStore = errors.New("there is no image store of imgfs")
	// ErrForeign: the directory is something else. Nothing in it is touched.
	ErrForeign = errors.New("it is not an image store of imgfs")
	// ErrUnsafe: others than this user can change the directory.
	ErrUnsafe = errors.New("others can change it")
	// ErrVersion: a newer imgfs has made the store.
	ErrVersion = errors.New("its format is newer than this imgfs")
)

// formatVersion is that of a store. A store of another one is left alone.
const formatVersion = 1

// A marker is the file by which a store is known.
type marker struct {
	About   string `json:"about"`
	Version int    `json:"version"`
}

const markerAbout = "An additional image store of containers/storage whose images imgfs mounts: imgfs podman ls"

// A Store is a directory with an additional image store. Its methods may be called by
// several goroutines and processes at a time.
type Store struct {
	dir string // absolute, and without symbolic links
}

// Dir returns the directory: what additionalimagestores of storage.conf has to name.
func (s *Store) Dir() string { return s.dir }

// Mountpoint returns where the image is mounted whose top layer is given.
func (s *Store) Mountpoint(layer string) string { return filepath.Join(s.dir, mountsDir, layer) }

// Locate returns the directory of the store and the layer that are in the path of a mountpoint.
// It does not look whether there is such a store.
func Locate(mountpoint string) (dir, layer string, ok bool) {
	dir, layer = filepath.Split(mountpoint)
	dir = filepath.Clean(dir)
	if filepath.Base(dir) != mountsDir || layer == "" {
		return "", "", false
	}
	return filepath.Dir(dir), layer, true
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}
func (s *Store) imagesFile() string { return s.path(imagesDir, "images.json") }
func (s *Store) layersFile() string { return s.path(layersDir, "layers.json") }

// Open returns the store in a directory. It changes nothing.
func Open(dir string) (*Store, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoStore)
	}
	if err != nil {
		return nil, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, err
	}
	s := &Store{real}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return s, nil
}

// Create returns the store in a directory, which it makes if it is missing or empty. What a
// process has left half done that was killed is mended.
func Create(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := Open(dir)
	switch {
	case errors.Is(err, ErrNoStore):
		if s, err = create(ctx, dir); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	return s, s.change(ctx, func(*lists) error { return nil })
}

// create marks an empty directory as a store.
func create(ctx context.Context, dir string) (*Store, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, err
	}
	s := &Store{real}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have been faster.
	if err := s.check(); !errors.Is(err, ErrNoStore) {
		return s, err
	}
	text, err := json.Marshal(marker{About: markerAbout, Version: formatVersion})
	if err != nil {
		return nil, err
	}
	return s, writeFile(s.path(markerName), append(text, '\n'))
}

// check looks whether the directory is a store that this process may use.
func (s *Store) check() error {
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return unix.ENOTDIR
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: it belongs to user %d", ErrUnsafe, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: its mode is %#o", ErrUnsafe, st.Mode&0o7777)
	case strings.ContainsAny(s.dir, ":,\\\n\""):
		// A colon or comma ends a path in the options of overlayfs and of podman.
		return fmt.Errorf("%w: its path has one of : , \\ \" or a newline", fs.ErrInvalid)
	}
	text, err := os.ReadFile(s.path(markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return s.unmarked()
	}
	if err != nil {
		return err
	}
	var m marker
	switch err := json.Unmarshal(text, &m); {
	case err != nil || m.Version < 1:
		return fmt.Errorf("%w: its %s is damaged", ErrForeign, markerName)
	case m.Version > formatVersion:
		return fmt.Errorf("%w (version %d)", ErrVersion, m.Version)
	}
	return nil
}

// unmarked tells an empty directory from one with other things. A process that was killed
// while it made a store has left no more than a temporary file.
func (s *Store) unmarked() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			return fmt.Errorf("%w, and not empty", ErrForeign)
		}
	}
	return ErrNoStore
}

// lock keeps other processes, and goroutines, from changing the store until unlock is
// called.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, dir); err != nil {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}

// writeFile makes a file, which has its name when it is whole and on the disk.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it has another name if all went well
	_, err = f.Write(content)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
