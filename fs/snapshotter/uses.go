package snapshotter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// A Use says of a chain which images have it and who needs it.
type Use struct {
	Chain   digest.Digest
	Images  []Image  // that it is the lower part of, the latest one first
	Holders []Holder // active snapshots and those of View that are above it; nil: not known
}

// A Holder is a snapshot that is the root of a container, or a view of one. Names are the
// client's, whatever it likes.
type Holder struct {
	Namespace string // of containerd; "" if whoever made the snapshot is not containerd
	Key       string // what its client calls it: mostly the ID of the container
	View      bool   // nobody writes to it
}

// Locate returns the root and the chain that are in the path of a chain's mountpoint. It does
// not look whether there is such a root.
func Locate(dir string) (root string, id digest.Digest, ok bool) {
	hex, isTree := strings.CutSuffix(dir, "/"+treeName)
	if !isTree || filepath.Base(filepath.Dir(hex)) != chainsDir {
		return "", "", false
	}
	id, err := parseChain("sha256:" + filepath.Base(hex))
	return filepath.Dir(filepath.Dir(hex)), id, err == nil
}

// Uses returns the chains of a root, and what needs them. It takes no lock and waits for
// nobody: another process may keep the root, or none. What could be read is returned with the
// error for the rest.
func Uses(ctx context.Context, root string) (map[digest.Digest]*Use, error) {
	text, err := readRegular(filepath.Join(root, versionName), maxRecord)
	if err != nil {
		return nil, err
	}
	if found := strings.TrimSpace(string(text)); found != version {
		return nil, fmt.Errorf("root %s: it is of version %.20q, and this imgfs knows version %s", root, found, version)
	}
	dirs, err := os.ReadDir(filepath.Join(root, chainsDir))
	if err != nil {
		return nil, err
	}
	all := map[digest.Digest]*Use{}
	var errs []error
	for _, e := range dirs {
		id, err := parseChain("sha256:" + e.Name())
		if err != nil {
			continue // it is none of ours
		}
		r, err := readRecord(filepath.Join(root, chainsDir, e.Name(), recordName))
		if errors.Is(err, iofs.ErrNotExist) {
			continue // it is being made, or removed
		}
		use := &Use{Chain: id}
		for _, src := range r.Sources {
			use.Images = append(use.Images, src.Image)
		}
		all[id] = use
		errs = append(errs, err)
	}
	return all, errors.Join(errors.Join(errs...), addHolders(ctx, root, all))
}

// addHolders notes who needs chains.
func addHolders(ctx context.Context, root string, all map[digest.Digest]*Use) error {
	infos, err := recorded(ctx, filepath.Join(root, databaseName))
	if err != nil {
		return err
	}
	for _, use := range all {
		use.Holders = []Holder{}
	}
	for _, info := range infos {
		if info.Kind == snapshots.KindCommitted {
			continue
		}
		if use := all[chainBelow(infos, info.Parent)]; use != nil {
			use.Holders = append(use.Holders, holderOf(info))
		}
	}
	for _, use := range all {
		slices.SortFunc(use.Holders, func(a, b Holder) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Key, b.Key))
		})
	}
	return nil
}

// chainBelow returns the chain whose mount is below the children of a snapshot; "" if none is.
func chainBelow(infos map[string]snapshots.Info, name string) digest.Digest {
	for range infos { // parents that lead in circles have an end, too
		info, ok := infos[name]
		if !ok {
			return ""
		}
		if id := lazyChain(info); id != "" {
			return id
		}
		name = info.Parent
	}
	return ""
}

// holderOf reads the name that containerd gives to a snapshot: NAMESPACE/NUMBER/KEY.
func holderOf(info snapshots.Info) Holder {
	h := Holder{Key: info.Name, View: info.Kind == snapshots.KindView}
	namespace, rest, _ := strings.Cut(info.Name, "/")
	number, key, ok := strings.Cut(rest, "/")
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		h.Namespace, h.Key = namespace, key
	}
	return h
}

// recorded returns all snapshots of a database that another process may be writing to, by
// their names.
func recorded(ctx context.Context, name string) (infos map[string]snapshots.Info, err error) {
	frozen, err := freeze(ctx, name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil // nothing was ever written
	}
	if err != nil {
		return nil, err
	}
	defer frozen.Close()
	meta, err := storage.NewMetaStore(frozen.path())
	if err != nil {
		return nil, err
	}
	// The library answers a damaged file with a panic, or reads beyond its end.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			infos, err = nil, fmt.Errorf("%s: it is damaged: %v", name, p) // meta has locks that nobody gives back
		} else {
			err = errors.Join(err, meta.Close())
		}
	}()
	infos = map[string]snapshots.Info{}
	err = meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
			infos[info.Name] = info
			return nil
		})
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return infos, nil
}
