package indexrepo_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/remote/indexrepo"
)

// TestPublishers: of many who publish at the same time each has all that they published
// found.
func TestPublishers(t *testing.T) {
	s := newServer(t)
	publishers(t, s.Host())
	findAll(t, s.Host())
}

const manyPublishers = 24

// publishers publish at the same time, each an image of three layers, two of which others
// have as well.
func publishers(t *testing.T, host string) {
	t.Helper()
	var all sync.WaitGroup
	for i := range manyPublishers {
		repo := repository(t, host, "team/indexes")
		all.Go(func() {
			img, _ := testImage(false, 1000, i%5, 100+i)
			if _, err := indexrepo.Publish(t.Context(), repo, img); err != nil {
				t.Errorf("publisher %d: %v", i, err)
			}
			beside, _ := testImage(true, 1000, i%5, 100+i)
			if _, err := indexrepo.Publish(t.Context(), repo, beside); err != nil {
				t.Errorf("publisher %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// findAll finds what publishers have published, by image and by layer.
func findAll(t *testing.T, host string) {
	t.Helper()
	for i := range manyPublishers {
		img, layers := testImage(false, 1000, i%5, 100+i)
		f := newFinder(t)
		at := indexrepo.Place{Source: repository(t, host, "team/indexes")}
		checkFound(t, f.Find(t.Context(), at, img.Manifest.Digest, layers), 1000, i%5, 100+i)
		checkFound(t, f.Find(t.Context(), at, "", layers), 1000, i%5, 100+i)
		for _, l := range []int{1000, i % 5, 100 + i} {
			x := testIndex(l)
			content := make([]byte, x.Index.Size)
			want := make([]byte, x.Index.Size)
			blob, err := at.Source.Blob(x.Index)
			if err == nil {
				_, err = blob.ReadAt(t.Context(), content, 0)
			}
			if _, failed := x.IndexContent.ReadAt(want, 0); err != nil || failed != nil || !bytes.Equal(content, want) {
				t.Errorf("layer %d: %v, %v", l, err, failed)
			}
		}
	}
}
