package containersstorage

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
)

const (
	// maxJSON is the largest images.json or layers.json that is read: a layer takes 500
	// bytes of it, an image 2,000.
	maxJSON = 64 << 20
	// maxRecords is how many images, or layers, a store may have.
	maxRecords = 1 << 20
	// maxDocument is the largest manifest or config that is read.
	maxDocument = 16 << 20
	// maxChain is how many layers an image may have.
	maxChain = 4096
)

// A store is one directory of podman's, with the images and layers in it.
type store struct {
	place
	// Each of these is a directory of its own: podman mounts that of the layers
	// over itself.
	images, layers, files *beneath.Dir
}

// drivers are those that keep a layer's files as files, and in which directory. The
// names that are there otherwise are only known.
var drivers = []struct {
	name string
	dir  func(id string) string
}{
	{"overlay", func(id string) string { return id + "/diff" }},
	{"vfs", func(id string) string { return "dir/" + id }},
	{"btrfs", nil}, {"zfs", nil}, {"aufs", nil}, {"devicemapper", nil},
}

// openStore opens a store. If the place names no driver, or one that has nothing
// there, it is the first that has something.
func openStore(p place) (*store, error) {
	open := func(name string) (*beneath.Dir, error) {
		return beneath.Open(filepath.Join(p.root, name), &beneath.Options{Foreign: true})
	}
	names := []string{}
	if p.driver != "" {
		names = append(names, p.driver)
	}
	if p.driver == "" || p.usual {
		for _, d := range drivers {
			names = append(names, d.name)
		}
	}
	s := &store{place: p}
	var err error
	for _, name := range names {
		var failed error
		if strings.ContainsAny(name, "/\x00") {
			return nil, fmt.Errorf("%w: %q is no storage driver", remote.ErrReference, name)
		}
		if s.images, failed = open(name + "-images"); failed == nil {
			s.driver = name
			break
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = failed
		}
	}
	if s.images == nil {
		return nil, err
	}
	if s.layers, err = open(s.driver + "-layers"); err == nil {
		s.files, err = open(s.driver)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *store) close() {
	for _, d := range []*beneath.Dir{s.images, s.layers, s.files} {
		if d != nil {
			d.Close()
		}
	}
}

// dir returns where the files of a layer lie, below files.
func (s *store) dir(id string) (string, error) {
	for _, d := range drivers {
		if d.name == s.driver && d.dir != nil {
			return d.dir(id), nil
		}
	}
	return "", fmt.Errorf("%w: the storage driver is %.50q, and imgfs reads overlay and vfs", remote.ErrUnsupported, s.driver)
}

// An imageRecord is an entry of images.json.
type imageRecord struct {
	ID     string        `json:"id"`
	Digest digest.Digest `json:"digest"`
	Names  []string      `json:"names"`
	Layer  string        `json:"layer"`
	// Digests are those of the documents beside it, by their names.
	Digests map[string]digest.Digest `json:"big-data-digests"`

	store *store
}

// A layerRecord is an entry of layers.json.
type layerRecord struct {
	ID         string        `json:"id"`
	Parent     string        `json:"parent"`
	DiffDigest digest.Digest `json:"diff-digest"`
	DiffSize   int64         `json:"diff-size"`
	TOCDigest  digest.Digest `json:"toc-digest"`

	store *store
}

// readImages returns the images of a store.
func (s *store) readImages() ([]*imageRecord, error) {
	all, err := readRecords[imageRecord](s.images, "images.json")
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(img *imageRecord) bool { return img == nil || !isID(img.ID) })
	for _, img := range all {
		img.store = s
	}
	return all, nil
}

// readLayers returns the layers of a store by their IDs.
func (s *store) readLayers() (map[string]*layerRecord, error) {
	all, err := readRecords[layerRecord](s.layers, "layers.json")
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*layerRecord, len(all))
	for _, l := range all {
		if l != nil && isID(l.ID) {
			l.store = s
			byID[l.ID] = l
		}
	}
	return byID, nil
}

// readRecords reads a file with an array of records. podman replaces such a file by
// renaming another to its name, so what is opened is whole. There may be none.
func readRecords[T any](dir *beneath.Dir, name string) ([]*T, error) {
	content, _, err := dir.ReadFile(name, maxJSON)
	if errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*beneath.RefusedError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, nil
	}
	fail := func(err error) error {
		return fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, dir.Path(name), remote.JSONError(err))
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	start, err := dec.Token()
	if err != nil {
		return nil, fail(err)
	}
	if start == nil {
		return nil, nil
	}
	if start != json.Delim('[') {
		return nil, fail(errors.New("no JSON array"))
	}
	var all []*T
	for dec.More() {
		if len(all) == maxRecords {
			return nil, fail(fmt.Errorf("more than %d entries", maxRecords))
		}
		r := new(T)
		if err := dec.Decode(r); err != nil {
			return nil, fail(err)
		}
		all = append(all, r)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fail(err)
	}
	return all, nil
}

// document returns one of the documents beside an image, by its name.
func (img *imageRecord) document(name string) ([]byte, error) {
	content, _, err := img.store.images.ReadFile(img.ID+"/"+documentFile(name), maxDocument)
	if errors.Is(err, beneath.ErrTooBig) {
		return nil, fmt.Errorf("%w: %w; imgfs reads up to %d bytes", remote.ErrUnsupported, err, maxDocument)
	}
	return content, err
}

// documentFile returns the name of the file of a document.
func documentFile(name string) string {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" && strings.Trim(name, ".") != "" {
		return name
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(name))
}

// isID reports whether a text is the ID of an image or layer. It becomes part of paths.
func isID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}
