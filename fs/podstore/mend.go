package podstore

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mend makes what a store must have, and removes what processes have left that were killed.
// The store is locked. Only files that this package makes are removed, by their names, and
// no directory with something else in it: an engine may have mounted there.
func (s *Store) mend(ctx context.Context, l *lists) error {
	for _, dir := range []string{imagesDir, layersDir, overlayDir, linksDir, mountsDir} {
		if err := mkdir(s.path(dir)); err != nil {
			return err
		}
	}
	if err := s.mendLists(ctx, l); err != nil {
		return err
	}
	s.sweepTemps(s.dir, s.path(imagesDir), s.path(layersDir), s.path(linksDir))
	for i := range l.images {
		if err := s.makeLayers(&l.images[i]); err != nil {
			return err
		}
	}
	s.removeLayers(l)
	s.removeFiles(l)
	return nil
}

// mendLists makes the lists, and takes off that of layers those of no image. An engine that
// finds no list takes the store for an empty one, and one that may not write there cannot
// make the lock files.
func (s *Store) mendLists(ctx context.Context, l *lists) error {
	known := map[string]bool{}
	for i := range l.images {
		for _, id := range layerIDs(l.images[i].ID, l.images[i].Flags.Ours.Layers) {
			known[id] = true
		}
	}
	kept := slices.DeleteFunc(slices.Clone(l.layers), func(r layerRecord) bool { return !known[r.ID] })
	if len(kept) < len(l.layers) || !isFile(s.layersFile()) {
		l.layers = kept
		if err := s.writeLayers(ctx, l); err != nil {
			return err
		}
	}
	if !isFile(s.imagesFile()) {
		return s.writeImages(ctx, l)
	}
	return nil
}

func isFile(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular()
}

// sweepTemps removes temporary files: the store is locked, so nobody writes one.
func (s *Store) sweepTemps(dirs ...string) {
	for _, dir := range dirs {
		for _, e := range entriesOf(dir) {
			if strings.HasPrefix(e.Name(), tempPrefix) {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
}

func entriesOf(dir string) []fs.DirEntry {
	entries, _ := os.ReadDir(dir) // what cannot be read is left
	return entries
}

// removeLayers removes the directories of layers that no list has, and the short names that
// lead nowhere.
func (s *Store) removeLayers(l *lists) {
	for _, e := range entriesOf(s.path(overlayDir)) {
		dir := s.path(overlayDir, e.Name())
		if !isID(e.Name()) {
			continue
		}
		s.sweepTemps(dir)
		if hasLayer(l.layers, e.Name()) {
			continue
		}
		_ = os.Remove(s.path(linksDir, shortName(e.Name())))
		for _, name := range []string{"link", "diff", "merged", "work", "empty"} { // the last three are engines'
			_ = os.Remove(filepath.Join(dir, name))
		}
		_ = os.Remove(dir)
	}
	for _, e := range entriesOf(s.path(linksDir)) {
		path := s.path(linksDir, e.Name())
		to, err := os.Readlink(path)
		if err == nil && !hasLayer(l.layers, filepath.Base(filepath.Dir(to))) {
			_ = os.Remove(path)
		}
	}
}

// removeFiles removes manifests and configs of images that the list does not have.
func (s *Store) removeFiles(l *lists) {
	for _, e := range entriesOf(s.path(imagesDir)) {
		dir := s.path(imagesDir, e.Name())
		if !isID(e.Name()) {
			continue
		}
		at := slices.IndexFunc(l.images, func(r imageRecord) bool { return r.ID == e.Name() })
		known := map[string]bool{}
		if at >= 0 {
			for _, key := range l.images[at].Files {
				known[fileName(key)] = true
			}
		}
		for _, file := range entriesOf(dir) {
			if !known[file.Name()] && !file.IsDir() {
				_ = os.Remove(filepath.Join(dir, file.Name()))
			}
		}
		_ = os.Remove(dir) // not while there is something in it
	}
}
