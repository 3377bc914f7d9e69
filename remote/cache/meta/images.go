package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// An Image is what the cache knows of an image that was opened through it.
type Image struct {
	// Name is the name that the user gave, as remote.Source.Name has it.
	Name string `json:"name"`
	// Manifest is the digest of the platform's manifest.
	Manifest digest.Digest `json:"manifest"`
	Platform string        `json:"platform"`
	Used     time.Time     `json:"used"`   // NoteImage sets it
	Layers   []ImageLayer  `json:"layers"` // the base first
}

// An ImageLayer is a layer of an Image.
type ImageLayer struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // of the blob
	DiffID digest.Digest `json:"diffID"`
}

// NoteImage remembers that an image is being used now. What is recorded from
// now on may take the room of images that were opened before.
func (c *Cache) NoteImage(img Image) {
	c.dir.NewImage()
	img.Used = time.Now().UTC().Truncate(time.Second)
	data, err := json.Marshal(recordOf(img))
	if err != nil {
		return
	}
	c.dir.KeepFile(path.Join(directory.Images, img.fileName()), append(data, '\n'))
}

// An imageRecord is an Image in a file. JSON has no other text than UTF-8, and
// paths need not be that.
type imageRecord struct {
	Image
	NameBytes []byte `json:"nameBytes,omitempty"` // Name, if it is no UTF-8
}

func recordOf(img Image) imageRecord {
	if utf8.ValidString(img.Name) {
		return imageRecord{Image: img}
	}
	return imageRecord{img, []byte(img.Name)}
}

// image returns the image of a record.
func (r *imageRecord) image() Image {
	if len(r.NameBytes) > 0 {
		r.Name = string(r.NameBytes)
	}
	return r.Image
}

// fileName returns the name of an image's record.
func (img *Image) fileName() string {
	sum := sha256.Sum256([]byte(img.Name + "\n" + img.Manifest.String() + "\n" + img.Platform + "\n"))
	return hex.EncodeToString(sum[:]) + ".json"
}

// Images returns the images that were noted, the one used last first. What
// cannot be read is left out.
func (c *Cache) Images() ([]Image, error) {
	var images []Image
	err := c.dir.Files().Walk(directory.Images, func(name string, st *unix.Stat_t) bool {
		if directory.IsRegular(st) && directory.KindOf(name) == directory.KindImage {
			if img, ok := readImage(c.dir.Files(), name); ok {
				images = append(images, img)
			}
		}
		return name == directory.Images
	}, func(string, error) {})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	slices.SortFunc(images, func(a, b Image) int {
		if n := b.Used.Compare(a.Used); n != 0 {
			return n
		}
		return strings.Compare(a.Name+a.Platform, b.Name+b.Platform)
	})
	return images, nil
}

// readImage reads an image record.
func readImage(d *beneath.Dir, name string) (img Image, ok bool) {
	data, _, err := d.ReadFile(name, directory.MaxRecord)
	if err != nil {
		return Image{}, false
	}
	return parseImage(data)
}

// parseImage returns what a record says; false if it cannot be understood.
func parseImage(data []byte) (img Image, ok bool) {
	var record imageRecord
	if json.Unmarshal(data, &record) != nil || record.Manifest.Validate() != nil {
		return Image{}, false
	}
	img = record.image()
	for _, l := range img.Layers {
		if l.Digest.Validate() != nil || l.DiffID.Validate() != nil || l.Size < 0 {
			return Image{}, false
		}
	}
	return img, true
}

// BlobsOf returns the blobs of an image, by its record; none if that cannot be
// understood.
func BlobsOf(record []byte) []digest.Digest {
	img, _ := parseImage(record)
	var blobs []digest.Digest
	for _, l := range img.Layers {
		blobs = append(blobs, l.Digest)
	}
	return blobs
}
