package image

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/held"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// An image outlives its process as open files, which another process hands to the next
// one: a record with the documents of the image, the index that the tree was made of for
// each layer, and the files of layers that lie on this machine. Chunks of blobs are not
// among them: those may be fetched again, and held ones would not count in the budget.
// docs/cache-format.md, "Held files".

// A Held is an open file that a successor needs: see Image.Held.
type Held = held.File

// recordName is the name of the record among the files.
const recordName = "image"

// A heldRecord is what the record says. It is written and read by programs of different
// versions.
type heldRecord struct {
	Version int `json:"version"`
	// Asked is the name that was given to Resolve.
	Asked string `json:"asked"`
	// Registry says that the image is in one.
	Registry bool         `json:"registry"`
	Source   *held.Record `json:"source"`
	Layers   []heldLayer  `json:"layers"`
}

// heldVersion is the version of the record.
const heldVersion = 1

// A heldLayer is what the record says of a layer.
type heldLayer struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // of the blob
	// Index is the name of the file of the index that the tree was made of, Key and Use
	// are as in layerState.
	Index string   `json:"index"`
	Key   string   `json:"key,omitempty"`
	Use   IndexUse `json:"use"`
	// Own is the name of the file of the index that the layer is read by, if that is
	// another one.
	Own string `json:"own,omitempty"`
	// Published is where the index is, if it stays there.
	Published *heldPublished `json:"published,omitempty"`
}

type heldPublished struct {
	Repository string `json:"repository"`
	indexrepo.Description
}

// errNotAgain: what has no name cannot be opened by another process.
var errNotAgain = errors.New("the image was not opened by its name")

// Held returns open files with all that is needed to open the image again, by Options.Held,
// as it is now: with the same identity, though everything that it was opened from is gone.
// Nothing of these is asked for then, and no more is read than is needed. The order is that
// of Options.Held as well. The files are the caller's to close; their offsets are shared and
// mean nothing.
//
// While any process has them, none of the indexes is removed from the cache to make room. A
// program that has called Held, and passed the files on, does so again after Reheld.
//
// What lies in a registry, and is no metadata, is not held: see NotHeld for what else is
// not.
func (i *Image) Held() (files []Held, err error) {
	r := i.layers.from
	if r.asked == "" || r.Image == nil || r.Source == nil {
		return nil, errNotAgain
	}
	defer func() {
		if err != nil {
			CloseHeld(files)
			files = nil
		}
	}()
	if err := i.roomToHold(); err != nil {
		return nil, err
	}
	source, blobs, _ := held.Of(r.wholeImage())
	rec := &heldRecord{Version: heldVersion, Asked: r.asked, Registry: r.client != nil, Source: source}
	files = []Held{{Name: recordName}}
	hold := func(name string, x *layerindex.Index) error {
		f, err := indexes.Hold(x)
		if err == nil {
			files = append(files, Held{Name: name, File: f})
		}
		return err
	}
	known := make(map[*Layer]heldLayer)
	for n, l := range i.layers.all {
		layer, ok := known[l]
		if !ok {
			layer = l.held(strconv.Itoa(n))
			was, now := l.holds()
			err := hold(layer.Index, was)
			if err == nil && now != nil {
				layer.Own = "own-" + strconv.Itoa(n)
				err = hold(layer.Own, now)
			}
			if err != nil {
				return files, layerError(l.Digest(), fmt.Errorf("its index cannot be held: %w", err))
			}
			known[l] = layer
		}
		rec.Layers = append(rec.Layers, layer)
	}
	for _, b := range blobs {
		f, err := indexes.Dup(b.File)
		if err != nil {
			return files, err
		}
		files = append(files, Held{Name: b.Name, File: f})
	}
	files[0].File, err = held.WriteFile("imgfs-"+recordName, rec)
	return files, err
}

// spareFiles is how many files more a process may have open at the least when it holds all of
// an image.
const spareFiles = 64

// roomToHold returns an error if this process may not have as many files open as Held can
// open: with none left it could do nothing else.
func (i *Image) roomToHold() error {
	most, open := openFiles()
	layers := make(map[*Layer]bool)
	for _, l := range i.layers.all {
		layers[l] = true
	}
	// Of each layer two indexes, and the file of the blob twice.
	if need := open + 4*len(layers) + spareFiles; most > 0 && need > most {
		return fmt.Errorf("%d open files are needed for %d layers, and %d are allowed: %w", need, len(layers), most, syscall.EMFILE)
	}
	return nil
}

// held describes a layer that has a number among the files.
func (l *Layer) held(number string) heldLayer {
	s := l.opened
	h := heldLayer{Digest: l.Digest(), DiffID: l.DiffID, Size: l.Size(), Index: "index-" + number, Key: s.key, Use: s.use}
	if x := s.published; x != nil {
		h.Published = &heldPublished{x.Repository, x.Description}
	}
	return h
}

// holds returns the index that the tree was made of, and the one that the layer is read by
// now if that is another.
func (l *Layer) holds() (was, now *layerindex.Index) {
	was, now = l.opened.index, l.state.Load().index
	if was.HeaderSum() == now.HeaderSum() {
		return now, nil // the file of the other may be damaged
	}
	return was, now
}

// NotHeld says in a sentence which parts of the image Held does not hold, and that are not
// in a registry; "" if there are none. Reads of them need the place that they came from.
func (i *Image) NotHeld() string {
	r := i.layers.from
	if r.Image == nil || r.Source == nil {
		return ""
	}
	_, _, left := held.Of(r.Image)
	return left
}

// CloseHeld closes files that Held returned.
func CloseHeld(files []Held) {
	for _, h := range files {
		if h.File != nil {
			h.File.Close()
		}
	}
}

// Reheld returns a channel that is closed when Held returns other files from then on: a
// layer is read by another index than before.
func (i *Image) Reheld() <-chan struct{} { return i.layers.from.reheld.next() }

// A notice tells that something has changed. The zero notice is ready.
type notice struct {
	mu sync.Mutex
	c  chan struct{}
}

// next returns what is closed by the next tell.
func (n *notice) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c == nil {
		n.c = make(chan struct{})
	}
	return n.c
}

func (n *notice) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c != nil {
		close(n.c)
		n.c = nil
	}
}
