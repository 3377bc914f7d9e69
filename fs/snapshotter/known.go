package snapshotter

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
)

// Known returns the images that a root has chains of, each once, whichever process keeps
// the root. Of one that is not there, and of records that cannot be read, it returns none.
func Known(root string) ([]Image, error) {
	dirs, err := os.ReadDir(filepath.Join(root, chainsDir))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Image
	seen := make(map[Image]bool)
	for _, e := range dirs {
		r, err := readRecord(filepath.Join(root, chainsDir, e.Name(), recordName))
		if err != nil {
			continue // its chain goes, or is lost
		}
		for _, src := range r.Sources {
			if src.valid() && !seen[src.Image] {
				seen[src.Image] = true
				all = append(all, src.Image)
			}
		}
	}
	return all, nil
}
