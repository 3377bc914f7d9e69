package podstore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Images returns the images of the store, in the order of their names.
func (s *Store) Images(ctx context.Context) ([]*Image, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	records, err := readList[imageRecord](s.imagesFile())
	if err != nil {
		return nil, err
	}
	all := make([]*Image, len(records))
	for i := range records {
		all[i] = records[i].image()
	}
	slices.SortStableFunc(all, func(a, b *Image) int {
		return cmp.Or(slices.Compare(a.Names, b.Names), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Add adds an image, or gives one that is there the names and files of this one as well. The
// caller holds it (see Hold) and has mounted it.
func (s *Store) Add(ctx context.Context, img *Image) error {
	return s.change(ctx, func(l *lists) error {
		added := *img
		added.Added = time.Now().UTC().Truncate(time.Second)
		at := slices.IndexFunc(l.images, func(r imageRecord) bool { return r.ID == img.ID })
		if at >= 0 {
			old := &l.images[at]
			added.Added = old.Flags.Ours.Added
			added.Names = append(slices.Clone(img.Names), slices.DeleteFunc(slices.Clone(old.Names), func(name string) bool { return slices.Contains(img.Names, name) })...)
			added.inside = cmp.Or(img.inside, old.Flags.Ours.Inside)
		}
		record := added.record()
		for i := range l.images {
			other := &l.images[i]
			other.Names = slices.DeleteFunc(other.Names, func(name string) bool { return slices.Contains(record.Names, name) })
		}
		if err := s.makeLayers(&record); err != nil {
			return err
		}
		layers := added.layers()
		l.layers = append(slices.DeleteFunc(l.layers, func(old layerRecord) bool { return hasLayer(layers, old.ID) }), layers...)
		if err := s.writeLayers(ctx, l); err != nil {
			return err
		}
		if err := s.writeFiles(&added); err != nil {
			return err
		}
		if at >= 0 {
			l.images[at] = record
		} else {
			l.images = append(l.images, record)
		}
		return s.writeImages(ctx, l)
	})
}

// Remove removes an image by its ID. The caller holds it, and unmounts it afterwards: no
// engine begins to use it from now on. That it is not there is no error.
func (s *Store) Remove(ctx context.Context, id string) error {
	return s.change(ctx, func(l *lists) error {
		n := len(l.images)
		l.images = slices.DeleteFunc(l.images, func(r imageRecord) bool { return r.ID == id })
		if len(l.images) == n {
			return nil
		}
		if err := s.writeImages(ctx, l); err != nil {
			return err
		}
		return s.mend(ctx, l) // what is left of it is nobody's
	})
}

// Abandoned returns the top layers that processes have left mounted, or with a directory to
// mount on, that were killed before they had added the image or after they had removed it.
// Each is held: the caller unmounts it, if it is mounted, and releases it.
func (s *Store) Abandoned(ctx context.Context) (held []*Held, err error) {
	err = s.change(ctx, func(l *lists) error {
		entries, err := os.ReadDir(s.path(mountsDir))
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, e := range entries {
			layer := strings.TrimSuffix(e.Name(), lockSuffix)
			if seen[layer] || !isID(layer) || hasLayer(l.layers, layer) {
				continue
			}
			seen[layer] = true
			if h := s.tryHold(layer); h != nil {
				held = append(held, h)
			}
		}
		return nil
	})
	return held, err
}

// Mountpoint returns where the image that is held is mounted.
func (h *Held) Mountpoint() string { return h.store.Mountpoint(h.layer) }

// MakeMountpoint makes the directory that the image is mounted on, if it is missing.
func (h *Held) MakeMountpoint() error {
	if err := os.Mkdir(h.Mountpoint(), 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// isID reports whether a name is the ID of an image or layer.
func isID(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// makeLayers makes the directories of an image's layers, or what is missing of them.
func (s *Store) makeLayers(r *imageRecord) error {
	o := &r.Flags.Ours
	for _, layer := range layerIDs(r.ID, o.Layers) {
		dir := s.path(overlayDir, layer)
		if err := mkdir(dir); err != nil {
			return err
		}
		diff := filepath.Join(dir, "diff")
		if layer == r.Layer {
			to := s.Mountpoint(layer)
			if o.Inside != "" {
				to += "/" + o.Inside + "/.."
			}
			if err := symlink(to, diff); err != nil {
				return err
			}
		} else if err := mkdir(diff); err != nil {
			return err
		}
		short := shortName(layer)
		if err := symlink(filepath.Join("..", layer, "diff"), s.path(linksDir, short)); err != nil {
			return err
		}
		link := filepath.Join(dir, "link")
		if text, err := os.ReadFile(link); err == nil && string(text) == short {
			continue
		}
		if err := writeFile(link, []byte(short)); err != nil {
			return err
		}
	}
	return nil
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// symlink makes a symbolic link, or has one that is there lead elsewhere.
func symlink(to, at string) error {
	if there, err := os.Readlink(at); err == nil && there == to {
		return nil
	}
	temp := filepath.Join(filepath.Dir(at), tempPrefix+"link")
	_ = os.Remove(temp) // of a process that was killed: the store is locked
	if err := os.Symlink(to, temp); err != nil {
		return err
	}
	return os.Rename(temp, at)
}

// writeFiles writes manifest and config, unless they are there.
func (s *Store) writeFiles(img *Image) error {
	dir := s.path(imagesDir, img.ID)
	if err := mkdir(dir); err != nil {
		return err
	}
	for key, content := range img.files {
		path := filepath.Join(dir, fileName(key))
		if there, err := os.ReadFile(path); err == nil && string(there) == string(content) {
			continue
		}
		if err := writeFile(path, content); err != nil {
			return err
		}
	}
	return nil
}
